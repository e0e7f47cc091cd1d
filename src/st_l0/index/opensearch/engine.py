"""Search on an OpenSearch cluster, by the same protocol as the embedded engine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from copy import copy
from pathlib import Path
from typing import Any, Literal, cast

import scipy.sparse as sp

from st_l0.errors import InputError, ServerError
from st_l0.index.embedded.arguments import as_count, as_ids, as_json, unique
from st_l0.index.embedded.bm25 import WordSettings
from st_l0.index.opensearch import documents, loading, opening, pipeline, writing
from st_l0.index.opensearch.address import Address, as_name
from st_l0.index.opensearch.asking import Question, answer, explain, stored_vector
from st_l0.index.opensearch.bound import Bound, kind_of_ids
from st_l0.index.opensearch.items import as_items
from st_l0.index.opensearch.record import Record
from st_l0.index.opensearch.server import Server
from st_l0.index.protocol import BM25, Add, Hits, Id, Ids
from st_l0.utils.sparse import Vectors


class OpenSearchIndex(Bound):
    """An index on an OpenSearch cluster; see `Index` for the shapes of vectors and the ids.

    Vectors are kept as ``rank_features``, whose weights are cut to 9 significant bits (up to 0.4 % low);
    apart from that the search is exact. Equal scores come in the order of their ids, as strings.
    ``sparse_vector`` is approximate (SEISMIC), and takes no words and no filter by fields.

    The address names an alias of the index ``NAME-000001``, so that `replacing` can put another in its
    place. A method returns when the server has written. What this object has written it finds at once, others
    find it within the index's refresh interval (a second). There is no transaction: where a server fails in
    the middle of `add`, `update` or `delete`, a part is done, and `missing` says which. A search is answered
    by all parts of the index or raises `ServerError`. May be used by several threads. A pickle holds the
    address.

    Who asks is said in the environment: ``OPENSEARCH_USERNAME`` and ``OPENSEARCH_PASSWORD``,
    ``OPENSEARCH_API_KEY``, or ``OPENSEARCH_AWS_SERVICE`` (es or aoss). ``SSL_CERT_FILE`` names an authority
    of one's own. For anything else make an ``opensearchpy.OpenSearch`` and give it as ``client``.

    Args:
        target: ``opensearch://HOST[:PORT][,HOST…]/NAME``, with ``?vectors=sparse_vector``, ``shards=``,
            ``replicas=`` of a new index, ``timeout=`` (seconds) and ``two_phase=true``;
            ``opensearch+http://`` for a server without TLS. With ``client``, the name alone.
        vocabulary_size: Length of the vectors; if None, an existing index knows it and a new one learns it
            from the first documents.
        metadata: A small JSON object stored with a new index; one that exists already keeps its own.
        create: Make a new index if there is none.
        bm25: Keep words beside vectors: their language, or a `BM25` with ``lengths="lucene"``; if None, a new
            index holds none and an existing one keeps what it has.
        tokens: Name each feature by its token, as server-side queries do, and not by its number: the tokens,
            shape ``(vocabulary,)``. Needs the neural-search plugin.
        seismic: Parameters of ``sparse_vector`` in a new index.
        client: An ``opensearchpy.OpenSearch`` of one's own.

    Raises:
        InputError: The address is none or holds a password, there is no server or no index and ``create`` is
            off, the index was made by something else or with other vectors or words, or the server refuses.
        ServerError: The server fails.
        MissingExtraError: opensearch-py is not installed.

    Example:
        >>> index = OpenSearchIndex("opensearch+http://localhost:9200/papers")  # doctest: +SKIP
        >>> index.add(["a", "b"], np.array([[1.0, 0.0, 2.0], [0.0, 3.0, 0.0]]))  # doctest: +SKIP
        >>> index.search(np.array([[1.0, 0.0, 1.0]]))[0][0]  # doctest: +SKIP
        Hit(id='a', score=3.0, text=None)
    """

    def __init__(
        self,
        target: str,
        *,
        vocabulary_size: int | None = None,
        metadata: Mapping[str, Any] | None = None,
        create: bool = True,
        bm25: str | BM25 | None = None,
        tokens: Sequence[str] | None = None,
        seismic: Mapping[str, Any] | None = None,
        client: Any = None,
    ) -> None:
        if client is None:
            address = Address.parse(target)
            server = Server.connect(address)
        else:
            address = Address((), as_name(target), tls=True)
            server = Server(client, f"index {target}")
        if vocabulary_size is not None:
            vocabulary_size = as_count(vocabulary_size, "vocabulary_size")
        names = documents.Names(tokens)
        super().__init__(address, server, names, seismic=seismic, told=vocabulary_size)
        self._own_client = client is not None
        wanted = Record(
            vocabulary_size=vocabulary_size,
            metadata=as_json({} if metadata is None else metadata),
            words=None if bm25 is None else WordSettings.new(_as_lucene(bm25)),
            vectors=address.vectors,
            tokens=names.digest,
        )
        self.bind(opening.open_or_create(server, address, wanted, make=create, seismic=seismic))
        loading.put_back_after_a_crash(server, self.state)

    def __reduce__(self) -> Any:
        if self._own_client:
            raise InputError("an index with a client of its own cannot be pickled: open it by its address")
        return _reopen, (self.address, self._names.tokens)

    def __len__(self) -> int:
        return self.ask(lambda: self.searcher().count())

    def __repr__(self) -> str:
        return f"OpenSearchIndex({str(self.address)!r}, vocabulary_size={self.vocabulary_size})"

    def missing(self, ids: Ids) -> list[Id]:
        """Those of ``ids`` that are not in the index, in their order; an id of the other kind is missing.

        Raises:
            InputError: ids are neither all str nor all int.
            ServerError: A part of the index does not answer, so that nobody knows.
        """
        values = as_ids(ids)
        if not values:
            return []
        state = self.look()
        if state.record.id_kind != kind_of_ids(values):
            return values
        known = writing.known(self.server, state, [id for id in dict.fromkeys(map(str, values)) if id])
        return [id for id in values if str(id) not in known]

    def add(
        self,
        ids: Ids,
        vectors: Vectors,
        texts: Sequence[str | None] | None = None,
        *,
        fields: Sequence[Mapping[str, Any]] | None = None,
    ) -> None:
        """Add documents, shape ``(documents, vocabulary_size)``; a document may be empty (never a hit).

        Args:
            ids: New ones; as bytes at most 512 long.
            vectors: No weight may be negative.
            texts: Kept beside them; an index with words needs one of each.
            fields: What `search` can filter by: a dictionary a document, of strings or lists of strings.

        Raises:
            InputError: An id is in the index already or given twice, ids are mixed or not of the index's
                kind, lengths differ, a weight is negative, NaN or infinite, or the server refuses a document.
            ServerError: The server fails; some documents may have been added.
        """
        self._write(ids, vectors, texts, fields, replacing=False)

    def update(
        self,
        ids: Ids,
        vectors: Vectors,
        texts: Sequence[str | None] | None = None,
        *,
        fields: Sequence[Mapping[str, Any]] | None = None,
    ) -> None:
        """Add documents, replacing those whose ids are known as a whole; errors as for `add`."""
        self._write(ids, vectors, texts, fields, replacing=True)

    def delete(self, ids: Ids) -> None:
        """Remove documents.

        Raises:
            InputError: An id is unknown or given twice.
            ServerError: The server fails; some documents may have been removed.
        """
        values = unique(as_ids(ids))
        unknown = self.missing(cast(Ids, values))
        if unknown:
            raise InputError(f"id {unknown[0]!r} is not in the index, so nothing was deleted")
        self.send([writing.Item("delete", str(id)) for id in values])

    def items(
        self,
        ids: Ids,
        vectors: Vectors,
        texts: Sequence[str | None] | None = None,
        *,
        fields: Sequence[Mapping[str, Any]] | None = None,
        action: writing.Action = "index",
    ) -> list[writing.Item]:
        """Documents, checked and as the server takes them, for `send`; errors of the input as for `add`."""
        return as_items(self, ids, vectors, texts, fields, action)

    def send(self, items: Sequence[writing.Item]) -> None:
        """Write what `items` made.

        Raises:
            InputError: The server refuses a document.
            ServerError: The server fails; some may have been written.
        """
        self.has_written()
        for group in writing.requests(items):
            failed = writing.send(self.server, self.state, group)
            if failed:
                raise failed[0].as_error(self.server.place)

    def loading(self, refused: str | Path | None = None) -> AbstractContextManager[Add]:
        """Add many documents while the caller makes the next ones; see `LoadingIndex.loading`.

        Threads check and send each until the server has it on all its copies, or refuses it; one of the same
        id is replaced. At the end settings are put back; replicas stay all the time, in case a node is lost.

        Raises:
            InputError: As for `update`; or documents were refused, and all others are in the index.
            ServerError: The server fails for minutes, or its disk is full; what was written stays.
        """
        return pipeline.load(self, refused)

    def bulk_settings(self, *, replicas: bool = True) -> AbstractContextManager[None]:
        """While the body runs nothing is refreshed; see `st_l0.index.opensearch.loading.bulk_settings`."""
        return loading.bulk_settings(self.server, self.state, replicas=replicas)

    def put_back_settings(self) -> None:
        """Set what was before a load in bulk that was killed; opening the index on its machine does it."""
        loading.put_back(self.server, self.state)

    @contextmanager
    def replacing(self) -> Iterator[OpenSearchIndex]:
        """A new, empty index to fill; when the body ends, every search finds that one instead of this.

        If the body raises, the new index is removed and all stays as it was.

        Raises:
            InputError: The address names an index and no alias.
        """
        made = copy(self)
        with opening.replacing(self.server, self.address, self.state, self.seismic) as state:
            made.bind(state, alone=True)
            yield made
            made.refresh()
        made.bind(made.state)
        self.bind(made.state)

    def search(
        self,
        queries: Vectors | None,
        k: int = 10,
        *,
        ids: Ids | None = None,
        texts: Sequence[str] | None = None,
        bm25: float | Literal["auto"] = 0.0,
        filter: Mapping[str, Any] | None = None,
        prune: float = 0.0,
        two_phase: bool | Mapping[str, Any] | None = None,
        seismic: Mapping[str, Any] | None = None,
    ) -> list[Hits]:
        """Find the ``k`` best documents of each query; see `Index.search`.

        Args:
            queries: Shape ``(queries, vocabulary_size)``, no weight negative; None: words alone.
            k: At least 1.
            ids: Only these documents may be returned; unknown ids are ignored.
            texts: Of the queries, for their words.
            bm25: How much BM25 counts. Its statistics are those of the server, in which deleted documents
                count until it merges them away.
            filter: Field → the value, or values of which one, that a document has to have; see `add`.
            prune: Leave out weights of a query below this share of its heaviest, 0 to 1.
            two_phase: Heavy tokens first (OpenSearch's pipeline; faster, inexact). A dictionary changes
                ``prune_ratio``, ``expansion_rate``, ``max_window_size``; None: as the address says.
            seismic: Parameters of a search of ``sparse_vector``: ``heap_factor``, ``top_n``, ``k``.

        Returns:
            One result a query, best first. Texts are fetched when one is read.

        Raises:
            InputError: What `Index.search` refuses; a negative weight; more tokens than the server allows.
            ServerError: A part of the index does not answer.
        """
        k = as_count(k, "k")
        question = Question(
            vectors=None if queries is None else self.check(queries),
            texts=texts,
            bm25=bm25,
            ids=ids,
            filter=filter,
            prune=prune,
            two_phase=self.address.two_phase if two_phase is None else two_phase,
            seismic=seismic,
        )
        return self.ask(lambda: answer(self, question, k))

    def explain(
        self,
        query: Vectors | None,
        id: Id,
        *,
        text: str | None = None,
        bm25: float | Literal["auto"] = 0.0,
    ) -> dict[int | str, tuple[float, float]]:
        """The parts of a score, as the server has them; see `Index.explain`.

        Raises:
            InputError: ``id`` is unknown, ``query`` is not one vector, or what `search` refuses.
            ServerError: A part of the index does not answer.
        """
        vector = None if query is None else self.check(query)
        question = Question(vectors=vector, texts=None if text is None else [text], bm25=bm25)
        if vector is not None and vector.shape[0] != 1:
            raise InputError(f"explain takes one query, not {vector.shape[0]}")
        if self.missing(cast(Ids, [id])):
            raise InputError(f"id {id!r} is not in the index")
        return self.ask(lambda: explain(self, question, str(id)))

    def vector(self, id: Id) -> sp.csr_matrix:
        """The vector of a document, as it was added; see `StoredVectors`."""
        if self.missing(cast(Ids, [id])):
            raise InputError(f"id {id!r} is not in the index")
        return self.ask(lambda: stored_vector(self, str(id)))

    def _write(
        self,
        ids: Ids,
        vectors: Vectors,
        texts: Sequence[str | None] | None,
        fields: Sequence[Mapping[str, Any]] | None,
        *,
        replacing: bool,
    ) -> None:
        if self.look().blocked:
            raise ServerError(opening.BLOCKED.format(self.address))
        values = as_ids(ids, ordered=True)
        items = self.items(
            cast(Ids, values), vectors, texts, fields=fields, action="index" if replacing else "create"
        )
        if not replacing and items:
            there = writing.known(self.server, self.state, [item.id for item in items])
            if there:
                first = next(id for id in values if str(id) in there)
                raise InputError(f"id {first!r} is in the index already: update() replaces it")
        self.send(items)


def _as_lucene(given: str | BM25) -> BM25:
    """The settings of words; OpenSearch keeps lengths in one byte."""
    if isinstance(given, str):
        return BM25(given, lengths="lucene")
    bm25 = BM25.of(given)
    if bm25.lengths != "lucene":
        raise InputError("OpenSearch keeps lengths in one byte: give BM25(…, lengths='lucene')")
    return bm25


def _reopen(address: Address, tokens: Sequence[str] | None) -> OpenSearchIndex:
    index = object.__new__(OpenSearchIndex)
    names = documents.Names(tokens)
    Bound.__init__(index, address, Server.connect(address), names)
    index._own_client = False
    wanted = Record(tokens=names.digest)
    index.bind(opening.open_or_create(index.server, address, wanted, make=False, seismic=None))
    return index
