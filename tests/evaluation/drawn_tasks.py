"""Tasks of mteb that download nothing, and benchmarks of them."""

from __future__ import annotations

import random

from st_l0.data import Collection
from tiny_models import WORDS


def draw_collection(seed=0):
    """60 different documents, all of which match every query, and judgements that are met by chance."""
    draw = random.Random(seed)
    corpus = {}
    while len(corpus) < 60:
        text = " ".join(draw.choices(WORDS, k=draw.randint(2, 8)))
        corpus[f"d{len(corpus)}"] = f"{text} {draw.choice(WORDS)}"
    queries = {f"q{number}": " ".join(draw.choices(WORDS, k=12)) for number in range(20)}
    qrels = {query: {id: draw.randint(0, 2) for id in draw.sample(list(corpus), 8)} for query in queries}
    qrels = {query: {**judged, min(judged): 1} for query, judged in qrels.items()}
    return Collection("drawn", corpus, queries, qrels)


COLLECTION = draw_collection()


def task_class(
    collection=COLLECTION,
    kind="Retrieval",
    name=None,
    titles=None,
    own=False,
    split="test",
    language="eng-Latn",
    **options,
):
    """A task of mteb that downloads nothing."""
    from datasets import Dataset
    from mteb.abstasks.retrieval import AbsTaskRetrieval
    from mteb.abstasks.retrieval_dataset_loaders import RetrievalSplitData
    from mteb.abstasks.task_metadata import TaskMetadata

    def table(texts, **columns):
        return Dataset.from_dict({"id": list(texts), "text": list(texts.values()), **columns})

    class Drawn(AbsTaskRetrieval):
        ignore_identical_ids = own
        metadata = TaskMetadata(
            name=name or "Drawn" + kind,
            description="",
            reference=None,
            dataset={"path": "none", "revision": "1"},
            type=kind,
            category="t2t",
            modalities=["text"],
            eval_splits=[split],
            eval_langs=[language],
            main_score=options.get("main_score", "ndcg_at_10"),
            date=("2020-01-01", "2020-01-01"),
            domains=[],
            task_subtypes=[],
            license="mit",
            annotations_creators="derived",
            dialect=[],
            sample_creation="created",
            bibtex_citation="",
        )

        def load_data(self, *args, **kwargs):
            data = RetrievalSplitData(
                corpus=table(collection.corpus, **({} if titles is None else {"title": titles})),
                queries=table(collection.queries, **{k: v for k, v in options.items() if k == "instruction"}),
                relevant_docs={query: dict(judged) for query, judged in collection.qrels.items()},
                top_ranked=options.get("top_ranked"),
            )
            self.dataset = {"default": {split: data}}
            self.loads = getattr(self, "loads", 0) + 1
            self.data_loaded = True

    return Drawn


def draw_task(*arguments, **options):
    """An instance of such a task."""
    return task_class(*arguments, **options)()


def register(monkeypatch, name, *classes):
    """Let mteb know tasks, and a benchmark of them, by their names."""
    import importlib

    import mteb

    registry = importlib.import_module("mteb.get_tasks")
    known = importlib.import_module("mteb.benchmarks.get_benchmark")
    names = [one.metadata.name for one in classes]
    monkeypatch.setattr(registry, "TASK_LIST", (*registry.TASK_LIST, *classes))
    for one in classes:
        monkeypatch.setitem(registry._TASKS_REGISTRY, one.metadata.name, one)
    found = mteb.Benchmark(name=name, tasks=mteb.get_tasks(tasks=names))
    monkeypatch.setitem(known._build_registry(), name, found)
    return found
