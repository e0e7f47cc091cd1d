"""Batches of several sources of data with weights, and what is said of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from sentence_transformers.base.sampler import DefaultBatchSampler

from st_l0.data.mixture import Mixture

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from torch.utils.data import BatchSampler


class MixedBatchSampler(DefaultBatchSampler):
    """Batches of the rows that a mixture gives to each epoch, drawn by a sampler of sentence-transformers.

    Args:
        mixture: Says which rows.
        dataset: The rows of all sources, one source after the other.
        make: Makes the sampler of a data set, as of ``SparseEncoderTrainer.get_batch_sampler``.
        options: What ``make`` takes beside the data set, ``generator`` and ``seed`` among it.
    """

    def __init__(
        self, mixture: Mixture, dataset: Any, make: Callable[..., BatchSampler], options: dict[str, Any]
    ) -> None:
        super().__init__(dataset, **options)
        self._mixture, self._dataset, self._make, self._options = mixture, dataset, make, options
        self._length = len(self._make(dataset, **options))

    def of_epoch(self) -> tuple[npt.NDArray[np.int64], BatchSampler]:
        """The rows of the epoch, repeated ones too, and a sampler of positions among them."""
        rows = self._mixture.rows(self.seed, self.epoch)
        sampler: Any = self._make(self._dataset.select(rows), **self._options)
        sampler.set_epoch(self.epoch)
        if self.generator is not None:
            self.generator.manual_seed(self.seed + self.epoch)
        return rows, sampler

    def __iter__(self) -> Iterator[list[int]]:
        """Batches of rows of the data set."""
        rows, sampler = self.of_epoch()
        for batch in sampler:
            yield rows[batch].tolist()

    def __len__(self) -> int:
        """Batches of an epoch, see the sampler."""
        return self._length


def in_words(mixture: Mixture, names: Sequence[str], seen: int | None) -> list[str]:
    """A line for each source: how many examples it has, its share, and how often each of them is seen.

    Args:
        mixture: The sources.
        names: Their names.
        seen: Examples that the training sees in all; ``None`` for those of one epoch.

    Example:
        >>> in_words(Mixture((6, 2), (1.0, 1.0)), ["many", "few"], 80)[1]
        'few: 2 examples, 50 % of the training, each seen about 20 times'
    """
    where = "an epoch" if seen is None else "the training"
    total = sum(mixture.counts)
    lines = []
    for name, count, given in zip(names, mixture.counts, mixture.given(), strict=True):
        share = given / total
        times = share * (total if seen is None else seen) / count
        seen_so = f"each seen about {_number(times)} times"
        lines.append(f"{name}: {count:,} examples, {100 * share:.3g} % of {where}, {seen_so}")
    return lines


def _number(value: float) -> str:
    return f"{value:.2g}" if value < 100 else f"{value:,.0f}"
