"""More queries for the documents of a batch: without a model on their side they cost a lookup."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Literal, NamedTuple

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from st_l0.errors import InputError
from st_l0.losses import ExtraQueries, TeacherScores
from st_l0.teachers.ensemble import EnsembleTeacher, gather_rows, scaled
from st_l0.teachers.model_teachers import EmbeddingTeacher
from st_l0.teachers.neighbours import nearest_queries
from st_l0.teachers.teacher import Side
from st_l0.utils.batches import batched
from st_l0.utils.distributed import rank, world_size
from st_l0.utils.inputs import as_texts, text_batches
from st_l0.utils.progress import Work, show_progress
from st_l0.utils.sparse_rows import SparseRows
from st_l0.utils.text_rows import TextRows, as_keys, text_key

_CHUNK = 4096
# A number of queries and no share of the memory, so that a training draws the same on any GPU: 0.8 GB of
# 384 dims in float16. On a CPU more would take longer to be searched than a short training takes.
_MOST, _MOST_ON_CPU = 1 << 20, 1 << 15


def largest_pool(device_type: str) -> int:
    """How many queries a pool holds at most on a device of a type such as ``"cuda"``."""
    return _MOST_ON_CPU if device_type == "cpu" else _MOST


class _Member(NamedTuple):
    """A teacher, what it counts, and what it makes of the pool's texts, on the device."""

    teacher: EmbeddingTeacher
    share: float
    queries: Tensor | SparseRows
    documents: Tensor | SparseRows
    nearest: Tensor  # queries, int32 (documents, 32)


class QueryPool:
    """Queries of the training data, out of which a batch's documents get those that teachers find near.

    Encoding the documents is nearly all the work of training an inference-free encoder, and the few queries
    of a batch teach the few vocabulary entries that they hold. Ranking the same documents for many more
    queries costs little and teaches more.

    Near to a document are the 32 queries that a teacher scores best (see `nearest_queries`). They are found
    here, once, after the teachers have embedded all queries and documents. From then on everything stays on
    the device: a batch sends the numbers of its texts, and each teacher's scores are one product.

    ``"all"`` takes each query that is near to a document of the batch. A number has the documents draw in
    turn from the near ones, of each teacher as many as its share in the ensemble. The draw follows from the
    texts of the batch, so that it is the same after a resume.

    Of several processes each holds the whole pool, since a query that one of them ranks meets the documents
    of all; they draw together for all documents, and share out what is drawn. So they do what one process
    with the whole batch does. Each embeds everything: models are better asked before
    (`st_l0.teachers.write_vectors`).

    Args:
        teacher: Its members must embed queries and documents apart.
        queries: The pool; of more than 1,048,576 (on a CPU 32,768) so many are taken at random.
        documents: All documents that a batch may hold.
        number: Queries to draw for a batch on each device, or ``"all"``.
        tokens: Gives the tokens of queries, ``(queries, vocabulary)`` with a number at each token.
        weights: Gives the student's weight of each token, ``(vocabulary,)``; a gradient goes back to it.
        device: Where the training is.
        progress: Whether to show a progress bar (on a terminal).

    Attributes:
        queries: Number of queries that it holds.
        documents: Number of documents.

    Raises:
        InputError: A teacher reads query and document together, or gives numbers that are not finite; a text
            is no string, or there is none.
    """

    def __init__(
        self,
        teacher: EnsembleTeacher,
        queries: Sequence[str],
        documents: Iterable[str],
        number: int | Literal["all"],
        *,
        tokens: Callable[[list[str]], sp.csr_matrix],
        weights: Callable[[], Tensor],
        device: str | torch.device = "cpu",
        progress: bool = True,
    ) -> None:
        self._device, self._weights, self._scale = torch.device(device), weights, teacher.scale
        self._number = None if number == "all" else number
        members: list[EmbeddingTeacher] = []
        for member in teacher.teachers:
            if not isinstance(member, EmbeddingTeacher):
                raise InputError(
                    f"teacher {member.name} reads query and document together, which is too slow to find "
                    "queries with: leave teachers.extra_queries out"
                )
            members.append(member)
        pool = _sample(list(dict.fromkeys(as_texts(queries, "query"))), largest_pool(self._device.type))
        with show_progress("embedding for extra queries", unit="texts", shown=progress) as bar:
            self._rows, left = self._embed(members, pool, "query", bar)
            self._document_rows, right = self._embed(members, documents, "document", bar)
        self._members = [
            _Member(member, share, rows, columns, nearest_queries(member, rows, columns))
            for member, share, rows, columns in zip(members, teacher.shares, left, right, strict=True)
        ]
        self._tokens = SparseRows.from_scipy([tokens(chunk) for chunk in batched(pool, _CHUNK)], self._device)
        self.queries, self.documents = len(self._rows), len(self._document_rows)

    @property
    def nbytes(self) -> int:
        """Memory that it takes on the device."""
        tensors = (held for member in self._members for held in member[2:])
        return self._tokens.nbytes + sum(int(tensor.nbytes) for tensor in tensors)

    def score_batch(self, queries: Sequence[str], columns: Sequence[Sequence[str]]) -> TeacherScores:
        """Draw extra queries for a batch, and score them and its own with the documents of all processes.

        All processes have to call this together, with equally many columns.

        Args:
            queries: Those of this process.
            columns: Document columns of this process's batch, equally long.

        Returns:
            The scores of `EnsembleTeacher.score_batch` of this process's queries, and of its part of the
            extra ones: other than those of the batch, none twice, fewer than asked for where the nearest are
            known already.

        Raises:
            InputError: A document is not among those of the pool.
        """
        documents = torch.cat([gather_rows(self._find_documents(column)) for column in columns])
        known = torch.from_numpy(self._rows.find(queries, "query"))
        with torch.no_grad(), torch.autocast(self._device.type, enabled=False):
            drawn = self._draw(gather_rows(known), documents)[rank() :: world_size()]
            documents = documents.to(self._device)
            own, extra = torch.zeros((), device=self._device), torch.zeros((), device=self._device)
            for member in self._members:
                held = member.documents[documents]
                asked = self._own(member, queries, known)
                own = own + member.share * scaled(member.teacher.compare(asked, held))
                found = member.teacher.compare(member.queries[drawn], held)
                extra = extra + member.share * scaled(found)
        rows = self._tokens[drawn]
        vectors = replace(rows, values=self._weights()[rows.columns.long()])
        return TeacherScores(own * self._scale, ExtraQueries(vectors, extra * self._scale))

    def _find_documents(self, texts: Sequence[str]) -> Tensor:
        rows = self._document_rows.find(texts, "document")
        missing = np.flatnonzero(rows < 0)
        if len(missing):
            raise InputError(
                f"document {texts[missing[0]]!r:.60} is not in the pool of extra queries: give it all "
                "documents of the training data"
            )
        return torch.from_numpy(rows)

    def _own(self, member: _Member, queries: Sequence[str], known: Tensor) -> Tensor | SparseRows:
        """Embeddings of a batch's own queries; a sample of the pool may lack one."""
        if bool((known >= 0).all()):
            return member.queries[known.to(self._device)]
        return _hold(member.teacher, [member.teacher.embed(list(queries), "query")], "query", self._device)

    def _draw(self, own: Tensor, documents: Tensor) -> Tensor:
        """Rows of queries to rank the documents for, on the device; the same on all processes."""
        seed = hashlib.blake2b(torch.cat([own, documents]).numpy().tobytes(), digest_size=8).digest()
        documents = documents.unique()
        near = [member.nearest[documents.to(self._device)].long() for member in self._members]
        known = torch.zeros(self.queries, dtype=torch.bool, device=self._device)
        known[own[own >= 0].to(self._device)] = True
        if self._number is None:
            known = ~known
            chosen = torch.zeros_like(known)
            chosen[torch.cat([rows.flatten() for rows in near])] = True
            return (chosen & known).nonzero()[:, 0]
        # On the CPU, whose chance is the same everywhere.
        chance = torch.Generator().manual_seed(int.from_bytes(seed[:7], "little"))
        drawn, due = near[0].new_empty(0), 0.0
        for member, rows in zip(self._members, near, strict=True):
            due += member.share * self._number * world_size()
            in_turn = _in_turn(rows, chance)
            new = in_turn[_first(in_turn, self.queries) & ~known[in_turn]][: max(0, round(due) - len(drawn))]
            known[new] = True
            drawn = torch.cat([drawn, new])
        return drawn

    def _embed(
        self, members: Sequence[EmbeddingTeacher], texts: Iterable[str], side: Side, bar: Work
    ) -> tuple[TextRows, list[Tensor | SparseRows]]:
        """The rows of the texts, each once, and what each teacher makes of them."""
        keys: dict[bytes, None] = {}
        parts: list[list[Tensor | sp.csr_matrix]] = [[] for _ in members]
        for chunk in _distinct(texts, side, keys):
            for member, found in zip(members, parts, strict=True):
                found.append(member.embed(chunk, side))
            bar.update(len(chunk))
        if not keys:
            raise InputError(f"extra queries: there is no {side}; give some")
        held = [
            _hold(member, found, side, self._device) for member, found in zip(members, parts, strict=True)
        ]
        return TextRows(as_keys(keys)), held


def _hold(
    teacher: EmbeddingTeacher, parts: Sequence[Tensor | sp.csr_matrix], side: Side, device: torch.device
) -> Tensor | SparseRows:
    held = teacher.hold(parts, device)
    if not (held.values if isinstance(held, SparseRows) else held).isfinite().all():
        raise InputError(f"teacher {teacher.name} makes NaN or infinity of a {side}: mend it")
    return held


def _distinct(texts: Iterable[str], side: Side, keys: dict[bytes, None]) -> Iterator[list[str]]:
    """Chunks of the texts whose keys are not there yet; they are then."""
    for chunk in text_batches(texts, _CHUNK, side):
        new = {text_key(text, side): text for text in chunk}
        new = {key: text for key, text in new.items() if key not in keys}
        keys.update(dict.fromkeys(new))
        if new:
            yield list(new.values())


def _sample(texts: list[str], most: int) -> list[str]:
    if len(texts) <= most:
        return texts
    chosen = np.random.default_rng(0).choice(len(texts), most, replace=False)
    return [texts[row] for row in np.sort(chosen)]


def _in_turn(near: Tensor, chance: torch.Generator) -> Tensor:
    """One of the near queries of each document, then another of each, and so on."""
    order = torch.rand(near.shape, generator=chance).argsort(dim=1).to(near.device)
    documents = torch.randperm(len(near), generator=chance).to(near.device)
    return near.gather(1, order)[documents].T.flatten()


def _first(rows: Tensor, number: int) -> Tensor:
    """Whether each of the rows stands there for the first time; all are below a number."""
    places = torch.arange(len(rows), device=rows.device)
    first = torch.full((number,), len(rows), device=rows.device).scatter_reduce(0, rows, places, "amin")
    return first[rows] == places
