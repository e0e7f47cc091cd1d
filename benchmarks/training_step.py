"""A whole training step: forward, InfoNCE and FLOPS, backward, AdamW; ours and stock sentence-transformers.

Claim: with the same loss and the same gradients a step is 2.5 times as fast as stock and takes less memory:
the peak during a step above what the process holds between steps. Most of what is left is kept by the
transformer below the head for its own backward pass, on both sides alike; it is measured too, and so is our
step with gradient checkpointing, which computes it twice instead. Nothing is dropped out, as both sides
would draw other numbers.

    python benchmarks/training_step.py [--threads 2]

MiniLM (22 M parameters, 30,522 tokens, an encoder that has 200 to 500 active dims), 16 queries, each with 2
documents of 256 tokens. The last lines say what the step is made of, and how fast this machine multiplies.
"""

from __future__ import annotations

import ctypes
import gc
import multiprocessing
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import torch
from common import medians, parse_threads, real_encoder, real_texts, report, stock_twin
from sentence_transformers.sparse_encoder import losses
from torch import Tensor, nn

from st_l0.losses import FlopsLoss, InfoNCELoss, SparseRetrievalLoss

QUERIES, DOCUMENTS, TOKENS = 16, 2, 256
FLOPS_WEIGHT = 1e-3
REPEATS = 3
NAMES = ("ours", "checkpointing", "stock")


def batch() -> list[list[str]]:
    """A column of queries and columns of documents of at least as many tokens as are looked at."""
    texts = real_texts()
    joined = [" ".join(text for _, text in texts[20 * i : 20 * i + 20]) for i in range(QUERIES * DOCUMENTS)]
    queries = [query for query, _ in texts[: 20 * QUERIES : 20]]
    return [queries, joined[:QUERIES], joined[QUERIES:]]


class Side:
    """One model with its loss, its optimizer and a batch.

    Args:
        name: ``"ours"``, ``"checkpointing"`` (ours too) or ``"stock"``.
    """

    def __init__(self, name: str) -> None:
        encoder: Any = real_encoder(TOKENS)
        if name == "checkpointing":
            encoder[0].sub_modules["document"][0].model.gradient_checkpointing_enable()
        if name == "stock":
            encoder = stock_twin(encoder)
            encoder[0].sub_modules["document"][0].max_seq_length = TOKENS
            ranking = losses.SparseMultipleNegativesRankingLoss(encoder)
            self.loss: nn.Module = losses.SpladeLoss(encoder, ranking, FLOPS_WEIGHT)
        else:
            self.loss = SparseRetrievalLoss(encoder, InfoNCELoss(), FlopsLoss(), FLOPS_WEIGHT)
            self.loss.log_statistics = False
        encoder.train()
        for module in encoder.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
        self.encoder = encoder
        self.parameters = [one for one in encoder.parameters() if one.requires_grad]
        self.optimizer = torch.optim.AdamW(self.parameters, lr=1e-9)
        self.columns = [
            encoder.preprocess(texts, task="document" if column else "query")
            for column, texts in enumerate(batch())
        ]
        shapes = {tuple(column["attention_mask"].shape) for column in self.columns[1:]}
        assert shapes == {(QUERIES, TOKENS)}, shapes
        assert all(bool(column["attention_mask"].all()) for column in self.columns[1:])

    def loss_and_gradients(self) -> Tensor:
        """Forward and backward pass."""
        parts = self.loss([dict(column) for column in self.columns], None)
        total = torch.stack([part.sum() for part in parts.values()]).sum()
        total.backward()
        return total.detach()

    def transformer_alone(self) -> None:
        """Forward and backward pass of the transformer below the head, which both sides share."""
        model = self.encoder[0].sub_modules["document"][0].model
        inputs = {
            key: torch.cat([column[key] for column in self.columns[1:]])
            for key in ("input_ids", "attention_mask", "token_type_ids")
        }
        model.base_model(**inputs).last_hidden_state.sum().backward()
        self.optimizer.zero_grad()

    def step(self) -> None:
        """All of it."""
        self.loss_and_gradients()
        self.optimizer.step()
        self.optimizer.zero_grad()


def check(name: str) -> None:
    """Ours and stock have one loss and the same gradients."""
    ours, stock = Side(name), Side("stock")
    one, other = ours.loss_and_gradients(), stock.loss_and_gradients()
    torch.testing.assert_close(one, other, rtol=1e-5, atol=0)
    names = [name for name, parameter in ours.encoder.named_parameters() if parameter.requires_grad]
    pairs = [
        (cast(Tensor, mine.grad), cast(Tensor, theirs.grad))
        for mine, theirs in zip(ours.parameters, stock.parameters, strict=True)
    ]
    # Some gradients are 0 but for rounding, such as those of the keys' biases.
    least = 1e-4 * torch.stack([theirs.norm() for _, theirs in pairs]).norm()
    away = [((mine - theirs).norm() / theirs.norm().clamp(min=least)).item() for mine, theirs in pairs]
    worst = max(away)
    assert worst < 1e-4, f"{names[away.index(worst)]}: the gradients are {worst:.1e} apart"
    print(f"{name}: loss {one.item():.4f} and {other.item():.4f}, gradients at most {worst:.1e} apart")


def memory(name: str, part: str, threads: int, found: Any) -> None:
    """Put the bytes that a part of the step takes above what is held between steps into ``found``."""
    torch.set_num_threads(threads)
    side = Side(name)
    for parameter in side.parameters:  # the optimizer's state is there from now on
        parameter.grad = torch.zeros_like(parameter)
    side.optimizer.step()
    side.optimizer.zero_grad()
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # forget the peak so far
    idle = status("VmRSS")
    getattr(side, part)()
    found.put(status("VmHWM") - idle)


def status(field: str) -> int:
    """Bytes that the kernel counts for this process."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def in_process(target: Callable[..., None], *arguments: object) -> float:
    """What the function puts in a queue, run in a process of its own."""
    context = multiprocessing.get_context("spawn")
    found = context.Queue()
    process = context.Process(target=target, args=(*arguments, found))
    process.start()
    result: float = found.get(timeout=300)
    process.join()
    return result


def explain(side: Side, seconds: dict[str, float], threads: int) -> None:
    """Say how far the step is from what the processor can multiply."""
    size, tokens = 384, QUERIES * DOCUMENTS * TOKENS
    one, other = torch.randn(2048, size), torch.randn(1536, size)
    peak = 2 * 2048 * 1536 * size / medians({"product": lambda: one @ other.T}, 15)["product"] / 1e9
    model = side.encoder[0].sub_modules["document"][0].model
    weights = sum(p.numel() for p in model.base_model.encoder.parameters() if p.dim() == 2) + size**2
    attention = model.config.num_hidden_layers * 2 * TOKENS * size
    products = 3 * 2 * tokens * (weights + attention) / 1e9
    print(
        f"{seconds['transformer'] / seconds['ours']:.0%} of our step is the transformer below the head; its "
        f"{products:.0f} GFLOP of products take {products / peak:.2f} s at the {peak:.0f} GFLOPS that a "
        f"float32 product reaches here with {threads} threads, the transformer takes "
        f"{seconds['transformer']:.2f} s, our whole step {seconds['ours']:.2f} s"
    )


def main() -> None:
    """Check, then time, then weigh."""
    threads = parse_threads(__doc__)
    for name in NAMES[:-1]:
        check(name)
        gc.collect()
    sides = {name: Side(name) for name in NAMES}
    steps = {name: side.step for name, side in sides.items()}
    seconds = medians({**steps, "transformer": sides["ours"].transformer_alone}, REPEATS)
    explain(sides["ours"], seconds, threads)
    steps.clear()
    sides.clear()
    gc.collect()
    peaks = {name: in_process(memory, name, "step", threads) / 2**20 for name in NAMES}
    shared = in_process(memory, "ours", "transformer_alone", threads) / 2**20
    print(
        f"the transformer alone takes {shared:.0f} MiB of it: head, loss and optimizer add "
        f"{peaks['ours'] - shared:.0f} MiB here and {peaks['stock'] - shared:.0f} MiB in stock"
    )
    for name in NAMES[:-1]:
        said = "training step" if name == "ours" else "training step with gradient checkpointing"
        report(
            f"memory of a {said}", ours=peaks[name], stock=peaks["stock"], unit="MiB", threads=threads, goal=6
        )
        report(said, ours=seconds[name], stock=seconds["stock"], unit="s", threads=threads, goal=2.5)


if __name__ == "__main__":
    main()
