"""What a training step is made of: transformer, head, loss, teachers with the pool, and making batches.

Claim: drawing extra queries, two teachers' scores of them and the divergence take no more than a tenth of a
step, on a CPU as on a GPU, and that whatever their number.

    python benchmarks/training_profile.py [--pairs FILE] [--extra 0 256 all] [--documents 32] [--tokens 96]
        [--steps 20] [--threads 1] [--device cpu|cuda] [--bf16] [--live]

``models/st-l0-mini`` (22 M parameters, 30,522 tokens), one positive and one other document for each query;
the teachers are stored vectors of 384 dims (of random directions for words: what they cost is not what they
say) and BM25. ``--pairs`` names JSON lines of ``query`` and ``positive``; by default docstrings of this
Python, about a thousand. Texts are tokenized once, before the first step; with ``--live`` batch by batch.
On a CPU the times are processor time, which other work on the machine disturbs
little; on a GPU it waits for the device wherever it looks at the clock.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, ClassVar, cast
from unittest import mock

import numpy as np
import torch
from common import real_texts
from sentence_transformers.base.data_collator import BaseDataCollator
from torch import Tensor, nn

from st_l0.data import read_records, write_records
from st_l0.encoder.modules import EncoderModules
from st_l0.losses import SparseRetrievalLoss
from st_l0.teachers import EnsembleTeacher, QueryPool, write_bm25, write_vectors
from st_l0.training import load_recipe, tokenizing, train
from st_l0.training.trainer import SparseRetrievalTrainer

MODEL = Path(__file__).parents[1] / "models" / "st-l0-mini"
DIMS, WARM_UP = 384, 4
PARTS = ("transformer", "head", "loss", "teachers and pool", "collator", "optimizer and batches")


class Words:
    """A dense teacher that costs nothing: a random direction for each word."""

    name = "words"

    class model:
        """As write_vectors wants it."""

        similarity_fn_name = "cosine"
        prompts: ClassVar[dict[str, str]] = {}

    def __init__(self) -> None:
        self._directions: dict[str, np.ndarray] = {}
        self._chance = np.random.default_rng(0)

    def embed(self, texts: Sequence[str], side: str) -> Tensor:
        """``(texts, 384)``."""
        return torch.from_numpy(np.stack([self._sum(text.lower().split()[:64] or [""]) for text in texts]))

    def _sum(self, words: list[str]) -> np.ndarray:
        for word in words:
            if word not in self._directions:
                self._directions[word] = self._chance.standard_normal(DIMS, np.float32)
        total: np.ndarray = np.sum([self._directions[word] for word in words], 0)
        return total


class Stopwatch:
    """Seconds in each part of a step; one part runs at a time."""

    def __init__(self, device: str) -> None:
        self._gpu = device == "cuda"
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._part = PARTS[-1]
        self._since = self._now()

    def _now(self) -> float:
        if self._gpu:
            torch.cuda.synchronize()
            return time.perf_counter()
        return time.process_time()

    def switch(self, part: str) -> str:
        """Another part begins; gives the one before it."""
        now, before = self._now(), self._part
        self.seconds[before] += now - self._since
        self._since, self._part = now, part
        return before

    @contextmanager
    def during(self, part: str) -> Iterator[None]:
        """One part inside another."""
        before = self.switch(part)
        yield
        self.switch(before)

    def wrapped(self, part: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """The function, as that part."""

        def inside(*args: Any, **kwargs: Any) -> Any:
            with self.during(part):
                return call(*args, **kwargs)

        return inside


def watch_model(encoder: Any, watch: Stopwatch) -> None:
    """Have the stopwatch see where a document goes, forward and backward."""
    modules = cast(EncoderModules, encoder._encoder_modules)
    transformer: nn.Module = cast(Any, modules.transformer.model).base_model
    route: Any = encoder[0].sub_modules["document"]

    def into(module: nn.Module, *given: Any) -> None:
        watch.switch("transformer")

    def out(module: nn.Module, given: Any, output: Any) -> None:
        watch.switch("head")
        if output.last_hidden_state.requires_grad:  # in the backward pass the same place the other way round
            output.last_hidden_state.register_hook(lambda gradient: watch.switch("transformer") and None)

    def end(module: nn.Module, given: Any, output: dict[str, Any]) -> None:
        watch.switch("loss")
        if output["sentence_embedding"].requires_grad:
            output["sentence_embedding"].register_hook(lambda gradient: watch.switch("head") and None)

    transformer.register_forward_pre_hook(into)
    transformer.register_forward_hook(out)
    list(route)[-1].register_forward_hook(end)


def profile(recipe: Any, steps: int, device: str, *, live: bool) -> dict[str, float]:
    """Seconds of each part of a step, the mean over ``steps`` of them; and of the start, before the first."""
    watch, begun = Stopwatch(device), time.perf_counter()
    found: dict[str, float] = {}
    count = 0
    step = SparseRetrievalTrainer.training_step

    def training_step(trainer: Any, *args: Any, **kwargs: Any) -> Any:
        nonlocal count
        if count == 0:
            found["start"] = time.perf_counter() - begun
            watch_model(trainer._encoder(), watch)
            trainer.accelerator.backward = watch.wrapped("loss", trainer.accelerator.backward)
        if count == WARM_UP:
            watch.switch(PARTS[-1])
            watch.seconds.clear()
        count += 1
        return step(trainer, *args, **kwargs)

    with ExitStack() as stack:
        for owner, name, part in (
            (QueryPool, "score_batch", "teachers and pool"),
            (EnsembleTeacher, "score_batch", "teachers and pool"),
            (SparseRetrievalLoss, "forward", "loss"),
            (BaseDataCollator, "__call__", "collator"),
        ):
            stack.enter_context(mock.patch.object(owner, name, _method(watch, part, getattr(owner, name))))
        stack.enter_context(mock.patch.object(SparseRetrievalTrainer, "training_step", training_step))
        # However few steps there are.
        stack.enter_context(mock.patch.multiple(tokenizing, _LEAST=1e9 if live else 0, _TIMES=0))
        stack.enter_context(mock.patch.object(SparseRetrievalTrainer, "_save_checkpoint", _nothing))
        train(recipe)
    assert count == WARM_UP + steps, count
    return found | {part: watch.seconds[part] / steps for part in PARTS}


def _method(watch: Stopwatch, part: str, method: Callable[..., Any]) -> Callable[..., Any]:
    def inside(self: Any, *args: Any, **kwargs: Any) -> Any:
        with watch.during(part):
            return method(self, *args, **kwargs)

    return inside


def _nothing(*args: Any) -> None:
    """No checkpoint."""


def prepare(pairs: list[tuple[str, str]], folder: Path) -> None:
    """Training data, vectors and the statistics of BM25."""
    queries, documents = ([pair[side] for pair in pairs] for side in (0, 1))
    others = random.Random(0).sample(documents, len(documents))
    rows = zip(queries, documents, others, strict=True)
    write_records(
        folder / "rows.jsonl", ({"query": q, "positive": p, "negatives": [n]} for q, p, n in rows if p != n)
    )
    write_bm25(folder / "bm25.json", documents)
    write_vectors(cast(Any, Words()), queries, documents, folder / "vectors", progress=False)


def main() -> None:
    """Prepare, then one training for each number of extra queries."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--pairs", type=Path)
    parser.add_argument("--extra", nargs="+", default=["0", "256", "all"])
    parser.add_argument("--documents", type=int, default=32, help="in a batch")
    parser.add_argument("--tokens", type=int, default=96)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--bf16", action="store_true", help="in bfloat16, as always on a GPU")
    parser.add_argument("--live", action="store_true", help="tokenize batch by batch")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    if given.pairs is None:
        pairs = real_texts()
    else:
        pairs = [(row["query"], row["positive"]) for _, row in read_records(given.pairs)]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(pairs, folder)
        for extra in given.extra:
            recipe = folder / "recipe.yaml"
            recipe.write_text(json.dumps(settings(folder, extra, given)), encoding="utf-8")
            found = profile(load_recipe(recipe), given.steps, given.device, live=given.live)
            start, whole = found.pop("start"), sum(found.values())
            parts = ", ".join(f"{part} {seconds / whole:.1%}" for part, seconds in found.items())
            print(f"extra queries {extra}: {whole:.3g} s a step: {parts}; start {start:.1f} s")
            claim = f"teachers and pool in a training step, {extra} extra queries ({given.device})"
            share = 100 * found["teachers and pool"] / whole
            result = {"claim": claim, "ours": share, "stock": None, "unit": "%", "threads": given.threads}
            print(
                f"RESULT {json.dumps({**result, 'step': whole, 'start': start, 'parts': found})}", flush=True
            )


def settings(folder: Path, extra: str, given: argparse.Namespace) -> dict[str, Any]:
    """The recipe, as training_recipes/mini/cpu.yaml has it."""
    on_gpu = given.device == "cuda"
    return {
        "model": {"base_model": str(MODEL), "max_seq_length": given.tokens, "dropout": 0},
        "data": {"train": [str(folder / "rows.jsonl")]},
        "teachers": {
            "models": [f"vectors:{folder / 'vectors'}", f"bm25:{folder / 'bm25.json'}"],
            "weights": [0.7, 0.3],
            "scale": 50,
            "extra_queries": extra if extra == "all" else int(extra),
        },
        "loss": {
            "ranking": "kl",
            "temperature": 5,
            "in_batch_negatives": True,
            "document_regularizer_weight": 0.005,
            "threshold": 150,
        },
        "training": {
            "max_steps": WARM_UP + given.steps,
            "per_device_train_batch_size": given.documents // 2,
            "learning_rate": 1e-5,
            "logging_steps": 10 * given.steps,
            "bf16": on_gpu or given.bf16,
            "use_cpu": not on_gpu,
            "report_to": "none",
        },
        "output": str(folder / f"run-{extra}"),
    }


if __name__ == "__main__":
    main()
