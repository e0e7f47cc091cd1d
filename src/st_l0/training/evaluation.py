"""Measuring a model while it trains."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sentence_transformers.base.evaluation import BaseEvaluator
from transformers import TrainerCallback, TrainerControl, TrainerState

from st_l0.data import Collection, read_collection
from st_l0.errors import InputError
from st_l0.evaluation import evaluate, summarise
from st_l0.training.evaluation_settings import Evaluation

FORWARDS = 3  # that a forward and a backward pass take the time of
_LOGGED = ("ndcg@10", "mrr@10", "recall@100", "flops", "query_active_dims", "document_active_dims")


class PeriodicEvaluation(BaseEvaluator):
    """Measures a model on the collections of a recipe.

    Args:
        settings: The section of the recipe.

    Raises:
        InputError: A collection cannot be read, or two have one name.
    """

    def __init__(self, settings: Evaluation) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.settings = settings
        self.since = 0  # what was measured up to this step does not count
        read = (read_collection(folder, settings.split) for folder in settings.collections)
        self.collections = [sample(one, settings.queries, settings.documents) for one in read]
        if len({one.name for one in self.collections}) < len(self.collections):
            raise InputError("evaluation.collections: two have the same name; rename the folder of one")

    @property
    def documents(self) -> int:
        """Documents that are encoded each time."""
        return sum(len(one.corpus) for one in self.collections)

    @property
    def queries(self) -> int:
        """Queries that are searched for each time."""
        return sum(len(one.queries) for one in self.collections)

    def measure(self, model: Any) -> dict[str, float]:
        """Measure a model, as ``st-l0 evaluate`` does.

        Args:
            model: A `st_l0.SparseEncoder`; its training mode is left as it was.

        Returns:
            Means over the collections of qualities, 0 to 1, and costs, by name; with several collections
            those of each for ``metric``, as ``<collection>_<metric>``; and the ``runtime`` in seconds.
        """
        start, training = time.perf_counter(), model.training
        reports = [evaluate(model, one, bm25=False) for one in self.collections]
        model.train(training)
        average, metric = summarise(reports)["average"]["model"], self.settings.metric
        found = {name: float(average[name]) for name in _LOGGED}
        if len(reports) > 1:
            each = {f"{report['collection']}_{metric}": report["model"][metric] for report in reports}
            found |= {name: float(value) for name, value in each.items()}
        return found | {"runtime": round(time.perf_counter() - start, 3)}

    def without_a_better(self, log: Sequence[Mapping[str, Any]]) -> int:
        """How many measurements of a trainer's log came after the best one."""
        key = f"eval_{self.settings.metric}"
        values = [line[key] for line in log if key in line and line["step"] > self.since]
        best = max(values) if self.settings.more_is_better else min(values)
        return len(values) - 1 - values.index(best)

    def in_words(self, steps: int | None, documents_per_step: int) -> str:
        """What it costs in a training of so many steps, of so many documents each."""
        every = self.settings.steps
        times = "" if steps is None else f", {-(-steps // every):,} times"
        share = self.documents / (FORWARDS * documents_per_step * every)
        return (
            f"every {every:,} steps{times}: {self.documents:,} documents and {self.queries:,} queries of "
            f"{len(self.collections)} collection(s), about {share:.1%} of the training's time"
        )


def sample(collection: Collection, queries: int | None, documents: int | None) -> Collection:
    """A part of a collection, the same one every time.

    Args:
        collection: The whole.
        queries: Queries to keep at most; ``None`` keeps all.
        documents: Documents to keep at most; ``None`` keeps all. All that are relevant to the queries stay,
            be they more; then come documents judged as not relevant, then others.
    """
    draw = random.Random(0)
    names = list(collection.queries)
    if queries is not None and queries < len(names):
        kept = set(draw.sample(names, queries))
        names = [name for name in names if name in kept]
    qrels = {name: collection.qrels[name] for name in names}
    corpus = collection.corpus
    if documents is not None and documents < len(corpus):
        judged = [(id, score) for row in qrels.values() for id, score in row.items() if id in corpus]
        relevant = dict.fromkeys(id for id, score in judged if score > 0)
        others = dict.fromkeys(id for id, _ in judged if id not in relevant)
        chosen = [*relevant, *list(others)[: max(0, documents - len(relevant))]]
        rest = [id for id in corpus if id not in relevant and id not in others]
        chosen += draw.sample(rest, min(len(rest), max(0, documents - len(chosen))))
        places = set(chosen)
        corpus = {id: text for id, text in corpus.items() if id in places}
    texts = {name: collection.queries[name] for name in names}
    return Collection(collection.name, corpus, texts, qrels)


class EvaluationStart(TrainerCallback):
    """What was measured and best before a training goes on: found again, or forgotten.

    Args:
        evaluation: What is measured.
        anew: Whether it is forgotten, as what is measured is another.
    """

    def __init__(self, evaluation: PeriodicEvaluation, *, anew: bool) -> None:
        self._evaluation, self._anew = evaluation, anew

    def on_train_begin(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Set the state that was read from a checkpoint right."""
        if self._anew:
            state.best_metric = state.best_global_step = state.best_model_checkpoint = None
            self._evaluation.since = state.global_step
        elif state.best_global_step:  # also where the folder was moved
            best = Path(args.output_dir) / f"checkpoint-{state.best_global_step}"
            state.best_model_checkpoint = str(best) if best.is_dir() else None
