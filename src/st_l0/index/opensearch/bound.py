"""What an index object is bound to: a server, and the index that it shows there."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import scipy.sparse as sp

from st_l0.errors import InputError
from st_l0.index.embedded.bm25 import WordSettings
from st_l0.index.opensearch.address import Address
from st_l0.index.opensearch.documents import Names
from st_l0.index.opensearch.opening import has_neural_sparse
from st_l0.index.opensearch.record import State, read, write_record
from st_l0.index.opensearch.searching import Searcher
from st_l0.index.opensearch.server import NotFoundError, Server
from st_l0.index.protocol import BM25, as_weight
from st_l0.utils.sparse import Vectors, as_csr

T = TypeVar("T")


class Bound:
    """The part of `OpenSearchIndex` that knows the server and the index; others of this package use it too.

    Attributes:
        address: Where it is.
        server: The connection.
        seismic: Parameters of ``sparse_vector`` in a new index.
        told: Length of the vectors that the caller gave.
    """

    def __init__(
        self,
        address: Address,
        server: Server,
        names: Names,
        *,
        seismic: Mapping[str, Any] | None = None,
        told: int | None = None,
    ) -> None:
        self.address, self.server, self._names = address, server, names
        self.seismic, self.told = seismic, told

    def bind(self, state: State, *, alone: bool = False) -> None:
        """Show an index; ``alone``: that one, whatever the alias shows."""
        self._state = state
        self._shown = state.name if alone else self.address.name
        self._written = False
        self._neural: bool | None = None
        # One object gets its answers from the same copies: others may order ties otherwise.
        self._preference = uuid.uuid4().hex

    @property
    def state(self) -> State:
        """What the server showed of the index last."""
        return self._state

    @property
    def name(self) -> str:
        """Of the index that is shown, where the address names an alias."""
        return self._state.name

    @property
    def names(self) -> Names:
        """Of the features.

        Raises:
            InputError: They are those of tokens, which were not given.
        """
        if self._names.digest != self._state.record.tokens:
            raise InputError(
                f"{self.address}: features are named by tokens: give the tokens, name_features(…)"
            )
        return self._names

    def name_features(self, tokens: Sequence[str]) -> None:
        """Give the tokens that the features of the index are named by, shape ``(vocabulary,)``.

        Raises:
            InputError: They are others than those that the index was made with.
        """
        before, self._names = self._names, Names(tokens)
        if self._names.digest != self._state.record.tokens:
            self._names = before
            raise InputError(f"{self.address}: the features of the index have other names than these tokens")

    @property
    def neural(self) -> bool:
        """Whether the server has ``neural_sparse``; it is asked once."""
        if self._neural is None:
            self._neural = has_neural_sparse(self.server, self._state)
        return self._neural

    @property
    def vocabulary_size(self) -> int | None:
        """Length of the vectors; None while the index is new and was not told."""
        known = self._state.record.vocabulary_size
        return self.told if known is None else known

    @property
    def metadata(self) -> dict[str, Any]:
        """The JSON object that was given when the index was made."""
        return dict(self._state.record.metadata)

    @property
    def bm25(self) -> BM25 | None:
        """How the index weighs words; None if it holds none."""
        words = self._state.record.words
        return None if words is None else words.bm25

    @property
    def bm25_weight(self) -> float | None:
        """How much BM25 counts where a search says "auto"; None if nothing is stored. It can be set."""
        words = self._state.record.words
        return None if words is None else words.weight

    @bm25_weight.setter
    def bm25_weight(self, weight: float | None) -> None:
        given = None if weight is None else as_weight(weight)
        self._state = write_record(self.server, self._state, words=replace(self.words(), weight=given))

    def refresh(self) -> None:
        """Show what others have written since, or the index that has taken this one's place."""
        self.look()
        self.server.request("POST", f"{self._state.root}/_refresh")
        self._written = False

    def look(self) -> State:
        """Ask the server for the state of the index anew.

        Raises:
            InputError: It is gone.
        """
        state = read(self.server, self._shown)
        if state is None:
            raise InputError(f"{self.address}: the index is gone: open it again")
        self._state = state
        return state

    def words(self) -> WordSettings:
        """How words are kept; InputError where there are none."""
        words = self._state.record.words
        if words is None:
            raise InputError("the index holds no words: build it with bm25='english' or another language")
        return words

    def searcher(self) -> Searcher:
        """What sends searches to the index."""
        return Searcher(self.server, self._state, self._preference)

    def has_written(self) -> None:
        """Have the next search find what is being written."""
        self._written = True

    def ask(self, work: Callable[[], T]) -> T:
        """Read something that shows all that was written; again where the index was replaced meanwhile."""
        if self._written:
            self._written = False
            self.server.request("POST", f"{self._state.root}/_refresh")
        if self._state.record.id_kind is None:  # others may have filled it
            self.look()
        try:
            return work()
        except NotFoundError:
            self.look()
            return work()

    def check(self, vectors: Vectors) -> sp.csr_matrix:
        """Vectors in one form; InputError where their length is not the index's."""
        matrix = as_csr(vectors)
        expected = self.vocabulary_size
        if expected is not None and matrix.shape[1] != expected:
            raise InputError(
                f"the vectors have {matrix.shape[1]} dimensions, those of the index {expected}: "
                "encode with the model that the index was built with"
            )
        return matrix

    def learn(self, size: int, kind: str) -> None:
        """Have the index know how long vectors are and which kind its ids have, from its first documents."""
        record = self._state.record
        if record.id_kind not in (None, kind):
            raise InputError(f"the index has {record.id_kind} ids, but these are {kind}: use one kind")
        if record.id_kind is None or record.vocabulary_size is None:
            self._state = write_record(self.server, self._state, vocabulary_size=size, id_kind=kind)


def kind_of_ids(ids: Sequence[str | int]) -> str:
    """Either "str" or "int"."""
    return "str" if isinstance(ids[0], str) else "int"
