from pathlib import Path

import pytest
from data_files import message, write
from datasets import Dataset, DatasetDict, disable_progress_bars, load_dataset

from st_l0.data import Row, Texts, read_rows

PAIR = {"query": "q", "positive": "p"}
HOW = "with columns (data.columns, --column)"


@pytest.fixture
def lookups():
    """Documents 1 to 4, ``"D1"`` to ``"D4"``, and queries 7 and 8, ``"Q7"`` and ``"Q8"``."""

    def texts(kind, letter, ids):
        rows = {"_id": [str(number) for number in ids], "text": [f"{letter}{number}" for number in ids]}
        return Texts(Dataset.from_dict(rows), kind, kind)

    return {"corpus": texts("corpus", "D", range(1, 5)), "queries": texts("queries", "Q", (7, 8))}


FORMS = [
    # pairs, triplets, n-tuples
    (PAIR, Row("q", ("p",))),
    ({**PAIR, "negative": "n"}, Row("q", ("p", "n"))),
    (
        {**PAIR, "negatives": ["n", "m"], "scores": [3, 0.5, -1.0]},
        Row("q", ("p", "n", "m"), (3.0, 0.5, -1.0)),
    ),
    ({**PAIR, "negatives": []}, Row("q", ("p",))),
    ({**PAIR, "negative": None, "negatives": None, "documents": None, "scores": None}, Row("q", ("p",))),
    # lists
    ({"query": "q", "documents": ["a", "b"]}, Row("q", ("a", "b"))),
    ({"query": "q", "documents": ["a"], "scores": [2.5]}, Row("q", ("a",), (2.5,))),
    (
        {"query": "q", "documents": ["a", "b"], "query_id": 7, "document_ids": ["x", 2]},
        Row("q", ("a", "b"), None, "7", ("x", "2")),
    ),
    # the reference implementation's
    ({"query": "q", "pos": "p", "negs": ["n", "m"]}, Row("q", ("p", "n", "m"))),
    ({"query": "q", "pos": "p"}, Row("q", ("p",))),
    ({"query": "q", "docs": ["a", "b"], "scores": [1.0, 2.0]}, Row("q", ("a", "b"), (1.0, 2.0))),
    ({"query": "q", "docs": ["a", "b"]}, Row("q", ("a", "b"))),
    (
        {"query": "q", "docs": ["a", "b"], "q_id": 3, "d_ids": [4, 5], "scores": [1, 2]},
        Row("q", ("a", "b"), (1.0, 2.0), "3", ("4", "5")),
    ),
    # more keys than those
    ({**PAIR, "url": "https://a.b/c", "id": 5, "source": {"a": [1]}}, Row("q", ("p",))),
]

ID_FORMS = [
    (
        {"query_id": "7", "document_ids": ["2", "1"], "scores": [1.5, 0]},
        Row("Q7", ("D2", "D1"), (1.5, 0.0), "7", ("2", "1")),
    ),
    ({"query_id": 8, "document_ids": [4, 4]}, Row("Q8", ("D4", "D4"), None, "8", ("4", "4"))),
    ({"query_id": 7, "positive_id": "3"}, Row("Q7", ("D3",), None, "7", ("3",))),
    (
        {"query_id": 7, "positive_id": 3, "negative_ids": [1, "2"], "scores": [3, 2, 1]},
        Row("Q7", ("D3", "D1", "D2"), (3.0, 2.0, 1.0), "7", ("3", "1", "2")),
    ),
    ({"query_id": 7, "positive_id": 3, "negative_id": 1}, Row("Q7", ("D3", "D1"), None, "7", ("3", "1"))),
    # opensearch-project/msmarco-hard-negatives
    (
        {"query": "8", "docs": ["1", "4", "2"], "scores": [9.0, 8.0, 7.0]},
        Row("Q8", ("D1", "D4", "D2"), (9.0, 8.0, 7.0), "8", ("1", "4", "2")),
    ),
    # texts beside the ids, as in form 2
    (
        {"query": "q", "documents": ["a", "b"], "query_id": 7, "document_ids": [1, 2]},
        Row("Q7", ("D1", "D2"), None, "7", ("1", "2")),
    ),
]


@pytest.mark.parametrize("name", ["r.jsonl", "r.jsonl.gz"])
@pytest.mark.parametrize(("record", "row"), FORMS)
def test_forms_of_texts(tmp_path, name, record, row):
    assert list(read_rows(write(tmp_path / name, record, "\n", record))) == [row, row]


@pytest.mark.parametrize(("record", "row"), ID_FORMS)
def test_forms_of_ids(tmp_path, lookups, record, row):
    assert list(read_rows(write(tmp_path / "r.jsonl", record), **lookups)) == [row]


def test_a_document_that_was_looked_up_may_be_empty(tmp_path, lookups):
    corpus = Texts(Dataset.from_dict({"_id": ["1"], "text": [""]}), "corpus", "corpus")
    path = write(tmp_path / "r.jsonl", {"query_id": 7, "document_ids": [1]})
    [row] = read_rows(path, corpus=corpus, queries=lookups["queries"])
    assert row.documents == ("",)


RECORDS = [{"query": f"q{i}", "docs": [f"a{i}", f"b{i}"], "scores": [1.0, float(i)]} for i in range(5)]
ROWS = [Row(f"q{i}", (f"a{i}", f"b{i}"), (1.0, float(i))) for i in range(5)]


@pytest.fixture(params=["parquet", "saved", "parts", "clone", "several", "hub"])
def source(request, tmp_path, monkeypatch):
    """`RECORDS` in every kind of source, and how complaints name its fourth row."""
    disable_progress_bars()
    dataset = Dataset.from_list(RECORDS)
    folder = tmp_path / request.param
    if request.param == "parquet":
        dataset.to_parquet(tmp_path / "r.parquet")
        return tmp_path / "r.parquet", f"{tmp_path / 'r.parquet'}:4"
    if request.param == "saved":
        dataset.save_to_disk(folder)
        return folder, f"{folder}:4"
    if request.param == "parts":
        write(folder / "part-000010.jsonl", *RECORDS[3:])
        write(folder / "part-000002.jsonl.gz", *RECORDS[1:3])
        write(folder / "part-000001.jsonl", RECORDS[0])
        write(folder / "settings.json", {"not": "a row"})
        return folder, f"{folder / 'part-000010.jsonl'}:1"
    if request.param == "several":
        paths = [write(tmp_path / "z.jsonl", *RECORDS[:3]), str(write(tmp_path / "a.jsonl", *RECORDS[3:]))]
        return paths, f"{tmp_path / 'a.jsonl'}:1"
    folder.mkdir()
    dataset.to_parquet(folder / "train-0.parquet")
    (folder / "README.md").write_text("---\nlicense: mit\n---\n")
    if request.param == "clone":
        return folder, f"{folder}:4"
    # The real loading, of a folder that stands in for the Hub.
    monkeypatch.setattr(
        "datasets.load_dataset", lambda name, *rest, **kw: load_dataset(str(folder), *rest, **kw)
    )
    return "owner/na-me.v1", "owner/na-me.v1:4"


def test_every_source_gives_the_same_rows(source):
    paths, _ = source
    assert list(read_rows(paths)) == ROWS


def test_complaints_name_the_row_of_every_source(source, lookups):
    paths, place = source
    queries = Texts(
        Dataset.from_dict({"_id": [f"q{i}" for i in range(5)], "text": ["x"] * 5}), "queries", "queries"
    )
    documents = [document for row in ROWS for document in row.documents if document != "b3"]
    corpus = Texts(Dataset.from_dict({"_id": documents, "text": documents}), "folder/corpus", "corpus")
    expected = f"{place}: no document 'b3' in folder/corpus; give the corpus it is from"
    assert message(read_rows, paths, corpus=corpus, queries=queries) == expected


def test_rows_are_streamed(tmp_path):
    rows = read_rows(write(tmp_path / "r.jsonl", PAIR, "{broken\n"))
    assert next(rows).query == "q"
    assert message(lambda: rows).startswith(f"{tmp_path / 'r.jsonl'}:2: invalid JSON")


LIST = {"query": "q", "documents": ["a", "b"]}
ONE_OF = f"give one of them, or ignore one {HOW}"
BAD = [
    # texts
    ({"positive": "p"}, "query is missing; give a text"),
    ({"query": "", "positive": "p"}, "query is empty; give a text"),
    ({"query": "q", "positive": " \n"}, r"positive is ' \n'; give a text"),
    ({"query": "q", "positive": 3}, "positive is 3; give a text"),
    ({**PAIR, "negative": [["n"]]}, "negative[0] is ['n']; give a text"),
    ({**PAIR, "negatives": ["n", ""]}, "negatives[1] is empty; give a text"),
    ({**PAIR, "negatives": [None]}, "negatives[0] is missing; give a text"),
    ({"query": "q", "documents": "a"}, "documents is str; give a list"),
    ({"query": "q", "documents": ["a", 3]}, "documents[1] is 3; give a text"),
    ({"query": "q", "documents": []}, "documents is empty; give at least one document"),
    ({"query": "q", "docs": []}, "docs is empty; give at least one document"),
    ({"query": "q", "pos": []}, "pos is empty; give at least one document"),
    (
        {"query": "q", "pos": "p", "negs": {"0": "n"}},
        "negs is an object of 0; give a text, or text, title and docid in it",
    ),
    # forms
    ({**PAIR, "negative": "n", "negatives": ["n"]}, f"has both negative and negatives; {ONE_OF}"),
    (
        {**PAIR, **LIST},
        f"has positive and documents, which are keys of different forms; give one, or ignore one {HOW}",
    ),
    (
        {"query": "q", "pos": "p", "docs": ["d"]},
        f"has pos and docs, which are keys of different forms; give one, or ignore one {HOW}",
    ),
    (
        {"query": "q", "hit": "p"},
        "names no documents (but query, hit); give positive, or documents, or say which key holds them "
        f"{HOW}",
    ),
    (
        {},
        f"names no documents (but nothing); give positive, or documents, or say which key holds them {HOW}",
    ),
    # ids
    ({"query_id": 7, "positive_id": 1}, "has positive_id, ids; give corpus and queries, to look them up"),
    ({"query_id": 7, "document_ids": [1]}, "has document_ids, ids; give corpus and queries, to look them up"),
    (
        {"query": "7", "docs": ["1", "23"], "scores": [1, 2]},
        "query and docs are numbers; for ids, give corpus and queries as well",
    ),
    ({"query": 7, "docs": [1]}, "query is 7; give a text"),
    ({**LIST, "document_ids": [1]}, "1 document_ids for 2 documents; give one for each"),
    ({**LIST, "document_ids": [1, 2.5]}, "document_ids[1] is 2.5; give an id, a string or an integer"),
    ({**LIST, "query_id": ""}, "query_id is empty; give an id, a string or an integer"),
    # scores
    ({**LIST, "scores": 1.0}, "scores is float; give a list"),
    ({**LIST, "scores": [1.0]}, "1 scores for 2 documents; give one for each"),
    ({**PAIR, "scores": [1.0, 2.0]}, "2 scores for 1 documents; give one for each"),
    ({**LIST, "scores": [1.0, "2"]}, "scores[1] is '2'; give a finite number (float32)"),
    ({**LIST, "scores": [True, 1.0]}, "scores[0] is True; give a finite number (float32)"),
    ({**LIST, "scores": [1.0, None]}, "scores[1] is None; give a finite number (float32)"),
    ({**LIST, "scores": [float("nan"), 1.0]}, "scores[0] is nan; give a finite number (float32)"),
    ({**LIST, "scores": [1.0, float("-inf")]}, "scores[1] is -inf; give a finite number (float32)"),
    ({**LIST, "scores": [1.0, 1e39]}, "scores[1] is 1e+39; give a finite number (float32)"),
]

BAD_BY_ID = [
    ({"query_id": 7, "document_ids": [1, 9]}, "no document '9' in corpus; give the corpus it is from"),
    ({"query_id": 1, "document_ids": [1]}, "no query '1' in queries; give the queries it is from"),
    ({"query_id": 7, "positive_id": True}, "positive_id is True; give an id, a string or an integer"),
    ({"positive_id": 1}, "query_id is missing; give an id, a string or an integer"),
    ({"query_id": 7, "document_ids": []}, "document_ids is empty; give at least one document"),
    (
        {"query_id": 7, "positive_id": 1, "negative_id": 2, "negative_ids": [3]},
        f"has both negative_id and negative_ids; {ONE_OF}",
    ),
    (
        {"query_id": 7, "positive_id": 1, "document_ids": [2]},
        f"has document_ids and positive_id, which are keys of different forms; give one, or ignore one {HOW}",
    ),
    (PAIR, "has positive, texts; leave corpus and queries out"),
    (LIST, "has documents, texts; leave corpus and queries out"),
    (
        {"q": 7, "d": [1]},
        "names no documents (but q, d); give positive_id, or document_ids, or say which key holds them "
        f"{HOW}",
    ),
    ({"query_id": 7, "positive_id": 1, "scores": []}, "0 scores for 1 documents; give one for each"),
]


@pytest.mark.parametrize(("record", "expected"), BAD)
def test_a_bad_row_is_refused(tmp_path, record, expected):
    path = write(tmp_path / "r.jsonl", PAIR, record)
    assert message(read_rows, path) == f"{path}:2: {expected}"


@pytest.mark.parametrize(("record", "expected"), BAD_BY_ID)
def test_a_bad_row_of_ids_is_refused(tmp_path, lookups, record, expected):
    path = write(tmp_path / "r.jsonl", {"query_id": 7, "document_ids": [1]}, record)
    assert message(read_rows, path, **lookups) == f"{path}:2: {expected}"


def test_corpus_and_queries_go_together(tmp_path, lookups):
    path = write(tmp_path / "r.jsonl", PAIR)
    expected = "corpus is given without queries; give both for rows of ids, neither for texts"
    assert message(read_rows, path, corpus=lookups["corpus"]) == expected
    expected = "queries is given without corpus; give both for rows of ids, neither for texts"
    assert message(read_rows, path, queries=lookups["queries"]) == expected


def test_sources_that_are_not_there_are_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    absent = tmp_path / "absent.jsonl"
    assert message(read_rows, absent) == f"{absent}: no such file; check the path"
    for name in ("rows.jsonl", "data/rows.jsonl", "data/rows.jsonl.gz", "data/rows.parquet", "a/b/c", "rows"):
        assert message(read_rows, name) == f"{name}: no such file; check the path"
    assert message(read_rows, tmp_path) == f"{tmp_path}: holds neither part-*.jsonl[.gz] nor a saved dataset"
    text = message(read_rows, "owner/name")
    assert text.startswith(
        "owner/name: no such path, and the Hub does not give split 'train' (Couldn't reach"
    )
    assert message(read_rows, Path("owner/name")) == "owner/name: no such file; check the path"
    (tmp_path / "owner").mkdir()
    write(tmp_path / "owner" / "name", PAIR)  # a path that exists is a path
    assert list(read_rows("owner/name")) == [Row("q", ("p",))]
    disable_progress_bars()
    DatasetDict(train=Dataset.from_list(RECORDS)).save_to_disk(tmp_path / "many")
    assert message(read_rows, "many") == "many: holds several splits; give one of many/train"


@pytest.mark.parametrize(
    ("record", "problem"),
    [
        ({"rows": None}, "{folder}: not all rows were scored: start st-l0 teach once more"),
        ({"rows": 6}, "{folder}: holds 5 rows of 6: let st-l0 teach write a new folder"),
        ({"lines": 5}, "{folder}/teachers.json: not a record, it lacks rows; give a new folder"),
        (
            {"rows": 5, "parts": ["00"]},
            "{folder}/part-000000.jsonl: is not the part that was written there, "
            "or has changed; let st-l0 teach write a new folder",
        ),
        ([], "{folder}/teachers.json: holds a JSON list, not a dict; give a new folder"),
    ],
)
def test_scores_that_are_not_whole_are_refused(tmp_path, record, problem):
    folder = tmp_path / "scored"
    write(folder / "part-000000.jsonl", *RECORDS)
    write(folder / "teachers.json", record)
    assert message(lambda: list(read_rows(folder))) == problem.format(folder=folder)
    write(folder / "teachers.json", {"rows": 5})
    assert list(read_rows(folder)) == ROWS
