"""Another engine: an index that has what the protocol promises, and nothing else."""

from st_l0.index import EmbeddedIndex
from st_l0.utils.sparse import as_csr


class ProtocolIndex:
    """Hands everything to an embedded index; counts the calls, as each is a round trip to a server."""

    def __init__(self, inner=None, **options):
        self._inner = EmbeddedIndex(**options) if inner is None else inner
        self.calls = []

    @property
    def vocabulary_size(self):
        return self._inner.vocabulary_size

    @property
    def metadata(self):
        return self._inner.metadata

    def __len__(self):
        return len(self._inner)

    def missing(self, ids):
        self.calls.append("missing")
        return self._inner.missing(ids)

    def add(self, ids, vectors, texts=None):
        self.calls.append("add")
        self._inner.add(ids, vectors, texts)

    def update(self, ids, vectors, texts=None):
        self.calls.append("update")
        self._inner.update(ids, vectors, texts)

    def delete(self, ids):
        self.calls.append("delete")
        self._inner.delete(ids)

    @property
    def bm25(self):
        return self._inner.bm25

    @property
    def bm25_weight(self):
        return self._inner.bm25_weight

    @bm25_weight.setter
    def bm25_weight(self, weight):
        self._inner.bm25_weight = weight

    def search(self, queries, k=10, *, ids=None, texts=None, bm25=0.0):
        self.calls.append("search")
        return self._inner.search(queries, k, ids=ids, texts=texts, bm25=bm25)

    def explain(self, query, id, *, text=None, bm25=0.0):
        return self._inner.explain(query, id, text=text, bm25=bm25)


class TruncatedIndex(EmbeddedIndex):
    """An embedded index of weights as OpenSearch keeps them, so that scores can be compared."""

    def add(self, ids, vectors, texts=None):
        from st_l0.index.opensearch.documents import truncate

        vectors = as_csr(vectors).copy()
        vectors.data = truncate(vectors.data)
        super().add(ids, vectors, texts)
