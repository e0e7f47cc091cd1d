"""Scores of a batch: queries against their own documents, or against those of all devices."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor

from st_l0.errors import InputError
from st_l0.losses.given import as_rows
from st_l0.utils.distributed import all_gather, all_reduce_sum, rank, world_size
from st_l0.utils.sparse_rows import SparseRows


class BatchScores:
    """Dot products of this device's queries, in float32 at least: half precision rounds by up to 1 %.

    Args:
        embeddings: Queries, then the documents of each position (positives, first negatives ...), each
            ``(queries, vocabulary)``.
        keys: Identity of each text, int64 ``(queries,)`` per column in the order of ``embeddings``; equal
            keys mean equal texts. Without them no two texts count as equal.

    Raises:
        InputError: There are no documents, a column is no tensor ``(rows, vocabulary)``, or they have
            different lengths.
    """

    def __init__(self, embeddings: Sequence[Tensor], keys: Sequence[Tensor] | None = None) -> None:
        embeddings = [as_rows(column, f"column {place}") for place, column in enumerate(embeddings)]
        queries, documents = embeddings[0], embeddings[1:]
        if not documents:
            raise InputError("a ranking loss needs queries and documents, but the batch has one column only")
        lengths = [len(column) for column in embeddings]
        if len(set(lengths)) > 1:
            raise InputError(
                f"every query needs the same number of documents, but the columns have {lengths} rows"
            )
        widths = [column.shape[1] for column in embeddings]
        if len(set(widths)) > 1:
            raise InputError(f"the vectors of one batch have {widths} dimensions; encode all with one model")
        self._queries, self._documents, self._keys = queries, documents, keys

    def own(self) -> Tensor:
        """Scores of each query's own documents, ``(queries, documents_per_query)``."""
        with self._full_precision():
            queries = _full(self._queries)
            return torch.stack([(queries * _full(column)).sum(1) for column in self._documents], dim=1)

    def all(self) -> Tensor:
        """Scores of all documents of all devices, ``(queries, documents of all devices)``.

        The documents of the first position come first, those of the first device first among them.
        """
        with self._full_precision():
            queries = _full(self._queries)
            return torch.cat([queries @ column.T for column in self._everywhere], dim=1)

    def all_of(self, queries: SparseRows) -> Tensor:
        """The same for other queries of this device, ``(other queries, vocabulary)``."""
        with self._full_precision():
            return torch.cat([queries @ column.T for column in self._everywhere], dim=1)

    @cached_property
    def _everywhere(self) -> list[Tensor]:
        """The documents of each position on all devices."""
        return [_full(all_gather(column)) for column in self._documents]

    def own_positions(self) -> Tensor:
        """Where `all` has each query's own documents, int64 ``(queries, documents_per_query)``."""
        device = self._queries.device
        first = torch.arange(len(self._queries), device=device)
        total = len(self._queries)
        if world_size() > 1:
            owners = all_gather(torch.full((len(first),), rank(), device=device))
            first = first + (owners < rank()).sum()
            total = len(owners)
        positions = torch.arange(len(self._documents), device=device) * total
        return first[:, None] + positions

    def false_negative_mask(self, own: int) -> Tensor | None:
        """Documents that must not count as negatives of a query, ``(queries, documents of all devices)``.

        These are the texts that equal one of the query's own first ``own`` documents, and those that are the
        positive of a query with the same text; at the places of the own documents themselves it is false.
        ``None`` without keys.
        """
        if self._keys is None:
            return None
        all_queries = all_gather(self._keys[0])
        candidates = torch.cat([all_gather(column) for column in self._keys[1:]])
        _, texts = torch.unique(candidates, return_inverse=True)
        places = self.own_positions()
        right = torch.zeros(len(places), len(candidates), dtype=torch.bool, device=places.device)
        query, twin = (self._keys[0][:, None] == all_queries[None]).nonzero(as_tuple=True)
        right[query, texts[twin]] = True  # by text first: the positives come first among the candidates
        right.scatter_(1, texts[places[:, :own]], True)
        right = right[:, texts]
        return right.scatter_(1, places[:, :own], False)

    def _full_precision(self) -> torch.autocast:
        return torch.autocast(self._queries.device.type, enabled=False)


def global_mean(values: Tensor) -> Tensor:
    """Mean over the rows of all devices, in a form whose average over the devices is that mean.

    A plain mean of each device's rows would weigh the rows of a device with few of them more.

    Args:
        values: One number a row of this device, ``(rows,)``.

    Returns:
        A scalar; on one process the plain mean.
    """
    if world_size() == 1:
        return values.mean()
    rows = all_reduce_sum(torch.tensor(float(len(values)), dtype=values.dtype, device=values.device))
    return values.sum() * world_size() / rows


def _full(tensor: Tensor) -> Tensor:
    return tensor if tensor.dtype == torch.float64 else tensor.float()
