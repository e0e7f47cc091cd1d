"""Evaluation on test collections: what a model finds, what it costs, and BM25 beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from st_l0.data import Collection, read_collection  # what `evaluate` takes
from st_l0.evaluation.bm25 import BM25Result, search_bm25
from st_l0.evaluation.measure import EvaluationReport, SystemResults, evaluate
from st_l0.evaluation.metrics import quality_per_query
from st_l0.evaluation.report import render, summarise, write_json, write_results
from st_l0.evaluation.trec import read_run, write_run
from st_l0.utils.lazy import on_first_use

if TYPE_CHECKING:
    from st_l0.evaluation.evaluators import IndexInformationRetrievalEvaluator, IndexNanoBEIREvaluator
    from st_l0.evaluation.mteb import MtebModel

__all__ = [
    "BM25Result",
    "Collection",
    "EvaluationReport",
    "IndexInformationRetrievalEvaluator",
    "IndexNanoBEIREvaluator",
    "MtebModel",
    "SystemResults",
    "evaluate",
    "quality_per_query",
    "read_collection",
    "read_run",
    "render",
    "search_bm25",
    "summarise",
    "write_json",
    "write_results",
    "write_run",
]

# So that the command line does not wait for sentence-transformers.
__getattr__ = on_first_use(
    __name__,
    {
        "IndexInformationRetrievalEvaluator": "evaluators",
        "IndexNanoBEIREvaluator": "evaluators",
        "MtebModel": "mteb",
    },
)
