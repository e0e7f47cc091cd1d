"""The evaluators on an index against stock's, and against numbers worked out by hand."""

from __future__ import annotations

import json
import math
import random
from types import SimpleNamespace

import datasets
import numpy as np
import pytest
import sentence_transformers
import torch
from sentence_transformers.sparse_encoder.evaluation import (
    SparseInformationRetrievalEvaluator,
    SparseNanoBEIREvaluator,
)
from sentence_transformers.util import cos_sim, dot_score

from protocol_index import ProtocolIndex
from st_l0 import SparseEncoder
from st_l0.errors import InputError
from st_l0.evaluation import IndexInformationRetrievalEvaluator, IndexNanoBEIREvaluator
from tiny_models import WORDS

STOCK, OURS = SparseInformationRetrievalEvaluator, IndexInformationRetrievalEvaluator


def collection(seed, documents=60, queries=20):
    """Random texts with many copies, so that scores tie, in an order that is not that of the ids."""
    draw = random.Random(seed)
    texts = [" ".join(draw.choices(WORDS, k=draw.randint(1, 6))) for _ in range(documents // 3)]
    ids = [f"d{number}" for number in range(documents)]
    draw.shuffle(ids)
    corpus = {id: draw.choice(texts) for id in ids}
    asked = {f"q{number}": " ".join(draw.choices(WORDS, k=5)) for number in range(queries)} | {"q_": "zzz"}
    relevant = {query: set(draw.sample(ids, draw.randint(1, 4))) for query in asked}
    return {"queries": asked, "corpus": corpus, "relevant_docs": relevant}


class DenseScores(SparseEncoder):
    """Our encoder, so that vectors are the same to the last bit, with stock's matrix of scores."""

    similarity = sentence_transformers.SparseEncoder.similarity


def stock_model(model, kind=DenseScores):
    return kind(modules=list(model.children()), device="cpu", similarity_fn_name="dot")


def assert_same(ours, stock):
    assert list(ours) == list(stock)
    for key, value in stock.items():
        assert ours[key] == pytest.approx(value, abs=1e-9), key


@pytest.mark.parametrize("chunk", [1, 7, 50_000])
@pytest.mark.parametrize("active", [None, 3])
def test_metrics_are_those_of_stock(tiny_encoder, chunk, active):
    model = tiny_encoder()
    given = {
        **collection(chunk),
        "corpus_chunk_size": chunk,
        "max_active_dims": active,
        "name": "tiny",
        "accuracy_at_k": [1, 4],
        "map_at_k": [5, 23],
    }
    stock, ours = STOCK(**given), OURS(**given)
    expected = stock(stock_model(model))
    assert_same(ours(model), expected)
    assert ours.primary_metric == stock.primary_metric == "tiny_dot_ndcg@10"
    assert 0.01 < expected["tiny_dot_map@23"] < 0.99
    assert_same(stock(model), expected)  # stock's evaluator, given our model


def test_plain_sentence_transformers_measures_the_same(tiny_encoder):
    model, given = tiny_encoder(), collection(5)
    given["corpus"] = {text: text for text in given["corpus"].values()}  # copies tie only up to rounding
    relevant = zip(given["queries"], given["corpus"])  # noqa: B905 (there are more queries)
    given["relevant_docs"] = {query: {text} for query, text in relevant}
    expected = STOCK(**given)(stock_model(model, sentence_transformers.SparseEncoder))
    assert_same(OURS(**given)(model), expected)
    assert 0.05 < expected["dot_map@100"] < 0.95


def test_files_are_those_of_stock(tiny_encoder, tmp_path):
    model, given = tiny_encoder(), collection(1)
    for name, kind, used in (("stock", STOCK, stock_model(model)), ("ours", OURS, model)):
        evaluator = kind(**given, name="tiny", write_predictions=True, map_at_k=[40])
        for steps in (1, 2):
            evaluator(used, output_path=str(tmp_path / name), epoch=0, steps=steps)
    files = sorted(path.name for path in (tmp_path / "stock").iterdir())
    assert files == sorted(path.name for path in (tmp_path / "ours").iterdir())
    assert len(files) == 2
    jsonl, csv = (
        [(tmp_path / side / name).read_text(encoding="utf-8").splitlines() for side in ("stock", "ours")]
        for name in files
    )
    assert csv[0] == csv[1]
    for stock, ours in zip(*([json.loads(line) for line in lines] for lines in jsonl), strict=True):
        assert list(ours) == list(stock)
        assert ours == stock  # scores to the last bit
        assert len(stock["results"]) == 40


class Given:
    """A model with given vectors; its matrix of scores must not be asked for."""

    similarity_fn_name = "dot"
    sparsity = staticmethod(sentence_transformers.SparseEncoder.sparsity)

    def __init__(self, queries, documents):
        self.queries, self.documents = queries, documents
        self.model_card_data = SimpleNamespace(set_evaluation_metrics=lambda *args, **kwargs: None)

    def similarity(self, first, second):
        raise AssertionError("a dense matrix of scores was asked for")

    def encode_query(self, inputs, **options):
        return torch.tensor([self.queries[text] for text in inputs]).to_sparse()

    def encode_document(self, inputs, **options):
        return torch.tensor([self.documents[text] for text in inputs]).to_sparse()


def test_numbers_by_hand():
    model = Given(
        {"one": [1.0, 0.0, 0.0], "two": [0.0, 2.0, 0.0]},
        {"A": [1.0, 0.0, 0.0], "B": [3.0, 0.0, 0.0], "C": [0.0, 0.0, 5.0]},
    )
    # By id: a C, b B, c A, d A. Query one: b 3, then the tie c 1, d 1, then a 0.
    # Query two matches nothing: all at 0, in the order of ids.
    evaluator = OURS(
        {"q1": "one", "q2": "two"},
        {"d": "A", "c": "A", "b": "B", "a": "C"},
        {"q1": {"c", "a"}, "q2": {"b"}},
        ndcg_at_k=[2],
        mrr_at_k=[10],
        accuracy_at_k=[1],
        precision_recall_at_k=[2],
        map_at_k=[4],
    )
    expected = {
        "dot_accuracy@1": 0,
        "dot_precision@2": 1 / 2,
        "dot_recall@2": (1 / 2 + 1) / 2,
        "dot_ndcg@2": (1 / math.log2(3) / (1 + 1 / math.log2(3)) + 1 / math.log2(3)) / 2,
        "dot_mrr@10": 1 / 2,
        "dot_map@4": ((1 / 2 + 2 / 4) / 2 + 1 / 2) / 2,
        "query_active_dims": 1,
        "query_sparsity_ratio": 2 / 3,
        "corpus_active_dims": 1,
        "corpus_sparsity_ratio": 2 / 3,
        "avg_flops": 1 / 2 * 3 / 4,
    }
    assert_same(evaluator(model), expected)


def test_the_cut_falls_into_a_tie_as_in_stock():
    model = Given({"one": [1.0]}, {"A": [1.0], "B": [2.0]})
    depths = ("mrr_at_k", "ndcg_at_k", "accuracy_at_k", "precision_recall_at_k", "map_at_k")
    at = {depth: [3] for depth in depths}
    corpus = dict.fromkeys("zyxmb", "A") | {"w": "B"}
    for chunk in (2, 100):
        evaluator = OURS({"q": "one"}, corpus, {"q": {"m"}}, corpus_chunk_size=chunk, **at)
        assert evaluator(model)["dot_mrr@3"] == pytest.approx(1 / 3)  # w, b, m


def test_documents_that_do_not_match_come_after_those_that_do_in_every_chunk():
    model = Given({"one": [1.0, 0.0]}, {"A": [1.0, 0.0], "N": [0.0, 1.0]})
    corpus = {"a": "N", "b": "N", "c": "N", "x": "A", "y": "N"}
    for chunk in (1, 2, 3, 100):
        evaluator = OURS({"q": "one"}, corpus, {"q": {"b"}}, corpus_chunk_size=chunk)
        assert evaluator(model)["dot_mrr@10"] == pytest.approx(1 / 3)  # x, a, b


def test_another_engine_one_index_a_chunk():
    model = Given({"one": [1.0, 0.0]}, {"A": [1.0, 0.0], "N": [0.0, 1.0]})
    given = {"q": "one"}, {"a": "N", "b": "N", "c": "N", "x": "A", "y": "N"}, {"q": {"b"}}
    made = []
    evaluator = OURS(*given, corpus_chunk_size=2, make_index=lambda: made.append(ProtocolIndex()) or made[-1])
    assert_same(evaluator(model), OURS(*given)(model))
    assert [len(index) for index in made] == [2, 2, 1]
    assert [index.calls for index in made] == [["add", "search"]] * 3


def test_a_negative_weight_is_refused():
    query, texts, relevant = {"q": "one"}, {"a": "A"}, {"q": {"a"}}
    with pytest.raises(InputError, match="a document vector holds a negative weight"):
        OURS(query, texts, relevant)(Given({"one": [1.0]}, {"A": [-1.0]}))
    with pytest.raises(InputError, match="a query vector holds a negative weight"):
        OURS(query, texts, relevant)(Given({"one": [-1.0]}, {"A": [1.0]}))


def test_other_scores_are_left_to_stock(tiny_encoder):
    model, given = tiny_encoder(), collection(2)
    for functions in ({"cosine": cos_sim}, {"dot": dot_score, "cosine": cos_sim}, {"dot": dot_score}):
        options = given | {"score_functions": functions}
        assert_same(OURS(**options)(model), STOCK(**options)(stock_model(model)))
    cosine, stock = tiny_encoder(), stock_model(model)
    cosine.similarity_fn_name = stock.similarity_fn_name = "cosine"
    assert_same(OURS(**given)(cosine), STOCK(**given)(stock))


def test_given_embeddings_and_another_model_for_documents(tiny_encoder):
    model, other, given = tiny_encoder(), tiny_encoder(activation=2, max_seq_length=4), collection(3)
    ours, stock = OURS(**given), STOCK(**given)
    expected = stock(stock_model(model), corpus_model=stock_model(other))
    assert_same(ours(model, corpus_model=other), expected)
    vectors = other.encode_document(list(given["corpus"].values()))
    assert_same(ours(model, corpus_embeddings=vectors), expected)


def test_nano_beir_is_that_of_stock(tiny_encoder, monkeypatch):
    def load(dataset_id, subset, *, split):
        given = collection(len(split))
        if subset == "qrels":
            pairs = [(q, d) for q, found in given["relevant_docs"].items() for d in sorted(found)]
            return datasets.Dataset.from_list([{"query-id": q, "corpus-id": d} for q, d in pairs])
        rows = given["corpus" if subset == "corpus" else "queries"].items()
        return datasets.Dataset.from_list([{"_id": id, "text": text} for id, text in rows])

    monkeypatch.setattr(datasets, "load_dataset", load)
    model, names = tiny_encoder(), ["msmarco", "nq"]
    made = []
    engine = {"make_index": lambda: made.append(ProtocolIndex()) or made[-1]}
    ours, stock = IndexNanoBEIREvaluator(names, **engine), SparseNanoBEIREvaluator(names)
    expected = stock(stock_model(model))
    assert_same(ours(model), expected)
    assert ours.primary_metric == stock.primary_metric == "NanoBEIR_mean_dot_ndcg@10"
    assert len(expected) == 3 * 20
    assert all(type(one) is OURS for one in ours.evaluators)
    assert len(made) == 2
    assert_same(IndexNanoBEIREvaluator(names)(model), expected)


def test_model_cards_name_the_measurement_as_stock_does(monkeypatch):
    given = collection(4)
    assert OURS(**given).description == STOCK(**given).description
    monkeypatch.setattr(SparseNanoBEIREvaluator, "__init__", lambda self: None)
    assert IndexNanoBEIREvaluator().description == SparseNanoBEIREvaluator().description


def random_vectors(seed, rows, columns=50, density=0.2):
    generator = np.random.default_rng(seed)
    values = generator.random((rows, columns)) * (generator.random((rows, columns)) < density)
    return torch.from_numpy(values.astype(np.float32))


@pytest.mark.parametrize("documents", [1, 63, 64, 200])
@pytest.mark.parametrize("queries", [1, 64, 130])
def test_similarity_of_the_model(tiny_encoder, queries, documents):
    model = tiny_encoder()
    first, second = random_vectors(0, queries), random_vectors(1, documents)
    first[0] = 0
    scores = model.similarity(first.to_sparse(), second.to_sparse())
    assert scores.layout is torch.strided
    assert scores.dtype is torch.float32
    torch.testing.assert_close(scores, first @ second.T)
    assert torch.equal(scores, stock_model(model).similarity(first.to_sparse(), second.to_sparse()))


def test_similarity_of_other_inputs_is_that_of_stock(tiny_encoder):
    model = tiny_encoder()
    stock = stock_model(model)
    first, second = random_vectors(0, 5), random_vectors(1, 100)
    pairs = [
        (first, second),
        (first.to_sparse(), second),
        (first[0].to_sparse(), second.to_sparse()),
        (list(first.to_sparse()), list(second.to_sparse())),
        (first.numpy(), second.numpy()),
        (first.double().to_sparse(), second.double().to_sparse()),
    ]
    for one, other in pairs:
        assert torch.equal(model.similarity(one, other), stock.similarity(one, other))
    learned = first.to_sparse().requires_grad_()
    model.similarity(learned, second.to_sparse()).sum().backward()
    assert learned.grad is not None
    with pytest.raises(InputError, match="50 dimensions, embeddings2 49"):
        model.similarity(first.to_sparse(), random_vectors(1, 100, columns=49).to_sparse())
    model.similarity_fn_name = stock.similarity_fn_name = "cosine"
    one, other = first.to_sparse(), second.to_sparse()
    assert torch.equal(model.similarity(one, other), stock.similarity(one, other))


def test_a_text_that_is_none_is_refused_by_its_id():
    given = collection(0)
    for part, noun in (("queries", "query"), ("corpus", "document")):
        name = next(reversed(given[part]))
        with pytest.raises(InputError, match=f"^{noun} '{name}' is nan, no string"):
            OURS(**given | {part: given[part] | {name: math.nan}})
