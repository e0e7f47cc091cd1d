"""How much words count: pseudo-queries from the documents, and the weight that they give."""

import numpy as np
import pytest
import scipy.sparse as sp

from st_l0.data import Document
from st_l0.errors import InputError
from st_l0.index import EmbeddedIndex
from st_l0.index.calibration import PseudoQueries, PseudoQuery, first_sentence, weigh_by_spread


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("Rain on glass. It falls.", "Rain on glass."),
        ("  A title\nand a text.", "A title"),
        ("no end", "no end"),
        ("Is it? Yes.", "Is it?"),
        ("Version 3.1 is out! Get it.", "Version 3.1 is out!"),
        ("雨が降る。 傘", "雨が降る。"),
        ("w " * 50, " ".join("w" * 32)),
        ("", ""),
        (" \n ", ""),
    ],
)
def test_first_sentence(text, sentence):
    assert first_sentence(text) == sentence


def test_a_draw_gives_each_document_the_same_chance():
    documents = [Document(number, f"Text {number}. More.") for number in range(20)] + [Document(99, " ")]
    counts = np.zeros(20)
    for seed in range(600):
        queries = PseudoQueries(5, seed)
        assert list(queries.watch(documents)) == documents
        assert len(queries) == 5 and len({query.id for query in queries.drawn}) == 5
        assert all(query.text == f"Text {query.id}." for query in queries.drawn)
        counts[[query.id for query in queries.drawn]] += 1
    assert abs(counts - 150).max() < 4.5 * np.sqrt(600 * 0.25 * 0.75)
    one, other = PseudoQueries(5, 3), PseudoQueries(5, 3)
    for queries in (one, other):
        list(queries.watch(documents))
    assert one.drawn == other.drawn


def test_a_title_is_the_query_before_the_first_sentence():
    queries = PseudoQueries()
    documents = [
        Document("a", "On rain  It falls. It is wet.", "On rain "),
        Document("b", "It falls. It is wet."),
        Document("c", "t " * 40, "t " * 40),
    ]
    assert list(queries.watch(documents)) == documents
    assert queries.drawn == [("a", "On rain"), ("b", "It falls."), ("c", " ".join("t" * 32))]


class Given:
    """Queries that were encoded before."""

    def __init__(self, vectors):
        self.vectors = sp.csr_matrix(np.array(vectors, dtype=np.float32))

    def encode_query(self, inputs, /, *, convert_to_scipy):
        return self.vectors[: len(inputs)]


def test_the_weight_halves_the_model_s_spread():
    index = EmbeddedIndex(bm25="english")
    # By its vector the query finds b 5, c 2 and d 1; by its word b, which is shorter, before c.
    index.add(
        ["a", "b", "c", "d"], np.array([[9.0], [5.0], [2.0], [1.0]]), ["rain", "rain", "rain snow", "sun"]
    )
    words = index.search(None, texts=["rain"], bm25=1.0)[0].as_run()
    spread = words["b"] - words["c"]  # "a" made the query, and does not count
    weight = weigh_by_spread(index, Given([[1.0]]), [PseudoQuery("a", "rain")])
    assert weight == float(f"{0.5 * (5 - 1) / spread:.2g}")


def test_without_two_documents_there_is_no_spread():
    index = EmbeddedIndex(bm25="english")
    index.add(["a", "b"], np.array([[1.0], [2.0]]), ["rain", "rain"])
    for queries in ([PseudoQuery("a", "rain")], []):
        with pytest.raises(InputError, match=f"none of {len(queries)} titles .*: give a number"):
            weigh_by_spread(index, Given([[1.0]]), queries)
    bare = EmbeddedIndex()
    bare.add(["a", "b"], np.array([[1.0], [2.0]]), ["rain", "rain"])
    with pytest.raises(InputError, match="no words"):
        weigh_by_spread(bare, Given([[1.0]]), [PseudoQuery("a", "rain")])
