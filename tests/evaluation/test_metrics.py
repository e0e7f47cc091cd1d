from __future__ import annotations

import math
import random

import numpy as np
import pytest
import scipy.sparse as sp

from st_l0.errors import InputError
from st_l0.evaluation.metrics import (
    flops,
    ndcg,
    quality,
    quality_per_query,
    rank,
    recall,
    reciprocal_rank,
)

JUDGEMENTS = {"a": 3, "b": 1, "c": 0, "d": 2, "e": -1}


def test_rank_breaks_ties_by_falling_id():
    assert rank({"a": 1.0, "c": 2.0, "b": 2.0, "é": 1.0}) == ["c", "b", "é", "a"]


def test_rank_compares_single_precision():
    # 1 + 1e-9 is 1 in single precision, so the id decides.
    assert rank({"a": 1 + 1e-9, "b": 1.0}) == ["b", "a"]
    assert rank({"a": 1 + 1e-6, "b": 1.0}) == ["a", "b"]


def test_ndcg_by_hand():
    # Gains 0 (c), 3 (a), 0 (unjudged), 1 (b), 0 (e is negative); best order: 3, 2, 1.
    dcg = 3 / math.log2(3) + 1 / math.log2(5)
    ideal = 3 + 2 / math.log2(3) + 1 / 2
    ranking = ["c", "a", "x", "b", "e"]
    assert ndcg(JUDGEMENTS, ranking) == pytest.approx(dcg / ideal, abs=1e-12)
    # At depth 2 the ideal stops after two documents as well.
    assert ndcg(JUDGEMENTS, ranking, 2) == pytest.approx(3 / math.log2(3) / (3 + 2 / math.log2(3)), abs=1e-12)
    assert ndcg(JUDGEMENTS, ["a", "d", "b"]) == pytest.approx(1, abs=1e-12)


def test_reciprocal_rank_by_hand():
    assert reciprocal_rank(JUDGEMENTS, ["c", "e", "x", "d", "a"]) == 1 / 4
    assert reciprocal_rank(JUDGEMENTS, ["c", "e", "x", "d", "a"], 3) == 0
    assert reciprocal_rank(JUDGEMENTS, []) == 0


def test_recall_by_hand():
    assert recall(JUDGEMENTS, ["c", "a", "x", "b"]) == pytest.approx(2 / 3)  # a, b of a, b, d
    assert recall(JUDGEMENTS, ["c", "a", "x", "b"], 2) == pytest.approx(1 / 3)


def test_nothing_relevant_scores_zero():
    for metric in (ndcg, reciprocal_rank, recall):
        assert metric({"a": 0, "b": -2}, ["a", "b"]) == 0


def test_quality_is_a_mean_over_all_judged_queries():
    qrels = {"found": {"a": 1}, "missed": {"a": 1}, "absent": {"a": 1}, "irrelevant": {"a": 0}}
    run = {
        "found": {"a": 2.0, "b": 1.0},
        "missed": {"b": 1.0},
        "irrelevant": {"a": 1.0},
        "unjudged": {"a": 1.0},
    }
    assert quality(qrels, run, k=50) == {"ndcg@10": 0.25, "mrr@10": 0.25, "recall@50": 0.25}


def test_quality_of_each_query_by_hand():
    qrels = {"q2": {"a": 3, "b": 1}, "q1": {"a": 1, "c": 0}, "absent": {"a": 1}, "irrelevant": {"a": 0}}
    run = {
        "unjudged": {"a": 1.0},
        "q1": {"c": 3.0, "b": 2.0, "a": 1.0},  # the relevant one is third
        "q2": {"b": 2.0, "x": 1.0},  # of two, the less relevant one is first
        "irrelevant": {"a": 1.0},
    }
    measured = quality_per_query(qrels, run, k=2)
    assert list(measured) == ["q2", "q1", "absent", "irrelevant"]
    nothing = {"ndcg@10": 0, "mrr@10": 0, "recall@2": 0}
    assert measured == {
        "q2": {"ndcg@10": pytest.approx(1 / (3 + 1 / math.log2(3))), "mrr@10": 1, "recall@2": 1 / 2},
        "q1": {"ndcg@10": pytest.approx(1 / math.log2(4)), "mrr@10": pytest.approx(1 / 3), "recall@2": 0},
        "absent": nothing,
        "irrelevant": nothing,
    }
    means = {key: sum(values[key] for values in measured.values()) / 4 for key in nothing}
    assert quality(qrels, run, k=2) == pytest.approx(means, abs=1e-15)


def test_quality_without_judgements_is_refused():
    with pytest.raises(InputError, match="no judgements"):
        quality({}, {"q": {"a": 1.0}})


@pytest.mark.parametrize("seed", range(6))
def test_agrees_with_trec_eval(seed):
    pytrec_eval = pytest.importorskip("pytrec_eval")
    dice = random.Random(seed)
    documents = [str(number) for number in range(180)] + ["é", "z", "Z", "猫", "a-1", "\N{PILE OF POO}"]
    qrels, run = {}, {}
    for number in range(60):
        judged = dice.sample(documents, dice.choice([1, 3, 20, 150]))
        qrels[f"q{number}"] = {document: dice.choice([-1, 0, 0, 1, 1, 2, 3]) for document in judged}
        # Few distinct scores make ties, and some scores differ beyond single precision only.
        run[f"q{number}"] = {
            document: dice.randrange(12) / 3 + dice.choice([0, 0, 1e-10])
            for document in dice.sample(documents, dice.choice([1, 8, 40, 180]))
        }
    theirs = pytrec_eval.RelevanceEvaluator(
        qrels, {"ndcg_cut.1,10,100", "recall.5,10,100", "recip_rank"}
    ).evaluate(run)
    assert len(theirs) == len(qrels)
    for query, expected in theirs.items():
        judgements, ranking = qrels[query], rank(run[query])
        for k in (1, 10, 100):
            assert ndcg(judgements, ranking, k) == pytest.approx(expected[f"ndcg_cut_{k}"], abs=1e-9)
        for k in (5, 10, 100):
            assert recall(judgements, ranking, k) == pytest.approx(expected[f"recall_{k}"], abs=1e-9)
        first = expected["recip_rank"] if expected["recip_rank"] >= 0.1 - 1e-12 else 0
        assert reciprocal_rank(judgements, ranking, 10) == pytest.approx(first, abs=1e-9)
    means = quality(qrels, run)
    assert means["ndcg@10"] == pytest.approx(np.mean([e["ndcg_cut_10"] for e in theirs.values()]), abs=1e-9)
    assert means["recall@100"] == pytest.approx(np.mean([e["recall_100"] for e in theirs.values()]), abs=1e-9)


def test_flops_by_hand():
    queries = sp.csr_matrix(np.array([[1.5, 0, 2, 0], [0.5, 0, 0, 0]], dtype=np.float32))
    documents = sp.csr_matrix(
        np.array([[9, 1, 0, 0], [9, 0, 1, 0], [0, 1, 0, 1], [0, 0, 3, 0]], dtype=np.float32)
    )
    # p_q = 1, 0, 1/2, 0 and p_d = 1/2, 1/2, 1/2, 1/4.
    assert flops(queries, documents) == pytest.approx(0.5 + 0.25)


def test_flops_is_the_mean_number_of_common_tokens():
    generator = np.random.default_rng(0)
    dense_queries = generator.random((7, 30)) * (generator.random((7, 30)) < 0.2)
    dense_documents = generator.random((11, 30)) * (generator.random((11, 30)) < 0.4)
    common = [np.sum((q != 0) & (d != 0)) for q in dense_queries for d in dense_documents]
    found = flops(sp.csr_matrix(dense_queries), sp.csr_matrix(dense_documents))
    assert found == pytest.approx(np.mean(common))


def test_flops_ignores_explicit_zeros():
    documents = sp.csr_matrix(np.array([[1.0, 1.0]]))
    documents.data[0] = 0
    assert flops(sp.csr_matrix(np.array([[1.0, 1.0]])), documents) == 1


def test_flops_refuses_what_has_no_mean():
    with pytest.raises(InputError, match="length 3, document vectors 4"):
        flops(sp.csr_matrix((2, 3)), sp.csr_matrix((2, 4)))
    with pytest.raises(InputError, match="there are none"):
        flops(sp.csr_matrix((0, 3)), sp.csr_matrix((2, 3)))
