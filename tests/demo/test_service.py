"""What the demo answers, against the index and against sums by hand."""

import math

import numpy as np
import pytest
import scipy.sparse as sp
from tokenizers import Tokenizer, models, pre_tokenizers

from st_l0.demo.service import MOST_HITS, Demo, Question
from st_l0.encoder.queries import QueryEncoder
from st_l0.encoder.query_tokenizer import QueryTokenizer
from st_l0.errors import InputError
from st_l0.index import EmbeddedIndex

VOCABULARY = ["[UNK]", "red", "fish", "tree", "sea"]
IDF = [0.0, 1.0, 2.0, 4.0, 3.0]
# Document 10 says "red fish" and expands to "sea".
VECTORS = sp.csr_matrix([[0, 1, 2, 0, 0.5], [0, 0, 0, 3, 0], [0, 2, 0, 1, 0]], dtype=np.float32)
TEXTS = ["A red fish.", "tree", None]


@pytest.fixture
def encoder():
    backend = Tokenizer(models.WordLevel({word: i for i, word in enumerate(VOCABULARY)}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    return QueryEncoder(QueryTokenizer(backend, [0]), np.array(IDF, np.float32))


@pytest.fixture
def demo(encoder):
    index = EmbeddedIndex()
    index.add([10, 11, 12], VECTORS, TEXTS)
    return Demo(encoder, "model", index, name="toy")


def test_hits_and_what_they_are_made_of(demo):
    found = demo.search(Question("red fish"), 5)
    assert [(hit["id"], hit["score"], hit["text"]) for hit in found["hits"]] == [
        (10, 1 * 1 + 2 * 2, "A red fish."),
        (12, 1 * 2, None),
    ]
    assert found["hits"][0]["parts"] == [
        {"kind": "token", "name": "fish", "query": 2, "document": 2, "score": 4},
        {"kind": "token", "name": "red", "query": 1, "document": 1, "score": 1},
    ]
    assert found["hits"][0]["rank"] == 1 and not found["hits"][0]["cut"]
    # red is in two of three documents, fish in one.
    assert math.isclose(found["flops"], 2 / 3 + 1 / 3)
    assert [(one["token"], one["documents"], one["weight"]) for one in found["tokens"]] == [
        ("fish", 1, 2),
        ("red", 2, 1),
    ]
    assert demo.search(Question("red fish"), 5, explain=False)["hits"][0]["parts"] is None


def test_pruning_leaves_light_tokens_out(demo):
    found = demo.search(Question("red fish", prune=0.6))
    assert [hit["id"] for hit in found["hits"]] == [10] and found["hits"][0]["score"] == 4
    assert found["active_dims"] == 1 and math.isclose(found["flops"], 1 / 3)
    assert [one["kept"] for one in found["tokens"]] == [True, False]


def test_a_document_in_its_text_and_beyond(demo):
    found = demo.explain(Question("red"), "10")  # as an address has it
    assert found["id"] == 10 and found["score"] == 1 and found["active_dims"] == 3
    assert "".join(piece["text"] for piece in found["pieces"]) == TEXTS[0]
    assert [(one["text"], one["weight"]) for one in found["pieces"] if one["weight"]] == [
        ("red", 1),
        ("fish", 2),
    ]
    assert [(one["token"], one["in_text"]) for one in found["tokens"]] == [
        ("fish", True),
        ("red", True),
        ("sea", False),
    ]
    assert demo.explain(Question("fish"), 11)["score"] == 0  # nothing in common
    assert demo.explain(Question(""), 12)["pieces"] is None  # no text is stored


def test_only_some_documents(demo):
    ids = [hit["id"] for hit in demo.search(Question("red tree"), ids=["12", "11"])["hits"]]
    assert ids == [11, 12]
    with pytest.raises(InputError, match="no fields"):
        demo.search(Question("red"), filter={"lang": ["en"]})


def test_words_beside_and_alone(encoder):
    index = EmbeddedIndex(bm25="english")
    index.add(["a", "b"], VECTORS[:2], ["A red fish.", "tree"])
    index.bm25_weight = 3.0
    demo = Demo(encoder, "model", index, name="toy")
    hit = demo.search(Question("red", bm25="auto"))["hits"][0]
    # One of two documents has the word: ln(1 + 1.5 / 1.5); it is 2 words long, on average they are 1.5.
    word = 3 * math.log(2) / (1 + 1.2 * (0.25 + 0.75 * 2 / 1.5))
    assert math.isclose(hit["score"], 1 + word, rel_tol=1e-6)
    assert {part["kind"]: round(part["score"], 6) for part in hit["parts"]} == {
        "token": 1.0,
        "word": round(word, 6),
    }
    alone = demo.search(Question("red", bm25=3.0, model=False))["hits"]
    assert [part["kind"] for part in alone[0]["parts"]] == ["word"]
    assert math.isclose(alone[0]["score"], word, rel_tol=1e-6)
    assert math.isclose(demo.explain(Question("red", bm25=3.0), "a")["score"], 1 + word, rel_tol=1e-6)


def test_pieces_of_a_tokenizer_of_bytes(encoder):
    """Two tokens of one character: the text stays whole."""
    backend = Tokenizer(
        models.BPE({letter: i for i, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}, [])
    )
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    demo = Demo(QueryEncoder(QueryTokenizer(backend, []), np.ones(256, np.float32)), "model", name="bytes")
    text = "Naïve 🐟 fish\n"
    pieces = demo._pieces(text, {})
    assert "".join(piece["text"] for piece in pieces) == text
    assert all(piece["text"] for piece in pieces)


@pytest.mark.parametrize(
    ("question", "options", "message"),
    [
        (Question("red" * 1000), {}, "3,000 characters"),
        (Question("red \ud800"), {}, "surrogate"),
        (Question("red"), {"k": 0}, "k must be from 1"),
        (Question("red"), {"k": MOST_HITS + 1}, "k must be from 1"),
        (Question("red", prune=1.5), {}, "prune"),
        (Question("red", prune=math.nan), {}, "prune"),
        (Question("red", bm25=-1.0), {}, "weight of BM25"),
        (Question("red", bm25=2.0), {}, "no words"),
        (Question("red", model=False), {}, "neither"),
        (Question("red"), {"ids": ["x"]}, "'x'"),
        (Question("red"), {"ids": list(range(1001))}, "1001 ids"),
    ],
)
def test_refused(demo, question, options, message):
    with pytest.raises(InputError, match=message):
        demo.search(question, **options)


def test_nothing_asked_and_nothing_known(demo):
    assert demo.search(Question("  "))["hits"] == []
    assert demo.search(Question("zebra"))["hits"] == []
    for id in (13, "13", "9" * 5000):
        with pytest.raises(InputError, match="is not in the index"):
            demo.explain(Question("red"), id)


def test_without_an_index(encoder):
    demo = Demo(encoder, "model", name="alone")
    assert demo.encode_query(Question("red"))["flops"] is None
    assert demo.about()["documents"] is None
    with pytest.raises(InputError, match="no index"):
        demo.search(Question("red"))
