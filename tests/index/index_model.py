"""A model of an index that is too simple to be wrong, and ways to run code in another process."""

import math
import os
from collections.abc import Callable
from functools import cache

import numpy as np

from st_l0.index import EmbeddedIndex
from st_l0.utils.words import Analyzer

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

    def bm25(self, text, bm25):
        """Id → BM25 of a query's text, of every document."""
        documents = {id: words_of(self.texts[id], bm25.language) for id in self.rows}
        total = sum(map(len, documents.values()))
        scores = dict.fromkeys(documents, 0.0)
        for word in words_of(text, bm25.language):
            frequency = sum(word in words for words in documents.values())
            idf = math.log(1 + (len(documents) - frequency + 0.5) / (frequency + 0.5))
            for id, words in documents.items():
                norm = bm25.k1 * (1 - bm25.b + bm25.b * len(words) * len(documents) / max(total, 1))
                count = words.count(word)
                scores[id] += idf * count / (count + norm) if count else 0
        return scores


@cache
def words_of(text, language):
    (words,) = Analyzer(language)([text])
    return words


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
    if index.bm25 is not None:
        assert_same_words(index, model, generator)


def assert_same_words(index: EmbeddedIndex, model: Model, generator, weight=1.5):
    """Vectors and words together are what the model says, in its order; words alone, too."""
    all_words = " ".join(filter(None, (model.texts[id] for id in model.rows))).split() or ["nothing"]
    text = " ".join([*generator.choice(all_words, 3), all_words[0], "unheard"])
    expected = model.bm25(text, index.bm25)
    query = integers(generator, 1, negative=True)[0]
    (alone,) = index.search(None, len(model.rows) + 1, texts=[text], bm25=weight)
    (both,) = index.search(query, len(model.rows) + 1, texts=[text], bm25=weight)
    place = {id: number for number, id in enumerate(model.rows)}
    for hits, vector in ((alone, 0 * query), (both, query)):
        scores = {
            id: float(row.astype(np.float64) @ vector) + weight * expected[id]
            for id, row in model.rows.items()
        }
        found = {id: score for id, score, _ in hits}
        assert found.keys() == {id for id, score in scores.items() if score > 1e-6}
        assert all(abs(score - scores[id]) < 1e-5 for id, score in found.items())
        order = [(-score, place[id]) for id, score in found.items()]
        assert order == sorted(order)
        for id in list(found)[:2]:
            explained = index.explain(vector, id, text=text, bm25=weight)
            assert abs(sum(left * right for left, right in explained.values()) - scores[id]) < 1e-5


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
