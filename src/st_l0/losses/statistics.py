"""What the training log says about the batches since its last line."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from st_l0.utils.distributed import all_gather, all_reduce_sum


class BatchStatistics:
    """Counts over the texts of some batches, on all devices alike.

    Nothing is float64 on the device: Apple's GPUs have none.
    """

    def __init__(self) -> None:
        self._active: dict[str, list[Tensor]] = {"query": [], "document": []}
        self._flops: list[Tensor] = []
        self._everywhere: Tensor | None = None
        self._pulls: list[Tensor] = []

    @torch.no_grad()
    def observe(self, queries: Tensor, documents: Tensor) -> None:
        """Count the vectors of a batch, ``(queries, vocabulary)`` and ``(documents, vocabulary)``."""
        shares = []
        for side, vectors in (("query", queries), ("document", documents)):
            active = vectors != 0
            self._active[side].append(active.sum(1))
            rows = torch.tensor(len(active), device=active.device)
            shares.append(all_reduce_sum(active.sum(0)).float() / all_reduce_sum(rows))
        self._flops.append((shares[0] * shares[1]).sum())
        everywhere = shares[1] == 1
        self._everywhere = everywhere if self._everywhere is None else everywhere & self._everywhere

    def observe_pull(self, ranking: Tensor, penalty: Tensor, documents: Sequence[Tensor]) -> None:
        """Compare what the two terms ask of the document vectors: the norms of their gradients there."""
        columns = [column for column in documents if column.requires_grad]
        if not columns or not torch.is_grad_enabled():
            return
        squares = []
        for term in (ranking, penalty):
            gradients: tuple[Tensor | None, ...] = ()
            if term.requires_grad:
                gradients = torch.autograd.grad(term, columns, retain_graph=True, allow_unused=True)
            norms = [found.float().square().sum() for found in gradients if found is not None]
            squares.append(torch.stack(norms).sum() if norms else torch.zeros((), device=columns[0].device))
        self._pulls.append(all_reduce_sum(torch.stack(squares)).sqrt())

    def pop(self) -> dict[str, float]:
        """The statistics since the last call, over all devices; empty where nothing was observed.

        - ``query_active_dims``, ``document_active_dims``: mean of single texts; ``document_active_dims_p95``:
          95th percentile of the documents'.
        - ``empty_documents``: share of documents without an active dim.
        - ``tokens_in_every_document``: number of vocabulary tokens that all documents have.
        - ``flops``: mean number of tokens that a query and a document share, over all pairs of a batch.
        - ``penalty_to_ranking``: gradient of the document penalty at the document vectors, as a multiple of
          the ranking loss's; only where there are gradients, and where the ranking loss has one.
        """
        if not self._flops or self._everywhere is None:
            return {}
        active = {side: all_gather(torch.cat(counts)).float() for side, counts in self._active.items()}
        documents = active["document"]
        found = {
            "query_active_dims": active["query"].mean(),
            "document_active_dims": documents.mean(),
            "document_active_dims_p95": documents.quantile(0.95),
            "empty_documents": (documents == 0).float().mean(),
            "tokens_in_every_document": self._everywhere.sum(),
            "flops": torch.stack(self._flops).mean(),
        }
        numbers = {name: round(value.item(), 4) for name, value in found.items()}
        if self._pulls:
            ranking, penalty = torch.stack(self._pulls).mean(0).tolist()
            if ranking > 0:
                numbers["penalty_to_ranking"] = round(penalty / ranking, 4)
        self.__init__()  # type: ignore[misc]
        return numbers
