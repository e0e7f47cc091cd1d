"""The same run in five tools: why the last digits, and sometimes the first, of their numbers differ.

    pip install ir_measures ranx        # beside this package's extra eval, which has mteb and pytrec_eval
    python benchmarks/five_tools.py COLLECTION [--model models/st-l0-mini]

The model's run (100 documents a query) is measured as it is; with its scores rounded to whole numbers, as
engines with integer weights give them, so that many are equal; and without the queries of every second id, as
a run file is that has no lines for queries without hits. Vectors of documents come from ``--work``, where
they are encoded if they are not there.

Writes ``NAME.json`` and ``NAME.md``, NAME as ``--output`` says.
"""

from __future__ import annotations

import argparse
import json
import statistics
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from words_beside import encode

from st_l0 import SparseEncoder
from st_l0.data import Collection, own_documents, read_collection
from st_l0.evaluation.measure import search_collection
from st_l0.evaluation.metrics import Run, quality
from st_l0.index import EmbeddedIndex

NAMES = ("nDCG@10", "RR@10", "R@100")


def ours(collection: Collection, run: Run) -> list[float]:
    """This package."""
    return list(quality(collection.qrels, run).values())


def trec_eval(collection: Collection, run: Run) -> list[float]:
    """Its C code, by pytrec_eval: the mean over the queries of the run; RR from the first ten it ranks."""
    import pytrec_eval

    measured = {"ndcg_cut.10", "recall.100", "recip_rank"}
    found = pytrec_eval.RelevanceEvaluator(collection.qrels, measured).evaluate(run)
    rows = [
        (one["ndcg_cut_10"], one["recip_rank"] if one["recip_rank"] >= 0.1 else 0.0, one["recall_100"])
        for one in found.values()
    ]
    return [statistics.fmean(column) for column in zip(*rows, strict=True)]


def ir_measures(collection: Collection, run: Run) -> list[float]:
    """Its means over the queries of the judgements."""
    import ir_measures as tool

    wanted = [tool.nDCG @ 10, tool.RR @ 10, tool.R @ 100]
    found = tool.calc_aggregate(wanted, collection.qrels, run)
    return [found[one] for one in wanted]


def ranx(collection: Collection, run: Run) -> list[float]:
    """Its `evaluate`, made comparable where queries are missing, without which it refuses."""
    import ranx as tool

    given = tool.Qrels(collection.qrels), tool.Run({query: dict(hits) for query, hits in run.items() if hits})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = tool.evaluate(*given, ["ndcg@10", "mrr@10", "recall@100"], make_comparable=True)
    return [float(value) for value in found.values()]


def mteb(collection: Collection, run: Run) -> list[float]:
    """The numbers of a task whose model finds the run."""
    import mteb as tool
    from datasets import Dataset
    from mteb.abstasks.retrieval import AbsTaskRetrieval
    from mteb.abstasks.retrieval_dataset_loaders import RetrievalSplitData

    class Given(AbsTaskRetrieval):
        metadata = tool.TaskMetadata(
            name="Given",
            description="A run that is there.",
            dataset={"path": "none/none", "revision": "1"},
            type="Retrieval",
            category="t2t",
            modalities=["text"],
            eval_splits=["test"],
            eval_langs=["eng-Latn"],
            main_score="ndcg_at_10",
        )

        def load_data(self, **_: Any) -> None:
            corpus = [{"id": id, "title": "", "text": text} for id, text in collection.corpus.items()]
            queries = [{"id": id, "text": text} for id, text in collection.queries.items()]
            split = RetrievalSplitData(
                corpus=Dataset.from_list(corpus),
                queries=Dataset.from_list(queries),
                relevant_docs=collection.qrels,
                top_ranked=None,
            )
            self.dataset = {"default": {"test": split}}
            self.data_loaded = True

    class Finds:
        mteb_model_meta = tool.models.ModelMeta.create_empty()

        def index(self, corpus: Any, **_: Any) -> None:
            pass

        def search(self, queries: Any, **_: Any) -> dict[str, dict[str, float]]:
            return {query: dict(hits) for query, hits in run.items()}

    found = tool.evaluate(Finds(), Given(), cache=None, show_progress_bar=False)
    scores = found.task_results[0].scores["test"][0]
    return [scores["ndcg_at_10"], scores["mrr_at_10"], scores["recall_at_100"]]


TOOLS: dict[str, Callable[[Collection, Run], list[float]]] = {
    "st-l0": ours,
    "trec_eval (pytrec_eval-terrier)": trec_eval,
    "ir_measures": ir_measures,
    "ranx": ranx,
    "mteb": mteb,
}


def runs(collection: Collection, run: Run) -> dict[str, Run]:
    """What is measured, by name."""
    rounded = {query: {id: float(round(score)) for id, score in hits.items()} for query, hits in run.items()}
    found = {query: hits for place, (query, hits) in enumerate(run.items()) if place % 2 == 0}
    return {"as it is": run, "scores rounded": rounded, "every second query found nothing": found}


def main() -> None:
    """Measure the runs of one collection."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("collection", type=Path)
    parser.add_argument("--model", default="models/st-l0-mini")
    parser.add_argument("--work", type=Path, default=Path("runs/five_tools"))
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/five_tools"))
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    collection = read_collection(given.collection)
    model = SparseEncoder.from_pretrained(given.model, device="cpu")
    index = EmbeddedIndex()
    index.add(list(collection.corpus), encode(model, Path(given.model).name, collection, given.work))
    queries = model.encode_query(list(collection.queries.values()), convert_to_scipy=True)
    own = own_documents(collection.corpus, collection.queries, collection.qrels)
    run, _ = search_collection(index, collection, queries, 100, own, False, 0.0)
    results = {
        title: {
            tool: dict(zip(NAMES, measured(collection, one), strict=True)) for tool, measured in TOOLS.items()
        }
        for title, one in runs(collection, run).items()
    }
    head = ["", *(f"{title}: {name}" if name == NAMES[0] else name for title in results for name in NAMES)]
    lines = [head, ["---", *["---:"] * (len(head) - 1)]]
    for tool in TOOLS:
        values = [results[title][tool][name] for title in results for name in NAMES]
        lines.append([tool, *(f"{value:.5f}" for value in values)])
    packages = ("pytrec_eval-terrier", "ir_measures", "ranx", "mteb")
    text = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    text += f"\n\n{collection.name}, {Path(given.model).name}; "
    text += ", ".join(f"{name} {version(name)}" for name in packages) + ".\n"
    print(text)
    given.output.with_suffix(".json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    given.output.with_suffix(".md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
