import gzip
import json
import re
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp

import st_l0.mining
from protocol_index import ProtocolIndex
from st_l0.data import Collection, read_documents, write_collection
from st_l0.errors import InputError
from st_l0.index import EmbeddedIndex, open_index
from st_l0.index.protocol import Hits
from st_l0.indexing.identity import index_metadata
from st_l0.indexing.index import index_corpus
from st_l0.mining import Mined, MiningReport, mine, mine_collection
from tiny_models import WORDS, make_mlm, make_tokenizer, save_model


class TableModel:
    """Query "0" has the vector (1, 0, ...), query "1" (0, 1, ...): a document's weights are its scores."""

    def __init__(self, size):
        self.vectors = np.eye(size, dtype=np.float32)
        self.calls = []

    def encode_query(self, inputs, *, convert_to_scipy):
        assert convert_to_scipy
        self.calls.append(list(inputs))
        return sp.csr_matrix(self.vectors[[int(text) for text in inputs]])


class DenseIndex:
    """Another engine, with nothing but what mining may use; notes what it was asked."""

    def __init__(self, ids, scores, texts=None):
        self.ids, self.scores, self.texts = ids, np.asarray(scores, np.float32), texts
        self.searches = []
        self.asked = 0

    def missing(self, ids):
        self.asked += 1
        return [id for id in ids if id not in self.ids]

    def search(self, queries, k, *, ids=None):
        self.searches.append((queries.shape[0], k, None if ids is None else list(ids)))
        return [self._search(row, k, None if ids is None else set(ids)) for row in queries.toarray()]

    def _search(self, query, k, allowed):
        scores = self.scores @ query
        best = [row for row in np.argsort(-scores, kind="stable") if scores[row] > 0]
        best = [row for row in best if allowed is None or self.ids[row] in allowed][:k]
        texts = None if self.texts is None else [self.texts[row] for row in best]
        return Hits(np.array([self.ids[row] for row in best], dtype=object), scores[best], texts)


def _index(documents, texts=None):
    """An index of documents that are given as id → score, or scores of several queries."""
    vectors = np.array([np.atleast_1d(scores) for scores in documents.values()], dtype=np.float32)
    index = EmbeddedIndex()
    index.add(list(documents), vectors, None if texts is None else [texts.get(id) for id in documents])
    return index


def _mine(index, positives, **options):
    if not isinstance(positives, dict):
        positives = {"q": positives}
    model = TableModel(index.vocabulary_size)
    queries = {query: str(number) for number, query in enumerate(positives)}
    return list(mine(model, index, queries, positives, progress=False, **options))


def _negatives(index, positive, **options):
    """The negatives of one query's one positive; None if the pair was dropped."""
    mined = _mine(index, [positive], **options)
    assert [row[:2] for row in mined] in ([], [("q", positive)])
    return "".join(mined[0].negative_ids) if mined else None


# Scores 9 to 1, and one that no query finds.
LADDER = {**{name: 9 - place for place, name in enumerate("abcdefghi")}, "z": 0}


@pytest.mark.parametrize(
    ("positive", "number", "depth", "expected"),
    [
        ("a", 1, (1, 1), "b"),
        ("a", 3, (1, 100), "bcd"),
        ("i", 3, (1, 3), "abc"),
        ("c", 3, (1, 3), "abd"),  # the positive has no rank
        ("c", 2, (2, 3), "bd"),
        ("c", 2, (3, 4), "de"),
        ("e", 1, (8, 8), "i"),
        ("e", 8, (1, 100), "abcdfghi"),
        ("e", 2, (7, 8), "hi"),
        ("e", 2, (8, 9), None),  # only 8 documents are ranked
        ("e", 9, (1, 100), None),
        ("z", 2, (1, 100), "ab"),  # a positive that shares nothing with the query
    ],
)
def test_depth_and_number(positive, number, depth, expected):
    assert _negatives(_index(LADDER), positive, number=number, depth=depth) == expected


@pytest.mark.parametrize(
    ("positive", "filter", "expected"),
    [
        ("d", {"margin": 0}, "ef"),  # 6 at most
        ("d", {"margin": 1}, "ef"),  # 5 at most: reached
        ("d", {"margin": 1.001}, "fg"),
        ("d", {"margin": 3}, "gh"),
        ("d", {"margin": 4.5}, None),
        ("d", {"margin": 6}, None),
        ("d", {"max_ratio": 1}, "ef"),
        ("d", {"max_ratio": 0.84}, "ef"),  # 5.04 at most
        ("d", {"max_ratio": 0.83}, "fg"),  # 4.98 at most
        ("d", {"max_ratio": 0.5}, "gh"),  # 3 at most: reached
        ("d", {"max_ratio": 0.3}, None),
        ("z", {"margin": 0}, None),  # 0 at most
        ("z", {"max_ratio": 1}, None),
    ],
)
def test_margin_and_ratio_at_their_borders(positive, filter, expected):
    assert _negatives(_index(LADDER), positive, number=2, **filter) == expected


def test_what_a_filter_refuses_keeps_its_rank():
    assert _negatives(_index(LADDER), "d", number=2, depth=(1, 5), margin=1) == "ef"  # a, b, c, e, f
    assert _negatives(_index(LADDER), "d", number=2, depth=(1, 4), margin=1) is None


def test_equal_scores_pass_a_filter_of_zero_in_index_order():
    index = _index({"m": 4, "c": 5, "b": 5, "p": 5, "a": 5, "n": 4})
    for filter in ({"margin": 0}, {"max_ratio": 1.0}, {}):
        assert _negatives(index, "p", number=5, **filter) == "cbamn"
    # "a" comes behind the two hits that are looked at, and scores as much as they do.
    assert _negatives(index, "a", number=2, depth=(1, 2), margin=0) == "cb"


def test_a_positive_beyond_the_search_is_scored_exactly():
    # The search returns 3 documents: a, b, c. The score of "i" is 1, not that of "c".
    assert _negatives(_index(LADDER), "i", number=2, depth=(1, 2), margin=0) is None
    # "b" and "c" score as much as "p", which is behind them in the index.
    index = _index({"a": 7, "b": 5, "c": 5, "d": 5, "p": 5, "e": 4})
    assert _negatives(index, "p", number=2, depth=(1, 3), margin=0) == "bc"
    assert _negatives(index, "p", number=2, depth=(1, 3), max_ratio=1) == "bc"


def test_each_positive_has_a_row_and_a_score_of_its_own_and_is_no_negative():
    index = _index(LADDER)
    assert _mine(index, ["g", "b"], number=2) == [
        Mined("q", "g", ("a", "c")), Mined("q", "b", ("a", "c")),
    ]  # fmt: skip
    assert _mine(index, ["g", "b", "g"], number=2, depth=(2, 9), margin=1) == [
        Mined("q", "b", ("c", "d")),  # "g" scores 3, so that 2 and 1 are left
        Mined("q", "g", ("h", "i")),
    ][::-1]  # fmt: skip
    assert _mine(index, ["b", "h"], number=2, max_ratio=0.9) == [Mined("q", "b", ("c", "d"))]


def test_queries_keep_their_order_and_their_own_positives():
    index = _index({"a": (3, 1), "b": (2, 2), "c": (1, 3)})
    positives = {"q2": ["a"], "q1": ["c", "b"]}
    assert _mine(index, positives, number=1) == [
        ("q2", "a", ("b",)), ("q1", "c", ("a",)), ("q1", "b", ("a",)),
    ]  # fmt: skip


def test_queries_without_positives_are_not_encoded():
    model, index = TableModel(1), _index(LADDER)
    queries = {"no": "0", "none": "0", "q": "0"}
    rows = list(mine(model, index, queries, {"none": [], "q": ["a"]}, number=1, progress=False))
    assert rows == [("q", "a", ("b",))]
    assert model.calls == [["0"]]
    assert list(mine(model, index, queries, {}, progress=False)) == []


def test_copies_of_positives_are_no_negatives():
    texts = {"a": "same", "b": "b", "c": "same", "d": "Same", "e": "same ", "f": "f", "z": "b"}
    index = _index(LADDER, texts)
    assert _negatives(index, "a", number=3) == "bde"
    assert _negatives(index, "c", number=3) == "bde"
    # Of all positives of the query; "b" is a copy of "z", which no search finds, so nobody knows its text.
    rows = _mine(index, ["f", "b", "a"], number=2)
    assert [row.negative_ids for row in rows] == [("d", "e")] * 3
    # A copy has a rank all the same.
    assert _negatives(index, "a", number=2, depth=(1, 3)) == "bd"
    assert _negatives(index, "a", number=2, depth=(1, 2)) is None


def test_what_the_encoder_sees_as_the_same_text_is_a_copy(tiny_encoder):
    model, index = tiny_encoder(max_seq_length=6), EmbeddedIndex()
    texts = {
        "a": "the cat and the dog", "b": " The  CAT and\nthe dog", "c": "the cat and the dog in the tree",
        "d": "the dog and the cat", "e": "a cat",
    }  # fmt: skip
    index.add(list(texts), model.encode_document(list(texts.values())), list(texts.values()))
    (row,) = mine(model, index, {"q": "cat dog"}, {"q": ["a"]}, number=2, progress=False)
    # The encoder cuts after 6 tokens, two of which are special, so that "c" is the same too.
    assert sorted(row.negative_ids) == ["d", "e"]


def test_copies_of_a_positive_beyond_the_search():
    index = _index(LADDER, {"b": "same", "h": "same"})
    assert _negatives(index, "h", number=2, depth=(1, 4)) == "ac"


def test_a_query_that_is_a_document_is_no_negative():
    texts = {"a": "0", "5": "0 and more", "7": "else", "c": "c", "d": "d"}
    scores = {"a": 9, "5": 8, "7": 7, "c": 6, "d": 5}
    index = _index(scores, texts)

    def negatives(query, positive, **options):
        options = {"number": 2, "progress": False, **options}
        rows = mine(TableModel(1), index, {query: "0"}, {query: [positive]}, **options)
        return ["".join(row.negative_ids) for row in rows]

    assert negatives("q", "c") == ["a5"]
    assert negatives("a", "c") == ["57"]
    assert negatives("a", "c", depth=(1, 2)) == ["57"]  # it has no rank
    assert negatives("a", "a") == ["57"]  # its own positive
    assert negatives("5", "c") == ["a7"]  # numbers may be equal by chance, but this one holds the query
    assert negatives("7", "c") == ["a5"]
    assert negatives("7", "a", number=3) == ["57c"]
    index = _index(scores)  # nobody knows the texts
    assert negatives("7", "a", number=2) == ["5c"]


def test_words_count_in_the_scores():
    texts = {"a": "rain", "b": "snow", "c": "rain falls on snow", "d": "sun"}
    index = EmbeddedIndex(bm25="english")
    index.add(list(texts), np.array([[3.0], [2.9], [2.8], [2.7]]), list(texts.values()))

    model = TableModel(1)
    model.encode_query = lambda inputs, *, convert_to_scipy: sp.csr_matrix([[1.0]] * len(inputs))

    def negatives(**options):
        rows = mine(model, index, {"q": "sun"}, {"q": ["a"]}, number=3, progress=False, **options)
        return ["".join(row.negative_ids) for row in rows]

    assert negatives() == negatives(bm25=0) == ["bcd"]
    assert negatives(bm25=2) == ["dbc"]
    with pytest.raises(InputError, match="no weight stored"):
        negatives(bm25="auto")
    index.bm25_weight = 2
    assert negatives(bm25="auto") == ["dbc"]
    # The positive scores 3, "d" more than that with its word.
    assert negatives(bm25=2, max_ratio=1.0) == []
    with pytest.raises(InputError, match="weight of BM25"):
        negatives(bm25=-1)


@pytest.mark.parametrize("bm25", [1.5, "auto"])
def test_a_collection_is_mined_with_words(bm25, beir_folder, tiny_encoder, tmp_path):
    model = tiny_encoder()
    options = {"number": 2, "depth": (1, 20), "progress": False}
    mine_collection(model, beir_folder, tmp_path / "out", bm25=bm25, **options)
    record = json.loads((tmp_path / "out" / "mining.json").read_text())
    index = open_index(tmp_path / "out" / "index")
    assert index.bm25.language == "english"
    assert record["bm25"] == (1.5 if bm25 == 1.5 else index.bm25_weight) and record["bm25"] > 0
    mine_collection(model, beir_folder, tmp_path / "plain", **options)
    with pytest.raises(InputError, match="words"):
        mine_collection(model, beir_folder, tmp_path / "plain", bm25=bm25, **options)


def test_documents_without_a_text_are_no_copies():
    assert _negatives(_index(LADDER, {"i": "i"}), "a", number=3) == "bcd"
    assert _negatives(_index(LADDER), "a", number=3) == "bcd"


@pytest.mark.parametrize(
    ("text", "message"), [(None, "is None"), (3, r"is 3 \(int\)"), ("\ud800", "holds a lone")]
)
def test_a_query_without_a_text_is_refused_by_its_id(text, message):
    with pytest.raises(InputError, match=f"^query 'y' {message}"):
        mine(TableModel(2), _index(LADDER), {"x": "0", "y": text}, {"x": ["a"], "y": ["b"]}, progress=False)


def test_empty_texts_are_copies_too():
    assert _negatives(_index(LADDER, {"a": "", "c": ""}), "a", number=3) == "bde"


def test_one_search_a_chunk_and_a_second_one_only_for_positives_that_it_missed():
    scores = np.array([[9, 1, 5], [8, 2, 6], [7, 3, 7], [6, 4, 8], [5, 5, 9]])
    index = DenseIndex(list("abcde"), scores)
    queries = {"x": "0", "y": "1", "z": "2"}
    options = {"number": 1, "depth": (1, 2), "progress": False}
    # The searches for 2 + 2 documents find "b", "e" and "d", but not "a" for "y".
    found = list(mine(TableModel(3), index, queries, {"x": ["b"], "y": ["e", "a"], "z": ["d"]}, **options))
    assert found == [("x", "b", ("a",)), ("y", "e", ("d",)), ("y", "a", ("d",)), ("z", "d", ("e",))]
    assert index.searches == [(3, 4, None), (1, 1, ["a"])]
    assert index.asked == 1  # whether the positives are there: all at once
    index.searches.clear()
    list(mine(TableModel(3), index, queries, {"x": ["b"], "z": ["d"]}, chunk_size=1, **options))
    assert index.searches == [(1, 3, None)] * 2


def _brute_force(scores, ids, texts, positives, number, depth, margin, max_ratio):
    """The definition, over a dense table `(queries, documents)`, document by document."""
    rows = []
    for row, (query, own) in zip(scores, positives.items(), strict=True):
        own_texts = {texts[ids.index(id)] for id in own}
        order = sorted(range(len(ids)), key=lambda place: (-row[place], place))
        ranked = [place for place in order if row[place] > 0 and ids[place] not in own]
        for positive in own:
            score = max(row[ids.index(positive)], 0)
            negatives = []
            for rank, place in enumerate(ranked, 1):
                allowed = depth[0] <= rank <= depth[1] and texts[place] not in own_texts
                if margin is not None:
                    allowed &= row[place] <= score - margin
                if max_ratio is not None:
                    allowed &= row[place] <= score * max_ratio
                if allowed:
                    negatives.append(ids[place])
            if len(negatives) >= number:
                rows.append((query, positive, tuple(negatives[:number])))
    return rows


@pytest.fixture(scope="module")
def random_case():
    """Small integers as weights: exact in float32, and with many equal scores."""
    rng = np.random.default_rng(3)
    documents, queries, size = 300, 150, 12
    vectors = rng.integers(1, 5, (documents, size)) * (rng.random((documents, size)) < 0.4)
    vectors[100:120] = vectors[:20]
    texts = [f"text {number % 100 if 100 <= number < 120 else number}" for number in range(documents)]
    model = TableModel(size)
    model.vectors = (rng.integers(0, 4, (queries, size)) * (rng.random((queries, size)) < 0.5)).astype("f4")
    ids = [f"d{number}" for number in rng.permutation(documents)]
    positives = {
        f"q{number}": [ids[place] for place in rng.choice(documents, rng.integers(1, 4), replace=False)]
        for number in range(queries)
    }
    best = np.argsort(-model.vectors @ vectors.T, axis=1, kind="stable")
    for number in range(0, queries, 2):  # some positives that the search finds
        positives[f"q{number}"] = list(
            dict.fromkeys([ids[best[number, number % 9]], *positives[f"q{number}"]])
        )
    index = EmbeddedIndex()
    for start in range(0, documents, 90):  # several segments
        part = slice(start, start + 90)
        index.add(ids[part], vectors[part], texts[part])
    return model, index, vectors, ids, texts, positives


@pytest.mark.parametrize("filter", [{}, {"margin": 0}, {"margin": 3}, {"max_ratio": 0.75}, {"max_ratio": 1}])
@pytest.mark.parametrize(("number", "depth"), [(1, (1, 1)), (4, (1, 20)), (8, (5, 60)), (30, (1, 1000))])
def test_equals_brute_force(random_case, number, depth, filter):
    model, index, vectors, ids, texts, positives = random_case
    queries = {f"q{row}": str(row) for row in range(len(positives))}
    expected = _brute_force(
        model.vectors @ vectors.T, ids, texts, positives, number, depth,
        filter.get("margin"), filter.get("max_ratio"),
    )  # fmt: skip
    pairs = sum(map(len, positives.values()))
    if depth[1] > 1:
        assert 15 < len(expected) < pairs
    another = DenseIndex(ids, vectors, texts)
    for engine, chunk_size in ((index, 1024), (index, 7), (another, 100)):
        options = {"number": number, "depth": depth, **filter, "chunk_size": chunk_size, "progress": False}
        assert list(mine(model, engine, queries, positives, **options)) == expected
    if depth[1] < 100:  # of the first 100 queries, more than 64 have a positive that the search did not reach
        assert len([search for search in another.searches if search[2]]) > 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"depth": (0, 10)}, "depth is 0 to 10; give a first rank from 1"),
        ({"depth": (5, 4)}, "depth is 5 to 4; give a first rank from 1 and a last one not below"),
        ({"number": 0}, "number is 0; depth 1 to 100 allows 1 to 100"),
        ({"number": 3, "depth": (9, 10)}, "number is 3; depth 9 to 10 allows 1 to 2"),
        ({"margin": -0.5}, "margin is -0.5; give 0 or more"),
        ({"margin": float("nan")}, "margin is nan; give 0 or more"),
        ({"max_ratio": 0}, "max_ratio is 0; give more than 0 and at most 1"),
        ({"max_ratio": 1.01}, "max_ratio is 1.01; give more than 0 and at most 1"),
        ({"max_ratio": float("nan")}, "max_ratio is nan; give"),
        ({"max_ratio": 0.9, "margin": 0}, "both margin and max_ratio were given"),
        ({"chunk_size": 0}, "chunk_size is 0; give at least 1"),
        ({"positives": {"q": ["a", "x"]}}, "document 'x', a positive of query 'q', is not in the index"),
        ({"positives": {"r": ["a"]}}, "query 'r' has positives but no text"),
    ],
)
def test_unusable_input_is_refused_by_the_call_itself(options, message):
    options = {"positives": {"q": ["a"]}, **options}
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        mine(TableModel(1), _index(LADDER), {"q": "0"}, **options)
    assert "\n" not in str(caught.value)


def test_no_bar_where_there_is_no_terminal(capfd):
    list(mine(TableModel(1), _index(LADDER), {"q": "0"}, {"q": ["a"]}, number=1))
    assert capfd.readouterr() == ("", "")


# From a folder or a file to a training file, with a real (tiny) model.


def _texts(count, length, seed):
    rng = np.random.default_rng(seed)
    texts = (" ".join(rng.choice(WORDS, length)) for _ in range(10 * count))
    return list(dict.fromkeys(texts))[:count]


def _write(path, lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return path


def _read(path):
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]


def _bytes(folder):
    return {name: (folder / name).read_bytes() for name in ("train.jsonl", "mining.json")}


@pytest.fixture(scope="session")
def beir_folder(tmp_path_factory):
    """60 documents, of which the last 5 are copies of the first; 12 queries, of which 10 have positives."""
    folder = tmp_path_factory.mktemp("beir") / "words"
    corpus = _texts(55, 9, seed=1)
    corpus += corpus[:5]
    documents = [
        {"_id": f"doc{n}", "title": text.split()[0], "text": text.split(" ", 1)[1]}
        for n, text in enumerate(corpus)
    ]
    _write(folder / "corpus.jsonl", map(json.dumps, documents))
    queries = [{"_id": f"query{n}", "text": text} for n, text in enumerate(_texts(12, 3, seed=2))]
    _write(folder / "queries.jsonl", map(json.dumps, queries))
    judgements = [(f"query{n}", f"doc{n}", 1) for n in range(10)]  # copied: 0 to 4
    judgements += [("query0", "doc30", 2), ("query3", "doc31", 1), ("query4", "doc57", 1)]
    judgements += [("query5", "doc6", 0), ("query6", "doc7", -1)]  # not relevant, so they may be negatives
    judgements += [("query7", "lost", 1), ("query10", "lost", 1), ("query11", "doc3", 0)]
    lines = ["query-id\tcorpus-id\tscore", *("\t".join(map(str, line)) for line in judgements)]
    _write(folder / "qrels" / "train.tsv", lines)
    return folder


POSITIVES = {f"query{n}": [f"doc{n}"] for n in range(10)}
POSITIVES["query0"].append("doc30")
POSITIVES["query3"].append("doc31")
POSITIVES["query4"].append("doc57")


def _expected(model, corpus, queries, positives, number, depth, margin=None, max_ratio=None):
    documents = model.encode_document(list(corpus.values()), convert_to_scipy=True).toarray()
    texts = [queries[query] for query in positives]
    vectors = model.encode_query(texts, convert_to_scipy=True).toarray()
    scores = vectors.astype(np.float64) @ documents.T.astype(np.float64)
    rows = _brute_force(
        scores, list(corpus), list(corpus.values()), positives, number, depth, margin, max_ratio
    )
    return [dict(zip(Mined._fields, (*row[:2], list(row[2])), strict=True)) for row in rows]


@pytest.mark.parametrize(
    "options",
    [
        {"number": 4, "depth": (1, 20)},
        {"number": 3, "depth": (5, 40), "max_ratio": 0.9},
        {"number": 3, "depth": (1, 50), "margin": 1.0},
    ],
)
def test_a_folder_in_beir_layout(options, beir_folder, tiny_encoder, tmp_path, caplog):
    model = tiny_encoder()
    report = mine_collection(model, beir_folder, tmp_path / "out", progress=False, **options)
    rows = _read(tmp_path / "out" / "train.jsonl")
    corpus = {document.id: document.text for document in read_documents(beir_folder)}
    queries = {record["_id"]: record["text"] for record in _read(beir_folder / "queries.jsonl")}
    assert rows == _expected(model, corpus, queries, POSITIVES, **options)
    assert report == MiningReport(queries=10, pairs=13, rows=len(rows), dropped=13 - len(rows), missing=2)
    assert len(rows) == 13 if len(options) == 2 else 0 < len(rows) < 13
    record = json.loads((tmp_path / "out" / "mining.json").read_text())
    assert record == {
        "model": None, "fingerprint": model.fingerprint(), "data": str(beir_folder), "split": "train",
        "index": str(tmp_path / "out" / "index"), "margin": None, "max_ratio": None, "bm25": 0.0, **options,
        "depth": list(options["depth"]), "queries": 10, "pairs": 13, "rows": len(rows),
        "dropped": 13 - len(rows), "missing": 2, "own": 0,
    }  # fmt: skip
    assert "1 of" in caplog.text  # read_collection's own word on documents that are missing
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"train.jsonl", "mining.json", "index"}


def test_queries_that_are_documents_are_counted(tiny_encoder, tmp_path):
    texts = _texts(8, 6, seed=9)
    corpus = {f"d{n}": text for n, text in enumerate(texts)}
    queries = {"d0": texts[0], "q1": texts[1]}  # the second is a document too, of another id
    write_collection(Collection("own", corpus, queries, {"d0": {"d2": 1}, "q1": {"d3": 1}}), tmp_path / "in")
    report = mine_collection(
        tiny_encoder(), tmp_path / "in", tmp_path / "out", split="test", number=2, progress=False
    )
    assert (report.own, report.queries) == (1, 2)
    rows = {row["query_id"]: row["negative_ids"] for row in _read(tmp_path / "out" / "train.jsonl")}
    assert "d0" not in rows["d0"]


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz"])
def test_a_file_of_pairs(suffix, tiny_encoder, tmp_path):
    documents, questions = _texts(20, 9, seed=4), _texts(12, 3, seed=5)
    pairs = [(questions[n % 12], documents[n]) for n in range(20)]
    pairs += [(questions[0], documents[5]), (questions[3], documents[3])]  # the last one is there already
    lines = "".join(json.dumps({"query": q, "positive": d, "negative": "x"}) + "\n" for q, d in pairs)
    data = tmp_path / f"pairs{suffix}"
    data.write_bytes(gzip.compress(lines.encode()) if suffix.endswith("gz") else lines.encode())
    model, out = tiny_encoder(), tmp_path / "out"
    report = mine_collection(model, data, out, number=3, depth=(1, 12), progress=False)

    assert report == MiningReport(queries=12, pairs=21, rows=21, dropped=0, missing=0)
    assert _read(out / "corpus.jsonl") == [
        {"_id": f"d{n}", "title": "", "text": text} for n, text in enumerate(documents)
    ]
    assert _read(out / "queries.jsonl") == [
        {"_id": f"q{n}", "title": "", "text": text} for n, text in enumerate(questions)
    ]
    positives = {f"q{n}": [f"d{n}"] + ([f"d{n + 12}"] if n < 8 else []) for n in range(12)}
    positives["q0"].append("d5")
    corpus = {f"d{n}": text for n, text in enumerate(documents)}
    queries = {f"q{n}": text for n, text in enumerate(questions)}
    assert _read(out / "train.jsonl") == _expected(model, corpus, queries, positives, 3, (1, 12))
    assert json.loads((out / "mining.json").read_text())["split"] is None
    before = {path: path.read_bytes() for path in out.glob("*.json*")}
    assert mine_collection(model, data, out, number=3, depth=(1, 12), progress=False) == report
    assert {path: path.read_bytes() for path in out.glob("*.json*")} == before
    assert len(before) == 4


def _count_documents(model, monkeypatch, fails_at=None):
    """How many documents each call of the model encodes; one of the calls may be interrupted."""
    encode, calls = model.encode_document, []

    def counted(texts, **options):
        if len(calls) == fails_at:
            raise KeyboardInterrupt
        calls.append(len(texts))
        return encode(texts, **options)

    monkeypatch.setattr(model, "encode_document", counted)
    return calls


def test_other_settings_encode_nothing_again(beir_folder, tiny_encoder, tmp_path, monkeypatch):
    model = tiny_encoder()
    calls = _count_documents(model, monkeypatch)
    mine_collection(model, beir_folder, tmp_path, number=2, progress=False)
    before = _bytes(tmp_path)
    mine_collection(model, beir_folder, tmp_path, number=3, progress=False)
    assert {len(row["negative_ids"]) for row in _read(tmp_path / "train.jsonl")} == {3}
    mine_collection(model, beir_folder, tmp_path, number=2, progress=False)
    assert _bytes(tmp_path) == before
    assert calls == [60]


def test_interrupted_and_called_again(beir_folder, tiny_encoder, tmp_path, monkeypatch):
    monkeypatch.setattr(st_l0.mining, "index_corpus", partial(index_corpus, chunk_size=25))
    once, whole = tiny_encoder(), tmp_path / "once"
    mine_collection(once, beir_folder, whole, number=2, progress=False)

    model, out = tiny_encoder(), tmp_path / "twice"
    calls = _count_documents(model, monkeypatch, fails_at=1)
    with pytest.raises(KeyboardInterrupt):
        mine_collection(model, beir_folder, out, number=2, progress=False)
    assert {path.name for path in out.iterdir()} == {"index"}
    model = tiny_encoder()
    calls = _count_documents(model, monkeypatch)
    mine_collection(model, beir_folder, out, number=2, progress=False)
    assert calls == [25, 10]
    assert (out / "train.jsonl").read_bytes() == (whole / "train.jsonl").read_bytes()


def test_a_model_by_its_folder(beir_folder, tiny_encoder, tmp_path):
    folder = save_model(tiny_encoder(), tmp_path / "model")
    mine_collection(tiny_encoder(), beir_folder, tmp_path / "one", number=2, progress=False)
    mine_collection(folder, beir_folder, tmp_path / "two", number=2, progress=False)
    one, two = _bytes(tmp_path / "one"), _bytes(tmp_path / "two")
    assert one["train.jsonl"] == two["train.jsonl"]
    assert json.loads(two["mining.json"])["model"] == folder
    metadata = EmbeddedIndex(tmp_path / "two" / "index", create=False).metadata
    assert metadata["model"] == str(Path(folder).resolve())


def test_an_index_that_is_there(beir_folder, tiny_encoder, tmp_path, monkeypatch):
    model = tiny_encoder()
    index = EmbeddedIndex(tmp_path / "index", metadata=index_metadata(model, "tiny"))
    index_corpus(model, read_documents(beir_folder), index, progress=False)
    mine_collection(model, beir_folder, tmp_path / "own", number=2, progress=False)
    calls = _count_documents(model, monkeypatch)
    given = partial(mine_collection, model, beir_folder, index_folder=tmp_path / "index", progress=False)
    given(tmp_path / "given", number=2)
    assert calls == []
    assert {path.name for path in (tmp_path / "given").iterdir()} == {"train.jsonl", "mining.json"}
    assert _bytes(tmp_path / "own")["train.jsonl"] == _bytes(tmp_path / "given")["train.jsonl"]

    before = _bytes(tmp_path / "given")
    index.delete(["doc9"])
    with pytest.raises(InputError, match="'doc9', a positive of query 'query9', is not in the index"):
        given(tmp_path / "given")
    index.add(["stranger"], sp.csr_matrix((1, index.vocabulary_size)), [""])
    with pytest.raises(InputError, match="index: holds document 'stranger', which is not in"):
        given(tmp_path / "given")
    assert _bytes(tmp_path / "given") == before
    with monkeypatch.context() as other:  # an engine that cannot say what it holds
        other.setattr(st_l0.mining, "open_index", lambda target, **options: ProtocolIndex(index))
        with pytest.raises(InputError, match="index: holds 1 documents that are not in"):
            given(tmp_path / "given")
        index.delete(["stranger"])
        index.add(["doc9"], model.encode_document(["the text of another"]), ["the text of another"])
        assert given(tmp_path / "other", number=2).pairs == 13
    with pytest.raises(InputError, match="no index"):
        mine_collection(model, beir_folder, tmp_path / "x", index_folder=tmp_path / "nowhere")


def _other_model(tmp_path, tiny_encoder):
    folder = tmp_path / "other"
    make_mlm("bert", seed=9).save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return tiny_encoder(str(folder))


def test_another_model_or_other_documents_are_refused(beir_folder, tiny_encoder, tmp_path):
    out = tmp_path / "out"
    mine_collection(tiny_encoder(), beir_folder, out, number=2, progress=False)
    before = _bytes(out)
    other = _other_model(tmp_path, tiny_encoder)
    with pytest.raises(InputError, match="was made with a model of other weights"):
        mine_collection(other, beir_folder, out, number=2)
    with pytest.raises(InputError, match="was made with a model of other weights"):
        mine_collection(other, beir_folder, tmp_path / "x", number=2, index_folder=out / "index")
    changed = tmp_path / "changed"
    for path in ("queries.jsonl", "qrels/train.tsv"):
        _write(changed / path, (beir_folder / path).read_text().splitlines())
    corpus = (beir_folder / "corpus.jsonl").read_text().splitlines()
    _write(
        changed / "corpus.jsonl",
        [*corpus[:50], corpus[50].replace('"text": "', '"text": "new '), *corpus[51:]],
    )
    with pytest.raises(InputError, match=r"index: was made of other documents than .* has; give another"):
        mine_collection(tiny_encoder(), changed, out, number=2)
    assert _bytes(out) == before


def test_files_of_others_are_not_replaced(beir_folder, tiny_encoder, tmp_path):
    pair = json.dumps({"query": "cat", "positive": "the cat"})
    data = _write(tmp_path / "train.jsonl", [pair])
    with pytest.raises(InputError, match=r"train\.jsonl: was not made by mining, and is not replaced"):
        mine_collection(tiny_encoder(), data, tmp_path)
    assert data.read_text() == pair + "\n"
    corpus = _write(tmp_path / "out" / "corpus.jsonl", ["{}"])
    with pytest.raises(InputError, match=r"corpus\.jsonl: holds other texts than"):
        mine_collection(tiny_encoder(), data, tmp_path / "out")
    assert corpus.read_text() == "{}\n"
    assert list(corpus.parent.iterdir()) == [corpus]


def test_no_pair_with_enough_negatives(beir_folder, tiny_encoder, tmp_path):
    mine_collection(tiny_encoder(), beir_folder, tmp_path, number=2, progress=False)
    before = _bytes(tmp_path)
    with pytest.raises(InputError, match="none of 13 pairs has 2 negatives; ask for fewer"):
        mine_collection(tiny_encoder(), beir_folder, tmp_path, number=2, margin=1e6, progress=False)
    assert _bytes(tmp_path) == before
    assert {path.name for path in tmp_path.iterdir()} == {"train.jsonl", "mining.json", "index"}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"query": "cat"}', ":2: names no documents (but query); give positive, or documents"),
        ('{"query": " ", "positive": "dog"}', ":2: query is ' '; give a text"),
        ('{"query": 3, "positive": "dog"}', ":2: query is 3; give a text"),
        ('{"query": "cat", "documents": ["dog"]}', ":2: names no positive; give one"),
        ("[]", ":2: expected a JSON object"),
    ],
)
def test_unusable_rows_of_pairs(line, message, tmp_path):
    data = _write(tmp_path / "pairs.jsonl", ['{"query": "cat", "positive": "the cat"}', line])
    with pytest.raises(InputError, match=re.escape(f"{data}{message}")):
        mine_collection("no-model", data, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_unusable_data_and_settings_are_found_before_the_model_is_loaded(beir_folder, tmp_path):
    out = tmp_path / "out"
    for data, options, message in [
        (
            _write(tmp_path / "pairs.csv", ["a"]),
            {},
            "pairs.csv:1: 'a' holds no name of a column that is known",
        ),
        (tmp_path / "none.jsonl", {}, "none.jsonl: no such file"),
        (_write(tmp_path / "empty.jsonl", []), {}, "empty.jsonl: no pairs; give at least one row"),
        (tmp_path, {}, "train.tsv: no such file; no split is here"),
        (beir_folder, {"split": "test"}, "test.tsv: no such file; splits here: train"),
        (beir_folder, {"number": 101}, "number is 101; depth 1 to 100 allows 1 to 100"),
        (beir_folder, {"margin": -1}, "margin is -1"),
    ]:
        with pytest.raises(InputError, match=re.escape(message)) as caught:
            mine_collection("no-model", data, out, **options)
        assert "\n" not in str(caught.value)
    qrels = "query-id\tcorpus-id\tscore", "query1\tlost\t1", "query2\tdoc2\t0"
    for name in ("corpus.jsonl", "queries.jsonl"):
        _write(tmp_path / "data" / name, (beir_folder / name).read_text().splitlines())
    _write(tmp_path / "data" / "qrels" / "train.tsv", qrels)
    with pytest.raises(InputError, match="split train judges no document of the corpus as relevant"):
        mine_collection("no-model", tmp_path / "data", out)
    assert not out.exists()
