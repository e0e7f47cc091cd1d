"""What tests of loads share: documents whose vectors follow from their numbers, and what a server holds."""

import json
import urllib.request

import numpy as np
import scipy.sparse as sp

from st_l0.data import Document

VOCABULARY = 500


def documents(count, start=0, *, text=""):
    """Documents ``d0``, ``d1`` …, each with its number as the last word of its text."""
    return [Document(f"d{number}", f"{text}document {number}") for number in range(start, start + count)]


def vector(number):
    """Ten weights of a document, float32 ``(vocabulary,)``, of 9 significant bits, which a server keeps."""
    random = np.random.default_rng(number)
    row = np.zeros(VOCABULARY, np.float32)
    row[random.choice(VOCABULARY, 10, replace=False)] = random.integers(1, 512, 10) / 128
    return row


class Numbered:
    """A model by name only: a text's vector is that of its last word."""

    def __init__(self, before=lambda: None):
        self._before = before

    def encode_document(self, texts, **options):
        self._before()
        return sp.csr_matrix(np.stack([vector(int(text.split()[-1])) for text in texts]))


def ask(url, path, body=None, method=None):
    """What a server answers, from JSON."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url + path, data, {"content-type": "application/json"}, method=method)
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def held(url, name):
    """All documents of an index, id → (text, vector as token → weight), each shown once."""
    ask(url, f"/{name}/_refresh", {})
    found = ask(url, f"/{name}/_search?size=10000&preference=_primary", {"query": {"match_all": {}}})
    assert found["_shards"]["successful"] == found["_shards"]["total"]
    hits = found["hits"]["hits"]
    assert len({hit["_id"] for hit in hits}) == len(hits) == found["hits"]["total"]["value"]
    return {hit["_id"]: (hit["_source"]["text"], hit["_source"]["emb"]) for hit in hits}


def expected(some):
    """The same as it has to be."""
    rows = {one.id: vector(int(one.text.split()[-1])) for one in some}
    return {
        one.id: (one.text, {str(token): float(rows[one.id][token]) for token in np.flatnonzero(rows[one.id])})
        for one in some
    }
