"""Quality of a run, as trec_eval measures it, and the cost of sparse matching."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from st_l0.errors import InputError
from st_l0.evaluation.costs import Activity

if TYPE_CHECKING:
    import scipy.sparse as sp

Qrels: TypeAlias = Mapping[str, Mapping[str, int]]
"""Query id → document id → graded relevance."""

Run: TypeAlias = Mapping[str, Mapping[str, float]]
"""Query id → document id → score."""

PROTOCOL = {
    "metrics": "trec_eval's: gain is the grade, relevant is a grade of 1 and more, not judged counts as 0",
    "equal_scores": "by falling document id, scores as float32",
    "queries_without_hits": "count 0",
    "own_documents": "a query's own document is no hit, unless it is judged as relevant",
}
"""How numbers come about, for those who compare them with other tools'."""


def rank(scores: Mapping[str, float]) -> list[str]:
    """Order the documents found for a query as trec_eval does.

    By falling score, and equal scores by falling document id. Like trec_eval's, scores are single precision:
    what differs beyond that is a tie.
    """
    singles = np.fromiter(scores.values(), dtype=np.float32, count=len(scores)).tolist()
    return [document for _, document in sorted(zip(singles, scores, strict=True), reverse=True)]


def best(scores: Mapping[str, float], k: int, *, without: str | None = None) -> dict[str, float]:
    """The first ``k`` of the documents found for a query, which come best first, without one of them."""
    return dict(islice(((id, score) for id, score in scores.items() if id != without), k))


def ndcg(judgements: Mapping[str, int], ranking: Sequence[str], k: int = 10) -> float:
    """Normalised discounted cumulative gain of the first ``k`` documents.

    ``DCG = sum_r gain_r / log2(r + 1)``, where the gain is the judgement itself (0 if it is negative or there
    is none). It is divided by the DCG of the best ranking of all judged documents; 0 if none is relevant.

    Args:
        judgements: Document id → graded relevance, for one query.
        ranking: Document ids, best first.
        k: Documents that count.

    Source: trec_eval's ``ndcg_cut``.
    """
    gains = [max(judgements.get(document, 0), 0) for document in ranking[:k]]
    ideal = _dcg(sorted((max(judgement, 0) for judgement in judgements.values()), reverse=True)[:k])
    return _dcg(gains) / ideal if ideal else 0.0


def _dcg(gains: Sequence[int]) -> float:
    return sum(gain / math.log2(position + 2) for position, gain in enumerate(gains) if gain)


def reciprocal_rank(judgements: Mapping[str, int], ranking: Sequence[str], k: int = 10) -> float:
    """1 / rank of the first relevant document (judgement ≥ 1) among the first ``k``; 0 if there is none.

    Arguments as in `ndcg`. Source: trec_eval's ``recip_rank``, of the first ``k`` documents.
    """
    for position, document in enumerate(ranking[:k], 1):
        if judgements.get(document, 0) > 0:
            return 1 / position
    return 0.0


def recall(judgements: Mapping[str, int], ranking: Sequence[str], k: int = 100) -> float:
    """Part of the relevant documents (judgement ≥ 1) that are among the first ``k``; 0 if none is relevant.

    Arguments as in `ndcg`. Source: trec_eval's ``recall``.
    """
    relevant = sum(judgement > 0 for judgement in judgements.values())
    found = sum(judgements.get(document, 0) > 0 for document in ranking[:k])
    return found / relevant if relevant else 0.0


def quality_per_query(qrels: Qrels, run: Run, k: int = 100) -> dict[str, dict[str, float]]:
    """nDCG@10, MRR@10 and recall@k of each judged query: what a test of significance compares.

    Args:
        qrels: The judgements.
        run: What was found. A judged query that is absent counts 0, one that was not judged is ignored. A
            document of the query's own id counts as any other; `evaluate` has left it out where it is no hit.
        k: Depth of the recall.

    Returns:
        Query id → ``{"ndcg@10": …, "mrr@10": …, "recall@<k>": …}``, each from 0 to 1, in the order of
        ``qrels``.
    """
    measured = {}
    for query, judgements in qrels.items():
        ranking = rank(run.get(query, {}))
        measured[query] = {
            "ndcg@10": ndcg(judgements, ranking),
            "mrr@10": reciprocal_rank(judgements, ranking),
            f"recall@{k}": recall(judgements, ranking, k),
        }
    return measured


def mean_quality(per_query: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """The mean over the queries of what `quality_per_query` gives.

    Raises:
        InputError: there are no queries.
    """
    if not per_query:
        raise InputError("no judgements, so there is nothing to measure; give qrels with at least one query")
    means = np.mean([list(values.values()) for values in per_query.values()], axis=0).tolist()
    return dict(zip(next(iter(per_query.values())), means, strict=True))


def quality(qrels: Qrels, run: Run, k: int = 100) -> dict[str, float]:
    """Mean nDCG@10, MRR@10 and recall@k over all judged queries.

    Args:
        qrels: The judgements; at least one query.
        run: What was found. A judged query that is absent counts 0, one that was not judged is ignored.
        k: Depth of the recall.

    Returns:
        ``{"ndcg@10": …, "mrr@10": …, "recall@<k>": …}``, each from 0 to 1.

    Raises:
        InputError: there are no judgements.
    """
    return mean_quality(quality_per_query(qrels, run, k))


def flops(query_vectors: sp.csr_matrix, document_vectors: sp.csr_matrix) -> float:
    """Mean number of tokens that a query and a document have in common: what a match costs.

    ``sum_j p_q(j) * p_d(j)``, where ``p(j)`` is the part of the vectors in which token ``j`` is active. It is
    a metric, not the regularizer of the same name.

    Args:
        query_vectors: CSR without duplicates, shape ``(queries, vocabulary)``.
        document_vectors: CSR without duplicates, shape ``(documents, vocabulary)``.

    Raises:
        InputError: there are no vectors, or their lengths differ.

    Source: Paria et al., 2020, https://arxiv.org/abs/2004.05665
    """
    if query_vectors.shape[1] != document_vectors.shape[1]:
        raise InputError(
            f"query vectors have length {query_vectors.shape[1]}, document vectors "
            f"{document_vectors.shape[1]}; encode both with one model"
        )
    return float(_activity(query_vectors) @ _activity(document_vectors))


def _activity(vectors: sp.csr_matrix) -> np.ndarray:
    """Part of the vectors in which each token is active, shape ``(vocabulary,)``."""
    if not vectors.shape[0]:
        raise InputError("flops is a mean over texts, and there are none; give at least one vector")
    seen = Activity()
    seen.add(vectors)
    return seen.shares
