"""Another engine: an index that has what the protocol promises, and nothing else."""

from st_l0.index import EmbeddedIndex


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

    def search(self, queries, k=10, *, ids=None):
        self.calls.append("search")
        return self._inner.search(queries, k, ids=ids)

    def explain(self, query, id):
        return self._inner.explain(query, id)
