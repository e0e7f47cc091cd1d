"""More queries for the documents of a batch: without a model on their side they cost a lookup."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from st_l0.errors import InputError
from st_l0.teachers.ensemble import EnsembleTeacher
from st_l0.teachers.models import EmbeddingTeacher

# Queries of the pool that a batch looks at: enough to find near ones, and the scores stay small.
_CANDIDATES = 1 << 15
_NEAREST = 32


class QueryPool:
    """Queries of the training data, out of which a batch's documents get those that teachers find near.

    Encoding the documents is nearly all the work of training an inference-free encoder, and the few queries
    of a batch teach the few vocabulary entries that they hold. Ranking the same documents for many more
    queries costs little and teaches more.

    A document draws from the 32 queries that a teacher scores highest for it, from each teacher as many as
    its share in the ensemble. The draw follows from the texts of the batch, so that it is the same after a
    resume.

    Args:
        teacher: Its members must embed queries and documents apart; the pool's queries are embedded once,
            here.
        queries: The pool; of more than 32,768 each batch sees that many, drawn at random.
        number: Queries of a batch at most.

    Raises:
        InputError: A teacher reads query and document together.
    """

    def __init__(self, teacher: EnsembleTeacher, queries: Sequence[str], number: int) -> None:
        self.queries, self.number = list(dict.fromkeys(queries)), number
        self._members: list[tuple[EmbeddingTeacher, float, Any]] = []
        for member, share in zip(teacher.teachers, teacher.shares, strict=True):
            if not isinstance(member, EmbeddingTeacher):
                raise InputError(
                    f"teacher {member.name} reads query and document together, which is too slow to find "
                    "queries with: leave teachers.extra_queries out"
                )
            with torch.inference_mode():
                self._members.append((member, share, member.embed(self.queries, "query")))

    def draw(self, queries: Sequence[str], documents: Sequence[str]) -> list[str]:
        """Queries to rank the documents for, other than ``queries``: ``number`` or fewer, none twice."""
        documents = list(dict.fromkeys(documents))
        digest = hashlib.blake2b("\0".join([*queries, *documents]).encode(), digest_size=8).digest()
        chance = np.random.default_rng(int.from_bytes(digest, "little"))
        known = set(queries)
        seen = np.arange(len(self.queries))
        if len(seen) > _CANDIDATES:
            seen = chance.choice(len(seen), _CANDIDATES, replace=False)
        found: list[int] = []
        for member, share, embeddings in self._members:
            part = embeddings if len(seen) == len(self.queries) else embeddings[seen]
            scores = member.score_embedded(part, documents)
            nearest = scores.topk(min(_NEAREST, len(seen)), dim=0).indices.T.numpy()
            each = max(1, round(share * self.number / len(documents)))
            found += [int(seen[i]) for row in nearest for i in chance.permutation(row)[:each]]
        drawn = [text for i in dict.fromkeys(found) if (text := self.queries[i]) not in known]
        return [drawn[i] for i in sorted(chance.permutation(len(drawn))[: self.number])]
