import numpy as np
import pytest
from data_files import message, write
from datasets import Dataset, List, Value

from st_l0.data import Texts, read_training_data

NEGATIVES = ["n1", "n2", "n3", "n4", "n5"]
LETTERS = ["a", "b", "c", "d", "e", "f", "g"]


@pytest.fixture
def lookups():
    """Documents 0 to 99, ``"D0"`` to ``"D99"``, and queries of the same ids, ``"Q0"`` to ``"Q99"``."""

    def texts(kind, letter):
        ids = [str(number) for number in reversed(range(100))]
        return Texts(Dataset.from_dict({"_id": ids, "text": [letter + i for i in ids]}), kind, kind)

    return {"corpus": texts("corpus", "D"), "queries": texts("queries", "Q")}


def read(tmp_path, *records, **options):
    return read_training_data(write(tmp_path / "r.jsonl", *records), **options)


def rows_of(data):
    return [tuple(row[name] for name in data.columns) for row in data.dataset]


def test_columns_of_pairs_triplets_and_tuples(tmp_path):
    pair = {"query": "q", "positive": "p", "url": "u"}
    data = read(tmp_path, pair)
    assert data.columns == ("query", "positive") and not data.scored
    assert data.dataset.column_names == ["query", "positive"]
    assert data.dataset[0] == {"query": "q", "positive": "p"}

    one = write(tmp_path / "n.jsonl.gz", {"query": "q", "positive": "p", "negative": "n"})
    also_one = write(tmp_path / "l.jsonl", {"query": "r", "pos": "s", "negs": ["t"]})
    data = read_training_data([one, str(also_one)])
    assert data.columns == ("query", "positive", "negative")
    assert data.dataset.to_dict() == {"query": ["q", "r"], "positive": ["p", "s"], "negative": ["n", "t"]}

    data = read(tmp_path, {"negatives": ["1", "2"], "positive": "p", "query": "q"})
    assert list(data.dataset[0].items()) == [
        ("query", "q"),
        ("positive", "p"),
        ("negative_1", "1"),
        ("negative_2", "2"),
    ]

    data = read(tmp_path, {"query": "q", "docs": ["a", "b"], "scores": [1, 2]})
    assert data.columns == ("query", "document_1", "document_2") and data.scored
    assert list(data.dataset[0].items()) == [
        ("query", "q"),
        ("document_1", "a"),
        ("document_2", "b"),
        ("scores", [1.0, 2.0]),
    ]
    assert read(tmp_path, {"query": "q", "documents": ["a"]}).columns == ("query", "document_1")


def test_groups_of_a_positive_and_its_negatives(tmp_path):
    record = {"query": "q", "positive": "p", "negatives": NEGATIVES, "scores": [9, 5, 4, 3, 2, 1]}

    def groups(size):
        data = read(tmp_path, record, documents_per_query=size)
        return data.columns, rows_of(data), data.dataset["scores"][:]

    columns, rows, scores = groups(3)
    assert columns == ("query", "positive", "negative_1", "negative_2")
    assert rows == [("q", "p", "n1", "n2"), ("q", "p", "n3", "n4")]  # n5 has no partner
    assert scores == [[9, 5, 4], [9, 3, 2]]
    columns, rows, scores = groups(2)
    assert columns == ("query", "positive", "negative")
    assert rows == [("q", "p", negative) for negative in NEGATIVES]
    assert scores == [[9, 5], [9, 4], [9, 3], [9, 2], [9, 1]]
    assert groups(6)[1] == [("q", "p", *NEGATIVES)]
    assert groups(1) == (("query", "positive"), [("q", "p")], [[9]])


def test_groups_of_a_list_pair_the_good_with_the_bad(tmp_path):
    record = {"query": "q", "docs": LETTERS, "scores": [7, 6, 5, 4, 3, 2, 1]}

    def groups(size):
        data = read(tmp_path, record, documents_per_query=size)
        return [row[1:] for row in rows_of(data)], data.dataset["scores"][:]

    assert groups(2) == ([("a", "d"), ("b", "e"), ("c", "f")], [[7, 4], [6, 3], [5, 2]])
    assert groups(3) == ([("a", "c", "e"), ("b", "d", "f")], [[7, 5, 3], [6, 4, 2]])
    assert groups(4) == ([("a", "b", "c", "d")], [[7, 6, 5, 4]])
    assert groups(7)[0] == [tuple(LETTERS)]
    assert groups(1)[0] == [(letter,) for letter in LETTERS]


def test_rows_of_different_lengths_are_cut_to_one(tmp_path):
    records = [{"query": f"q{n}", "documents": LETTERS[:n]} for n in (2, 5, 4, 3)]
    data = read(tmp_path, *records, documents_per_query=2)
    assert rows_of(data) == [
        ("q2", "a", "b"),
        ("q5", "a", "c"),
        ("q5", "b", "d"),
        ("q4", "a", "c"),
        ("q4", "b", "d"),
        ("q3", "a", "b"),
    ]
    limited = read(tmp_path, *records, documents_per_query=2, limit=4)
    assert rows_of(limited) == rows_of(data)[:4]
    assert rows_of(read(tmp_path, *records, documents_per_query=2, limit=7)) == rows_of(data)


def test_nothing_behind_the_limit_is_read(tmp_path):
    data = read(tmp_path, {"query": "q", "documents": LETTERS}, "{broken\n", documents_per_query=2, limit=3)
    assert len(data.dataset) == 3


def test_scores_are_scaled_and_float32(tmp_path):
    records = [{"query": "q", "docs": ["a", "b"], "scores": [0.1, -2]} for _ in range(3)]
    dataset = read(tmp_path, *records, score_scale=30.0).dataset
    assert dataset.features["scores"] == List(Value("float32"))
    assert dataset["scores"][:] == [[np.float32(0.1 * 30.0), -60.0]] * 3


def test_rows_come_in_their_order_through_several_batches(tmp_path, lookups):
    path = tmp_path / "p.parquet"
    queries = [f"q{i}" for i in range(9000)]
    columns = {"query": queries, "positive": ["p"] * 9000, "negatives": [["a", "b"]] * 9000}
    Dataset.from_dict(columns).to_parquet(path)
    dataset = read_training_data(path).dataset
    assert dataset["query"][:] == queries and dataset.column_names[2:] == ["negative_1", "negative_2"]

    ids = np.random.default_rng(0).integers(100, size=(9000, 3)).tolist()
    records = [{"query_id": query, "document_ids": documents} for query, *documents in ids]
    dataset = read_training_data(write(tmp_path / "i.jsonl", *records), **lookups).dataset
    assert len(dataset) == 9000
    for place in (0, 4095, 4096, 8999):
        query, one, two = ids[place]
        assert dataset[place] == {"query": f"Q{query}", "document_1": f"D{one}", "document_2": f"D{two}"}


def test_ids_are_looked_up_when_a_row_is_taken(tmp_path, lookups):
    records = [
        {"query": 5, "docs": [40, 30, 20, 10], "scores": [4, 3, 2, 1]},
        {"query": 6, "docs": [1, 2, 3], "scores": [3, 2, 1]},
    ]
    data = read(tmp_path, *records, documents_per_query=2, score_scale=2.0, **lookups)
    assert data.columns == ("query", "document_1", "document_2") and data.scored
    dataset = data.dataset
    assert dataset.column_names == ["query", "document_1", "document_2", "scores"]
    first = {"query": "Q5", "document_1": "D40", "document_2": "D20", "scores": [8.0, 4.0]}
    assert list(dataset[0].items()) == list(first.items())
    assert dataset[:2] == {
        "query": ["Q5", "Q5"],
        "document_1": ["D40", "D30"],
        "document_2": ["D20", "D10"],
        "scores": [[8.0, 4.0], [6.0, 2.0]],
    }
    assert dataset[[2, 0]]["document_1"] == ["D1", "D40"]
    assert dataset.select([2])[0]["query"] == "Q6"
    assert dataset.remove_columns("scores")[0] == {name: first[name] for name in data.columns}
    # What is stored is small: no text, 4 bytes a document.
    assert {name: str(kind) for name, kind in zip(data.columns, dataset.data.schema.types, strict=False)} == (
        dict.fromkeys(data.columns, "int32")
    )


def test_ids_with_a_positive_have_its_columns(tmp_path, lookups):
    record = {"query_id": "5", "positive_id": "1", "negative_ids": ["2", "3", "4", "5"]}
    data = read(tmp_path, record, documents_per_query=3, **lookups)
    assert data.columns == ("query", "positive", "negative_1", "negative_2") and not data.scored
    assert rows_of(data) == [("Q5", "D1", "D2", "D3"), ("Q5", "D1", "D4", "D5")]


TRIPLET = {"query": "q", "positive": "p", "negative": "n"}
LIST = {"query": "q", "docs": ["a", "b"]}
SAME_NUMBER = "give every row the same number, or set documents_per_query"


@pytest.mark.parametrize(
    ("first", "second", "options", "expected"),
    [
        (
            TRIPLET,
            {"query": "q", "positive": "p"},
            {},
            f"1 documents where the first row has 2; {SAME_NUMBER}",
        ),
        (
            LIST,
            {"query": "q", "documents": ["a", "b", "c"]},
            {},
            f"3 documents where the first row has 2; {SAME_NUMBER}",
        ),
        (
            LIST,
            {"query": "q", "docs": ["a"]},
            {"documents_per_query": 2},
            "1 documents, but documents_per_query is 2; give every row at least as many",
        ),
        (
            {**TRIPLET, "negative": None, "negatives": ["n", "m"]},
            TRIPLET,
            {"documents_per_query": 3},
            "2 documents, but documents_per_query is 3; give every row at least as many",
        ),
        (
            LIST,
            {**LIST, "scores": [1, 2]},
            {},
            "has scores where the first row has none; give scores to all rows or to none",
        ),
        (
            {**LIST, "scores": [1, 2]},
            LIST,
            {},
            "has no scores where the first row has some; give scores to all rows or to none",
        ),
        (
            LIST,
            TRIPLET,
            {},
            "names a positive where the first row names none; give all rows one form",
        ),
        (
            TRIPLET,
            LIST,
            {"documents_per_query": 2},
            "names no positive where the first row names one; give all rows one form",
        ),
        (LIST, {**LIST, "scores": [1, float("nan")]}, {}, "scores[1] is nan; give a finite number (float32)"),
    ],
)
def test_rows_that_do_not_go_together_are_refused(tmp_path, first, second, options, expected):
    paths = [write(tmp_path / "one.jsonl", first), write(tmp_path / "two.jsonl", "\n", second)]
    assert message(read_training_data, paths, **options) == f"{paths[1]}:2: {expected}"


def test_unknown_ids_are_refused_at_once(tmp_path, lookups):
    path = write(tmp_path / "r.jsonl", {"query": 1, "docs": [2]}, {"query": 1, "docs": [100]})
    expected = f"{path}:2: no document '100' in corpus; give the corpus it is from"
    assert message(read_training_data, path, **lookups) == expected
    path = write(tmp_path / "r.jsonl", {"query": -1, "docs": [2]})
    expected = f"{path}:1: no query '-1' in queries; give the queries it is from"
    assert message(read_training_data, path, **lookups) == expected
    expected = "queries is given without corpus; give both for rows of ids, neither for texts"
    assert message(read_training_data, path, queries=lookups["queries"]) == expected


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"documents_per_query": 0}, "documents_per_query is 0; give 1 or more"),
        ({"limit": 0}, "limit is 0; give 1 or more"),
        ({"score_scale": 2.0}, "score_scale is 2, but the rows hold no scores; leave it out"),
        ({"score_scale": 0.0}, "score_scale is 0.0; give a finite number above 0"),
        ({"score_scale": float("nan")}, "score_scale is nan; give a finite number above 0"),
        ({"score_scale": float("inf")}, "score_scale is inf; give a finite number above 0"),
    ],
)
def test_settings_out_of_range_are_refused(tmp_path, options, expected):
    assert message(read, tmp_path, TRIPLET, **options) == expected


def test_no_row_at_all_is_refused(tmp_path):
    path = write(tmp_path / "r.jsonl")
    assert message(read_training_data, path) == f"{path}: no training data; give at least one row"
    assert message(read_training_data, []) == "nothing given: no training data; give at least one row"
