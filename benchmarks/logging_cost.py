"""What the training log costs: a step of the loss that is logged, one that is not, and one without the log.

Claim: a step that is not logged costs nothing extra, and one that is logged a few percent of a training step.

    python benchmarks/logging_cost.py

Prints medians in milliseconds, of the loss alone: forward and backward on given vectors of 30,522 tokens.
"""

from __future__ import annotations

import statistics
import time

import torch
from torch import Tensor, nn

from st_l0.losses import InfoNCELoss, L0MaskFlopsLoss, SparseRetrievalLoss

VOCABULARY, QUERIES, DOCUMENTS, ACTIVE = 30_522, 32, 2, 175
REPEATS = 15


class Given(nn.Module):
    """An encoder that gives the vectors that stand in the features."""

    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        """Give them."""
        return {"sentence_embedding": features["vectors"]}


def column(seed: int, active: int) -> dict[str, Tensor]:
    """A column of the batch, with so many active dims a text."""
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.zeros(QUERIES, VOCABULARY)
    places = torch.rand(QUERIES, VOCABULARY, generator=generator).topk(active).indices
    vectors.scatter_(1, places, torch.rand(QUERIES, active, generator=generator) + 0.1)
    ids = torch.arange(QUERIES)[:, None] + seed * QUERIES
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "vectors": vectors.requires_grad_()}


def step(loss: SparseRetrievalLoss, features: list[dict[str, Tensor]]) -> tuple[float, float]:
    """Milliseconds and value of a forward and a backward pass."""
    start = time.perf_counter()
    total = torch.stack(list(loss(features).values())).sum()
    total.backward()
    return (time.perf_counter() - start) * 1000, total.item()


def main() -> None:
    """Time all three in turn, so that what disturbs one disturbs the others."""
    features = [column(0, 10), *(column(1 + i, ACTIVE) for i in range(DOCUMENTS))]
    loss = SparseRetrievalLoss(Given(), InfoNCELoss(), L0MaskFlopsLoss(200), 0.01)
    bare = SparseRetrievalLoss(Given(), InfoNCELoss(), L0MaskFlopsLoss(200), 0.01)
    bare._watch = lambda *args: None  # type: ignore[method-assign]
    kinds = {"no log at all": (bare, True), "not logged": (loss, False), "logged": (loss, True)}
    times: dict[str, list[float]] = {name: [] for name in kinds}
    values = set()
    for _ in range(REPEATS):
        for name, (one, watched) in kinds.items():
            one.log_statistics = watched
            milliseconds, value = step(one, features)
            times[name].append(milliseconds)
            values.add(value)
    assert len(values) == 1, "the log changed the loss"
    medians = {name: statistics.median(found) for name, found in times.items()}
    for name, median in medians.items():
        print(f"{name:14} {median:7.2f} ms  x {median / medians['no log at all']:.3f}")


if __name__ == "__main__":
    main()
