"""A model of an index that is too simple to be wrong, and ways to run code in another process."""

import os
from collections.abc import Callable

import numpy as np

from st_l0.index import EmbeddedIndex

VOCABULARY = 12


class Model:
    """Documents in a dict, in index order; searched by multiplying everything out."""

    def __init__(self):
        self.rows = {}
        self.texts = {}

    def put(self, ids, vectors, texts=None):
        for i, id in enumerate(ids):
            self.rows.pop(id, None)
            self.rows[id] = vectors[i]
            self.texts[id] = None if texts is None else texts[i]

    def delete(self, ids):
        for id in ids:
            del self.rows[id]

    def search(self, query, k, allowed=None):
        scored = [
            (float(row.astype(np.float64) @ query), place, id)
            for place, (id, row) in enumerate(self.rows.items())
            if allowed is None or id in allowed
        ]
        best = sorted((-score, place, id) for score, place, id in scored if score > 0)[:k]
        return [(id, -score, self.texts[id]) for score, _, id in best]


def integers(generator, count, negative=False):
    """Vectors with many zeros and small whole weights, so that sums are exact and ties are frequent."""
    low = -2 if negative else 0
    weights = generator.integers(low, 4, (count, VOCABULARY)).astype(np.float32)
    return weights * (generator.random((count, VOCABULARY)) < 0.4)


def assert_same(index: EmbeddedIndex, model: Model, generator, k=7):
    assert len(index) == len(model.rows)
    assert index.ids().tolist() == list(model.rows)
    queries = integers(generator, 4, negative=True)
    for query, hits in zip(queries, index.search(queries, k), strict=True):
        assert [tuple(hit) for hit in hits] == model.search(query, k)
    mask = generator.random(len(index)) < 0.5
    ids = [id for id in model.rows if generator.random() < 0.5]
    masked = {id for id, keep in zip(model.rows, mask, strict=True) if keep}
    for arguments, allowed in (
        ({"mask": mask}, masked),
        ({"ids": ids}, set(ids)),
        ({"ids": iter(ids), "mask": mask}, set(ids) & masked),
    ):
        (hits,) = index.search(queries[0], k, **arguments)
        assert [tuple(hit) for hit in hits] == model.search(queries[0], k, allowed)


def in_child(function: Callable[[], None]) -> int:
    """Run ``function`` in another process, without anything that Python does at its end; gives its pid."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            function()
            code = 0
        finally:
            os._exit(code)
    return pid


def exit_code(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
