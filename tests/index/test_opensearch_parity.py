"""What OpenSearch finds is what the embedded engine finds, on real text, model and server."""

import inspect
import json
import logging
import re
import types

import numpy as np
import pytest

from st_l0.index import BM25, EmbeddedIndex
from st_l0.index.opensearch import OpenSearchIndex
from st_l0.index.opensearch.documents import truncate

MODEL = "models/st-l0-mini"


def docstrings():
    """Real sentences that every Python has, longer and shorter than what Lucene's byte keeps exactly."""
    found = {}
    for module in (np, np.linalg, np.random, np.ma, re, json, logging, inspect, types):
        for name in dir(module):
            text = inspect.getdoc(getattr(module, name))
            if text and len(text) > 60:
                found.setdefault(" ".join(text.split())[:450], f"{module.__name__}.{name}")
    return [(id, text) for text, id in sorted(found.items())][:150]


@pytest.fixture(scope="module")
def collection():
    from st_l0 import SparseEncoder

    model = SparseEncoder.from_pretrained(MODEL, device="cpu")
    ids, texts = zip(*docstrings(), strict=True)
    vectors = model.encode_document(list(texts), convert_to_scipy=True, show_progress_bar=False)
    queries = [text.split(".")[0][:80] for text in texts[::8]]
    return list(ids), vectors, list(texts), queries, model.encode_query(queries, convert_to_scipy=True)


@pytest.fixture(scope="module")
def engines(request, collection, opensearch):
    import urllib.request
    import uuid

    ids, vectors, texts, _, _ = collection
    name = f"test-{uuid.uuid4().hex[:12]}"
    host = opensearch.partition("://")[2]
    served = OpenSearchIndex(f"opensearch+http://{host}/{name}?shards=3", bm25="english")
    cut = vectors.copy()
    cut.data = truncate(cut.data)
    embedded = EmbeddedIndex(bm25=BM25("english", lengths="lucene"))
    served.add(ids, vectors, texts)
    embedded.add(ids, cut, texts)
    yield served, embedded
    remove = urllib.request.Request(f"{opensearch}/{name}*", method="DELETE")
    urllib.request.urlopen(remove, timeout=60).close()


def assert_same(served, embedded, tolerance):
    """The same scores at each rank, and the same documents but for ties."""
    for ours, theirs in zip(served, embedded, strict=True):
        assert len(ours) == len(theirs) > 0
        np.testing.assert_allclose(ours.scores, theirs.scores, rtol=tolerance)
        last = theirs.scores[-1]
        clear = {id for id, score, _ in theirs if score > last + 1e-3}
        assert clear <= set(ours.ids.tolist())


@pytest.mark.parametrize("neural", [True, False])
@pytest.mark.parametrize("k", [10, 100])
def test_vectors_alone(engines, collection, monkeypatch, neural, k):
    served, embedded = engines
    monkeypatch.setattr(served, "_neural", neural)
    queries = collection[4]
    assert_same(served.search(queries, k), embedded.search(queries, k), 1e-6)


@pytest.mark.parametrize("gamma", [0.5, 2.0, 300.0])
def test_vectors_and_words(engines, collection, gamma):
    served, embedded = engines
    texts, queries = collection[3:]
    options = {"k": 20, "texts": texts, "bm25": gamma}
    assert_same(served.search(queries, **options), embedded.search(queries, **options), 1e-6)


def test_words_alone(engines, collection):
    served, embedded = engines
    options = {"k": 20, "texts": collection[3], "bm25": 1.0}
    assert_same(served.search(None, **options), embedded.search(None, **options), 1e-6)


def test_why_documents_have_their_scores(engines, collection):
    served, embedded = engines
    kinds = set()
    for row in (0, 5, 9):
        text, query = collection[3][row], collection[4][row]
        (hits,) = served.search(query, k=3, texts=[text], bm25=2.0)
        for hit in hits:
            ours = served.explain(query, hit.id, text=text, bm25=2.0)
            theirs = embedded.explain(query, hit.id, text=text, bm25=2.0)
            assert ours.keys() == theirs.keys()
            for part in ours:
                assert ours[part] == pytest.approx(theirs[part], rel=1e-5)
            assert sum(one * two for one, two in ours.values()) == pytest.approx(hit.score, rel=1e-5)
            kinds.update(map(type, ours))
    assert kinds == {str, int}  # though a single hit may have only words in common with its query


def test_filtered(engines, collection):
    served, embedded = engines
    ids, queries = collection[0][::3], collection[4]
    assert_same(served.search(queries, 10, ids=ids), embedded.search(queries, 10, ids=ids), 1e-6)
