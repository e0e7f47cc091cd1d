"""Queries that a batch's documents are ranked for beside its own."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from st_l0.utils.sparse_rows import SparseRows


class ExtraQueries(NamedTuple):
    """Queries without documents of their own in a batch; only a distillation over all documents wants them.

    Attributes:
        vectors: ``(extra queries, vocabulary)``; where the query weights are trained, the values have a
            gradient.
        teacher_scores: ``(extra queries, documents of all devices)``, in the order of `BatchScores.all`.

    Example:
        Two documents that both have the query's token; the teacher prefers the second one:

        >>> import torch
        >>> from st_l0.losses import KLDivergenceLoss
        >>> query = SparseRows(torch.tensor([0], dtype=torch.int32), torch.ones(1), torch.tensor([0, 1]), 2)
        >>> extra = ExtraQueries(query, torch.tensor([[0.0, 2.0]]))
        >>> rows = [torch.tensor([[0.0, 1.0]]), torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 0.0]])]
        >>> loss = KLDivergenceLoss(in_batch_negatives=True)
        >>> loss.compute_loss_from_embeddings(rows, torch.zeros(1, 2), extra_queries=extra)
        tensor(0.1639)
    """

    vectors: SparseRows
    teacher_scores: Tensor


class TeacherScores(NamedTuple):
    """Labels of a batch with extra queries; `SparseRetrievalLoss` takes them.

    Attributes:
        own: Teacher scores of the batch's own queries, ``(queries, documents of all devices)``.
        extra_queries: The others, and theirs.

    Example:
        >>> import torch
        >>> rows = SparseRows(torch.tensor([7], dtype=torch.int32), torch.ones(1), torch.tensor([0, 1]), 9)
        >>> labels = TeacherScores(torch.zeros(4, 8), ExtraQueries(rows, torch.zeros(1, 8)))
        >>> len(labels.own), len(labels.extra_queries.vectors)
        (4, 1)
    """

    own: Tensor
    extra_queries: ExtraQueries
