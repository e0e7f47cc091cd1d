"""Evaluation on test collections: what a model finds, what it costs, and BM25 beside it."""

from __future__ import annotations

from st_l0.evaluation.bm25 import BM25Result, search_bm25
from st_l0.evaluation.collections import Collection, read_collection, write_collection
from st_l0.evaluation.report import render, write_json
from st_l0.evaluation.run import EvaluationReport, evaluate

__all__ = [
    "BM25Result",
    "Collection",
    "EvaluationReport",
    "evaluate",
    "read_collection",
    "render",
    "search_bm25",
    "write_collection",
    "write_json",
]
