"""Several teachers as one."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from st_l0.errors import InputError
from st_l0.teachers.teacher import Teacher
from st_l0.utils.devices import as_double
from st_l0.utils.distributed import all_gather, all_gather_objects, rank, world_size
from st_l0.utils.inputs import as_texts


def min_max(scores: Tensor) -> Tensor:
    """Scale each row to [0, 1] by its smallest and largest score; a row without a spread becomes zeros.

    Args:
        scores: ``(..., documents)``; the rows are along the last dimension.

    Returns:
        The same shape, float32.

    Raises:
        InputError: A score is NaN or infinite.

    Example:
        >>> min_max(torch.tensor([[2.0, 6.0, 4.0], [3.0, 3.0, 3.0]]))
        tensor([[0.0000, 1.0000, 0.5000],
                [0.0000, 0.0000, 0.0000]])
    """
    if not isinstance(scores, Tensor) or not scores.dim():
        raise InputError(f"scores are {scores!r:.40}; give a tensor with a row for each query")
    if not scores.isfinite().all():
        raise InputError("scores hold NaN or infinity; leave those rows out or mend the teacher")
    return scaled(scores)


def scaled(scores: Tensor) -> Tensor:
    """`min_max` of scores that are known to be finite, without a look at them; it stays on their device."""
    if not scores.shape[-1]:
        return scores.float()
    wide = as_double(scores)
    low, high = wide.aminmax(dim=-1, keepdim=True)
    # A row without a spread is 0 / 1.
    return ((wide - low) / torch.where(high > low, high - low, 1.0)).float().to(scores.device)


class EnsembleTeacher:
    """Several teachers as one: their scores min-max normalised per query, averaged, times a scale.

    For the documents ``D`` that are scored for query ``q`` and weights ``w_t`` (equal ones in the paper)::

        score(q, d) = scale * sum_t w_t (s_t(q, d) - min_D s_t) / (max_D s_t - min_D s_t) / sum_t w_t

    So a score says how ``d`` ranks among ``D``, from 0 to ``scale``, and is worth nothing next to the scores
    of another list. One teacher alone is normalised too.

    Args:
        teachers: One or more.
        scale: Range of the result, > 0. The paper takes 30; a smaller one asks for smaller student scores.
        weights: One for each teacher, > 0; ``None`` are equal ones.

    Attributes:
        shares: The weights divided by their sum.

    Raises:
        InputError: There is no teacher, ``scale`` or a weight is not positive and finite, or there are not as
            many weights as teachers.

    Example:
        A toy teacher, which counts the words that query and document share:

        >>> class Words:
        ...     name, vocabulary = "words", None
        ...     def score_pairs(self, queries, documents):
        ...         pairs = zip(queries, documents)
        ...         return torch.tensor([float(len({*q.split()} & {*d.split()})) for q, d in pairs])
        ...     def score_all(self, queries, documents):
        ...         return torch.stack([self.score_pairs([q] * len(documents), documents) for q in queries])
        >>> ensemble = EnsembleTeacher([Words()], scale=10.0)
        >>> ensemble.score_lists(["red ship"], [["a red ship", "a red stone", "snow"]])
        [tensor([10.,  5.,  0.])]

    Source: Geng et al., 2024, https://arxiv.org/abs/2411.04403, heterogeneous knowledge distillation
    """

    def __init__(
        self, teachers: Sequence[Teacher], scale: float = 30.0, weights: Sequence[float] | None = None
    ) -> None:
        if not teachers:
            raise InputError("an ensemble needs at least one teacher")
        if not 0 < scale < math.inf:
            raise InputError(f"the scale of the teachers must be positive, not {scale}")
        weights = [1.0] * len(teachers) if weights is None else list(weights)
        if len(weights) != len(teachers) or not all(0 < weight < math.inf for weight in weights):
            raise InputError(f"{len(teachers)} teachers need as many positive weights, not {weights}")
        self.teachers, self.scale, self.weights = list(teachers), scale, weights
        self.shares = [weight / sum(weights) for weight in weights]

    def score_lists(self, queries: Sequence[str], documents: Sequence[Sequence[str]]) -> list[Tensor]:
        """Score a list of documents for each query; the lists may have different lengths.

        Returns:
            For each query the scores of its documents, ``(documents,)``, float32, on the CPU.

        Raises:
            InputError: One of the texts is no string, there are not as many lists as queries, or a score is
                NaN or infinite; the message names teacher and query.
        """
        queries = as_texts(queries, "query")
        lists = [as_texts(texts, f"query {row}: document") for row, texts in enumerate(documents)]
        if len(lists) != len(queries):
            raise InputError(f"{len(lists)} lists of documents for {len(queries)} queries; give one for each")
        rows = [query for query, texts in zip(queries, lists, strict=True) for _ in texts]
        flat = [text for texts in lists for text in texts]
        totals = [torch.zeros(len(texts)) for texts in lists]
        for teacher, share in zip(self.teachers, self.shares, strict=True):
            scores = teacher.score_pairs(rows, flat)
            refuse_not_finite(teacher, rows, scores)
            for total, part in zip(totals, scores.split([len(texts) for texts in lists]), strict=True):
                total += share * min_max(part)
        return [total * self.scale for total in totals]

    def score_batch(self, queries: Sequence[str], columns: Sequence[Sequence[str]]) -> Tensor:
        """Score this process's queries with the documents of all processes.

        Every process scores the queries of all with its own documents, so no document is read twice; all of
        them have to call this together, with equally many columns. The numbers of queries may differ.

        Args:
            queries: Those of this process.
            columns: Document columns of this process's batch, equally long.

        Returns:
            ``(queries, documents of all processes)``, float32, on the CPU. The documents are in the order
            column 0 of rank 0, column 0 of rank 1, …, column 1 of rank 0, …, as the columns of embeddings
            that the losses gather. The spread of min-max is that of a whole row.

        Raises:
            InputError: A score is NaN or infinite, on all processes; the message names teacher and query.
        """
        everybody = all_gather_objects(list(queries))
        flat = [query for part in everybody for query in part]
        start = sum(map(len, everybody[: rank()]))
        documents = [text for column in columns for text in column]
        total = torch.tensor(0.0)
        for teacher, share in zip(self.teachers, self.shares, strict=True):
            own = teacher.score_all(flat, documents).T.split([len(column) for column in columns])
            scores = torch.cat([gather_rows(column) for column in own]).T
            refuse_not_finite(teacher, flat, scores)
            total = total + share * min_max(scores[start : start + len(queries)])
        return total * self.scale


def refuse_not_finite(teacher: Teacher, queries: Sequence[str], scores: Tensor) -> None:
    """Refuse scores that are NaN or infinite.

    Args:
        teacher: Who scored.
        queries: The query of each row of ``scores``.
        scores: ``(queries, ...)``.

    Raises:
        InputError: A score is not finite; the message names teacher and query. Or it is no tensor of scores.
    """
    if not isinstance(scores, Tensor) or len(scores) != len(queries):
        given = tuple(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
        raise InputError(f"teacher {teacher.name} gives {given}, no tensor with {len(queries)} rows")
    bad = (~scores.isfinite()).nonzero()
    if len(bad):
        first = tuple(bad[0].tolist())
        raise InputError(
            f"teacher {teacher.name} scores a document of query {queries[first[0]]!r:.80} with "
            f"{scores[first].item()}; leave the query out or mend the teacher"
        )


def gather_rows(rows: Tensor) -> Tensor:
    """The ``(rows, …)`` of all processes in the order of the ranks, on the CPU."""
    if world_size() == 1:
        return rows
    # GPUs exchange only what lies on them.
    device = torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else "cpu"
    return all_gather(rows.to(device).contiguous()).cpu()
