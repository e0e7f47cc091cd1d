"""Rows of a sparse matrix on any device: gathered by number, and multiplied with gradients to both sides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class SparseRows:
    """A matrix ``(rows, width)`` in CSR. No column stands twice in a row.

    Attributes:
        columns: Column of each number, int32 ``(numbers,)``.
        values: The numbers, ``(numbers,)``.
        offsets: Where each row begins, and where the last one ends, int64 ``(rows + 1,)``.
        width: Number of columns.

    Example:
        >>> rows = SparseRows.from_scipy([sp.csr_matrix([[0.0, 2.0], [3.0, 1.0]])], "cpu")
        >>> rows[torch.tensor([1, 0, 1])] @ torch.tensor([[1.0], [10.0]])
        tensor([[13.],
                [20.],
                [13.]])
    """

    columns: Tensor
    values: Tensor
    offsets: Tensor
    width: int

    @classmethod
    def from_scipy(cls, parts: Sequence[sp.csr_matrix], device: str | torch.device) -> SparseRows:
        """The rows of the matrices one after the other; the widest gives the width."""
        counts = [np.diff(part.indptr) for part in parts]
        offsets = np.concatenate([[0], *counts]).cumsum(dtype=np.int64)
        return cls(
            torch.cat([torch.from_numpy(part.indices.astype(np.int32)).to(device) for part in parts]),
            torch.cat([torch.from_numpy(part.data.astype(np.float32)).to(device) for part in parts]),
            torch.from_numpy(offsets).to(device),
            max(part.shape[1] for part in parts),
        )

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, rows: Tensor) -> SparseRows:
        """The rows of these numbers, int64 ``(n,)``, in their order; one may be asked for twice."""
        starts, counts = self.offsets[rows], self.counts()[rows]
        offsets = functional.pad(counts.cumsum(0), (1, 0))
        shift = torch.repeat_interleave(starts - offsets[:-1], counts)
        places = torch.arange(len(shift), device=shift.device) + shift
        return replace(self, columns=self.columns[places], values=self.values[places], offsets=offsets)

    def __matmul__(self, dense: Tensor) -> Tensor:
        """``(rows, n)``, the product with ``(width, n)``; gradients go to ``values`` and ``dense``."""
        return functional.embedding_bag(
            self.columns,
            dense.contiguous(),
            self.offsets.to(self.columns.dtype),
            mode="sum",
            per_sample_weights=self.values.to(dense),
            include_last_offset=True,
        )

    def times(self, other: SparseRows) -> Tensor:
        """Dot products with the rows of another matrix, ``(rows, other rows)``; no gradients.

        Columns of this one beyond the width of the other count as 0. Only the columns that the other one has
        are made dense, so that the width costs nothing.
        """
        found, places = other.columns.unique(return_inverse=True)
        dense = other.values.new_zeros(len(found) + 1, len(other))
        dense[places, other.row_numbers()] = other.values
        place_of = torch.full((other.width + 1,), len(found), dtype=torch.int32, device=found.device)
        place_of[found.long()] = torch.arange(len(found), dtype=torch.int32, device=found.device)
        columns = place_of[self.columns.clamp(max=other.width).long()]
        return replace(self, columns=columns) @ dense

    def counts(self) -> Tensor:
        """Numbers in each row, int64 ``(rows,)``."""
        return self.offsets.diff()

    def row_numbers(self) -> Tensor:
        """The row of each number, int64 ``(numbers,)``."""
        return torch.repeat_interleave(torch.arange(len(self), device=self.offsets.device), self.counts())

    def lengths(self) -> Tensor:
        """Euclidean length of each row, ``(rows,)``."""
        squares = self.values.new_zeros(len(self)).index_add(0, self.row_numbers(), self.values.square())
        return squares.sqrt()

    @property
    def nbytes(self) -> int:
        """Memory that it takes."""
        return int(self.columns.nbytes + self.values.nbytes + self.offsets.nbytes)
