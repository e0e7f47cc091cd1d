"""Losses that teach the scores of teachers.

Teacher scores are the trainer's labels, of one of two shapes:

- ``(queries, documents_per_query)``: the scores of each query's own documents;
- ``(queries, documents of all devices)``: the scores of all documents of the batch in the order of
  `BatchScores.all`, which live teachers give (see `st_l0.teachers.EnsembleTeacher.score_batch`). It needs
  ``in_batch_negatives``, and is the only one for a batch with extra queries (`st_l0.teachers.QueryPool`),
  which the divergence takes like the batch's own and the margins leave out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from st_l0.errors import InputError
from st_l0.losses.extra_queries import ExtraQueries
from st_l0.losses.scores import BatchScores, global_mean


class KLDivergenceLoss(nn.Module):
    """Divergence of the student's distribution over documents from the teacher's.

    With ``p = softmax(teacher / T)`` and ``q = softmax(student / T)`` over the candidates of a query::

        loss = mean over queries of sum_d p_d * (log p_d - log q_d)

    Args:
        temperature: T > 0.
        in_batch_negatives: The documents of the other queries are candidates too. Where the teacher scored
            the own documents only, it gives the others no probability, except that a document that is known
            to be right, or equals an own document, is no candidate (see `BatchScores.false_negative_mask`).

    Raises:
        InputError: ``temperature`` is not positive.

    Example:
        >>> import torch
        >>> query, positive, negative = torch.tensor([[[1.0, 0.0]], [[2.0, 0.0]], [[1.0, 0.0]]])
        >>> teacher_scores = torch.tensor([[1.0, 1.0]])
        >>> KLDivergenceLoss().compute_loss_from_embeddings([query, positive, negative], teacher_scores)
        tensor(0.1201)

    Source: Hinton et al., 2015, https://arxiv.org/abs/1503.02531; as in the reference implementation of
    https://arxiv.org/abs/2504.14839 both sides are divided by T, and the loss is not multiplied by its
    square.
    """

    def __init__(self, temperature: float = 1.0, *, in_batch_negatives: bool = False) -> None:
        super().__init__()
        if not temperature > 0:
            raise InputError(f"temperature must be positive, not {temperature}")
        self.temperature = temperature
        self.in_batch_negatives = in_batch_negatives

    def compute_loss_from_embeddings(
        self,
        embeddings: Sequence[Tensor],
        labels: Tensor | None = None,
        *,
        keys: Sequence[Tensor] | None = None,
        extra_queries: ExtraQueries | None = None,
    ) -> Tensor:
        """Loss of this batch.

        Args:
            embeddings: Queries, then the documents of each position, each ``(queries, vocabulary)``.
            labels: Teacher scores, see above.
            keys: Identity of each text, see `InfoNCELoss`.
            extra_queries: Further queries, each of which counts like one of the batch.

        Returns:
            A scalar: on one device the mean over the queries; on several their average is the mean over all.

        Raises:
            InputError: No teacher scores, some of another shape, or some that are not finite; extra queries
                where the teacher did not score all documents of the batch.
        """
        batch = BatchScores(embeddings, keys)
        student = batch.all() if self.in_batch_negatives else batch.own()
        teacher, complete = _teacher_scores(labels, student, len(embeddings) - 1, self.in_batch_negatives)
        if self.in_batch_negatives and not complete:
            places = batch.own_positions()
            teacher = torch.full_like(student, float("-inf")).scatter(1, places, teacher)
            right = batch.false_negative_mask(own=places.shape[1])
            if right is not None:
                student = student.masked_fill(right, float("-inf"))
        divergence = self._divergence(teacher, student)
        if extra_queries is not None:
            if not complete:
                raise InputError(
                    "extra queries need in_batch_negatives, and teacher scores of all documents of the batch"
                )
            student = batch.all_of(extra_queries.vectors)
            whose = f"{len(student)} extra queries"
            teacher = _as_labels(extra_queries.teacher_scores, [tuple(student.shape)], whose, student)
            divergence = torch.cat([divergence, self._divergence(teacher, student)])
        return global_mean(divergence)

    def _divergence(self, teacher: Tensor, student: Tensor) -> Tensor:
        """Of each row, ``(queries,)``."""
        target = (teacher / self.temperature).log_softmax(1)
        given = target.exp()
        # Where the teacher gives nothing, neither logarithm counts, be it minus infinity.
        ratio = target.masked_fill(given == 0, 0) - (student / self.temperature).log_softmax(1).masked_fill(
            given == 0, 0
        )
        return (given * ratio).sum(1)

    def get_config_dict(self) -> dict[str, Any]:
        """Settings, for model cards."""
        return {"temperature": self.temperature, "in_batch_negatives": self.in_batch_negatives}

    @property
    def citation(self) -> str:
        """BibTeX of the source."""
        return """
@misc{hinton2015distilling,
    title={Distilling the Knowledge in a Neural Network},
    author={Geoffrey Hinton and Oriol Vinyals and Jeff Dean},
    year={2015},
    url={https://arxiv.org/abs/1503.02531},
}
"""


class MarginMSELoss(nn.Module):
    """Squared error of the margins between a query's first document and its others.

    With student scores s and teacher scores t, the first document being number 0::

        loss = mean over queries and their other documents d of ((s_0 - s_d) - (t_0 - t_d)) ** 2

    A query with one document has no margin: its loss is 0.

    Args:
        in_batch_negatives: The documents of the other queries count too. Where the teacher scored the own
            documents only, another query's document is taken to be at most as good as the worst own one: its
            error counts only where the student's margin is smaller than ``t_0 - min_d t_d``. A document that
            is known to be right, or equals an own one, does not count.

    Example:
        >>> import torch
        >>> query, positive, negative = torch.tensor([[[1.0, 0.0]], [[2.0, 0.0]], [[1.0, 0.0]]])
        >>> teacher_scores = torch.tensor([[3.0, 0.0]])
        >>> MarginMSELoss().compute_loss_from_embeddings([query, positive, negative], teacher_scores)
        tensor(4.)

    Source: Hofstätter et al., 2020, https://arxiv.org/abs/2010.02666.
    """

    def __init__(self, *, in_batch_negatives: bool = False) -> None:
        super().__init__()
        self.in_batch_negatives = in_batch_negatives

    def compute_loss_from_embeddings(
        self,
        embeddings: Sequence[Tensor],
        labels: Tensor | None = None,
        *,
        keys: Sequence[Tensor] | None = None,
        extra_queries: ExtraQueries | None = None,
    ) -> Tensor:
        """Loss of this batch, without the extra queries; the rest as in `KLDivergenceLoss`."""
        batch = BatchScores(embeddings, keys)
        student = batch.all() if self.in_batch_negatives else batch.own()
        teacher, complete = _teacher_scores(labels, student, len(embeddings) - 1, self.in_batch_negatives)
        places = batch.own_positions() if self.in_batch_negatives else None
        counted = torch.ones_like(student)
        one_sided = torch.zeros_like(student, dtype=torch.bool)
        first = student[:, :1] if places is None else student.gather(1, places[:, :1])
        if places is None:
            counted[:, 0] = 0
            wanted = teacher[:, :1] - teacher
        else:
            counted.scatter_(1, places[:, :1], 0)
            if complete:
                wanted = teacher.gather(1, places[:, :1]) - teacher
            else:
                margins = teacher[:, :1] - teacher
                wanted = margins.amax(1, keepdim=True).expand_as(student).scatter(1, places, margins)
                one_sided = torch.ones_like(one_sided).scatter(1, places, False)
                right = batch.false_negative_mask(own=places.shape[1])
                if right is not None:
                    counted = counted.masked_fill(right, 0)
        error = (first - student) - wanted
        error = torch.where(one_sided, error.clamp(max=0), error) * counted
        # Each query's mean is over the same number of documents, whatever is left out of them.
        return global_mean(error.square().sum(1) / max(1, student.shape[1] - 1))

    def get_config_dict(self) -> dict[str, Any]:
        """Settings, for model cards."""
        return {"in_batch_negatives": self.in_batch_negatives}

    @property
    def citation(self) -> str:
        """BibTeX of the source."""
        return """
@misc{hofstaetter2020improving,
    title={Improving Efficient Neural Ranking Models with Cross-Architecture Knowledge Distillation},
    author={Hofst{\\"a}tter, S. and Althammer, S. and Schr{\\"o}der, M. and Sertkan, M. and Hanbury, A.},
    year={2020},
    url={https://arxiv.org/abs/2010.02666},
}
"""


def _teacher_scores(
    labels: Tensor | None, student: Tensor, documents_per_query: int, in_batch: bool
) -> tuple[Tensor, bool]:
    """The scores in the dtype of the student's, and whether they are of all documents of the batch."""
    if labels is None:
        raise InputError("distillation needs teacher scores: give the rows scores, or the recipe teachers")
    shapes: list[tuple[int, ...]] = [(len(student), documents_per_query)]
    if in_batch:
        shapes.append(tuple(student.shape))
    whose = f"{len(student)} queries with {documents_per_query} documents each"
    found = _as_labels(labels, shapes, whose, student)
    return found, in_batch and found.shape == student.shape


def _as_labels(labels: Tensor, shapes: list[tuple[int, ...]], whose: str, student: Tensor) -> Tensor:
    """Teacher scores of one of the shapes, in the dtype of the student's."""
    if not isinstance(labels, Tensor):
        raise InputError(f"teacher scores are a {type(labels).__name__}; give a tensor")
    if tuple(labels.shape) not in shapes:
        raise InputError(
            f"teacher scores have the shape {tuple(labels.shape)}, but {whose} need "
            f"{' or '.join(map(str, dict.fromkeys(shapes)))}"
        )
    labels = labels.to_dense()
    if not labels.isfinite().all():
        raise InputError("teacher scores must be finite, but some are NaN or infinite")
    return labels.to(student)
