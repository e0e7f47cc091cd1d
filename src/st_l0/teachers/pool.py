"""More queries for the documents of a batch: without a model on their side they cost a lookup."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

import numpy as np
from torch import Tensor

from st_l0.errors import InputError
from st_l0.teachers.ensemble import EnsembleTeacher
from st_l0.teachers.model_teachers import EmbeddingTeacher
from st_l0.utils.inputs import as_texts

# Queries of the pool that a batch looks at: enough to find near ones, and the scores stay small.
_CANDIDATES = 1 << 15
_NEAREST = 32


class QueryPool:
    """Queries of the training data, out of which a batch's documents get those that teachers find near.

    Encoding the documents is nearly all the work of training an inference-free encoder, and the few queries
    of a batch teach the few vocabulary entries that they hold. Ranking the same documents for many more
    queries costs little and teaches more.

    The documents draw in turn from the 32 queries that a teacher finds nearest to them (see
    `EmbeddingTeacher.nearness`), of each teacher as many as its share in the ensemble. The draw follows from
    the texts of the batch, so that it is the same after a resume.

    Args:
        teacher: Its members must embed queries and documents apart. They embed the pool's queries here, and
            not again when they score them.
        queries: The pool; of more than 32,768 each batch sees that many, drawn at random.
        number: Queries to draw for a batch.

    Raises:
        InputError: A teacher reads query and document together, or a query is no string.
    """

    def __init__(self, teacher: EnsembleTeacher, queries: Sequence[str], number: int) -> None:
        self.queries, self.number = list(dict.fromkeys(as_texts(queries, "query"))), number
        members: list[EmbeddingTeacher] = []
        for member in teacher.teachers:
            if not isinstance(member, EmbeddingTeacher):
                raise InputError(
                    f"teacher {member.name} reads query and document together, which is too slow to find "
                    "queries with: leave teachers.extra_queries out"
                )
            members.append(member)
        embedded = [member.remember(self.queries) for member in members]
        self._members = list(zip(members, embedded, teacher.shares, strict=True))

    def draw(self, queries: Sequence[str], documents: Sequence[str]) -> list[str]:
        """Queries to rank the documents for, other than ``queries``, none twice.

        Returns:
            ``number`` of them, or fewer where the nearest are known already.
        """
        documents = list(dict.fromkeys(documents))
        digest = hashlib.blake2b("\0".join([*queries, *documents]).encode(), digest_size=8).digest()
        chance = np.random.default_rng(int.from_bytes(digest, "little"))
        rows = None
        if len(self.queries) > _CANDIDATES:
            rows = chance.choice(len(self.queries), _CANDIDATES, replace=False)
        known, due = set(queries), 0.0
        drawn: list[str] = []
        for member, embedded, share in self._members:
            due += share * self.number
            scores = member.nearness(embedded, documents, rows)
            for row in self._in_turn(scores, chance):
                query = self.queries[row if rows is None else rows[row]]
                if len(drawn) >= round(due):
                    break
                if query not in known:
                    known.add(query)
                    drawn.append(query)
        return drawn

    @staticmethod
    def _in_turn(scores: Tensor, chance: np.random.Generator) -> Iterator[int]:
        """One of the nearest rows of each document, then another of each ..."""
        nearest = scores.topk(min(_NEAREST, len(scores)), dim=0).indices.numpy()
        yield from chance.permuted(nearest, axis=0)[:, chance.permutation(scores.shape[1])].ravel()
