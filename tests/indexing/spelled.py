"""Texts that spell their vectors, so that a test says which weights there are."""

import numpy as np
import scipy.sparse as sp

from st_l0.data import Document
from st_l0.indexing.encode import encode_corpus

VOCABULARY = 40


class Spelled:
    """The vector of ``"3:0.5 7:2"`` is .5 in dimension 3 and 2 in dimension 7, for documents and queries.

    Args:
        tokens: Token to id; ``t0`` to ``t39`` by default.
        weights: What its fingerprint is.
        size: Of the vocabulary.
    """

    max_seq_length, max_active_dims = 16, None

    def __init__(self, tokens=None, weights="first", size=VOCABULARY):
        self.tokens = {f"t{number}": number for number in range(size)} if tokens is None else tokens
        self.weights, self.size = weights, size
        self.tokenizer = self

    def get_vocab(self):
        return self.tokens

    def fingerprint(self):
        return self.weights

    def has_fingerprint(self, found):
        return found == self.weights

    def get_embedding_dimension(self):
        return self.size

    def encode_document(self, texts, **options):
        rows = np.zeros((len(texts), self.size), np.float32)
        for row, text in zip(rows, texts, strict=True):
            for entry in text.split():
                token, weight = entry.split(":")
                row[int(token)] = float(weight)
        return sp.csr_matrix(rows)

    encode_query = encode_document


def spelled(id, weights):
    """A document or query of these weights, token → weight."""
    return Document(id, " ".join(f"{token}:{weight}" for token, weight in weights.items()))


def drawn(count, active, seed, *, prefix):
    """Documents or queries with random float32 weights."""
    random = np.random.default_rng(seed)
    some = []
    for number in range(count):
        tokens = random.choice(VOCABULARY, active, replace=False).tolist()
        weights = random.gamma(2, 0.8, active).astype(np.float32).tolist()
        some.append(spelled(f"{prefix}{number}", dict(zip(tokens, weights, strict=True))))
    return some


def encoded(documents, folder, model=None, **options):
    """The folder with these documents encoded, a few a shard."""
    options = {"name": "spelled", "shard_size": 16, "progress": False, **options}
    encode_corpus(model or Spelled(), documents, folder, **options)
    return folder


def exact(documents, queries, write=lambda weights: weights):
    """Query → document → score above 0, in float64, of weights as ``write`` changes them."""
    model = Spelled()
    texts = [[one.text for one in some] for some in (queries, documents)]
    asked, held = (write(model.encode_document(some).toarray().astype(np.float64)) for some in texts)
    rows = asked @ held.T
    return {
        query.id: {one.id: score for one, score in zip(documents, row, strict=True) if score > 0}
        for query, row in zip(queries, rows.tolist(), strict=True)
    }
