"""What an evaluation beside BM25 says, in plain words: better, worse or no difference beyond chance."""

from __future__ import annotations

from collections.abc import Mapping

from st_l0.evaluation import EvaluationReport, SystemResults
from st_l0.evaluation.significance import randomisation_test

_LEVEL = 0.05


def verdict(report: EvaluationReport, results: Mapping[str, SystemResults], held_out: str) -> list[str]:
    """Compare the model, and its sum with BM25, to BM25 alone by nDCG@10, each by a paired test.

    Args:
        report: What `st_l0.evaluation.evaluate` measured, with BM25.
        results: What it gave as ``results``.
        held_out: What it was measured on, such as ``"the unseen modules"``.

    Returns:
        Lines; where the model is not better than BM25, with what to do about it.
    """
    ours, bm25 = report["model"]["ndcg@10"], report["bm25"]["ndcg@10"]
    p = _p_value(results, "model")
    numbers = f"nDCG@10 {ours:.3f} against {bm25:.3f}, {_shown(p)}"
    better = ours > bm25 and p < _LEVEL
    if better:
        lines = [f"The model beats BM25 on {held_out}: {numbers}."]
    elif p < _LEVEL:
        lines = [f"The model does not beat BM25 on {held_out}, it finds less: {numbers}."]
    else:
        lines = [f"The model does not beat BM25 on {held_out} beyond chance: {numbers}."]
    if "model_bm25" in report:
        both, p = report["model_bm25"]["ndcg@10"], _p_value(results, "model_bm25")
        than = (
            "which is better than BM25"
            if both > bm25 and p < _LEVEL
            else "not better than BM25 beyond chance"
        )
        lines.append(f"The sum of both, searched in one index, has {both:.3f} ({than}, {_shown(p)}).")
    if not better:
        of_sum = report.get("model_bm25", {"ndcg@10": 0.0})["ndcg@10"]
        words = "search the sum, as st-l0 search does with this index; " if of_sum > bm25 else ""
        lines.append(
            f"What helps: {words}train longer (below) or on more documents; and most of all real queries: "
            '{"query": …, "positive": …} a line, in data.train.'
        )
    return lines


def _shown(p: float) -> str:
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def _p_value(results: Mapping[str, SystemResults], system: str) -> float:
    """Of the difference to BM25 in nDCG@10."""
    pairs = (
        (found["ndcg@10"], results["bm25"].per_query[query]["ndcg@10"])
        for query, found in results[system].per_query.items()
    )
    return randomisation_test([[one - other for one, other in pairs]])
