"""Judgements as people have them."""

import gzip
import json

import pytest

from st_l0.data import read_collection
from st_l0.data.qrels import read_qrels
from st_l0.errors import InputError

QUERIES = {"q1": "sleepy cats", "7": "seven"}
EXPECTED = {"q1": {"d1": 2, "d2": -1}, "7": {"d 3": 1}}
HEADER = "query-id\tcorpus-id\tscore\n"


def _read(path, content, queries=QUERIES):
    raw = content.encode()
    path.write_bytes(gzip.compress(raw) if path.suffix == ".gz" else raw)
    return read_qrels(path, queries, "queries.jsonl")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("test.tsv", HEADER + "q1\td1\t2\nq1\td2\t-1\n7\td 3\t1\n"),
        ("test.tsv", "query_id\tdoc_id\trelevance\r\nq1\td1\t2\r\n\r\nq1\td2\t-1\r\n7\td 3\t1\r\n"),
        ("test.tsv.gz", "Frage\tText\tNote\nq1\td1\t2\nq1\td2\t-1\n7\td 3\t1\n"),
        ("test.tsv", "q1\td1\t2.0\nq1\td2\t-1.0\n 7 \t d 3 \t1.\n7\td 3\t1\n"),
        ("test.tsv", "score\tcorpus-id\tquery-id\n2\td1\tq1\n-1\td2\tq1\n+1\td 3\t7\n"),
        ("test.txt", "q1\t0\td1\t2\nq1\t0\td2\t-1\n7\tQ0\td 3\t1\n"),
        ("test.tsv", HEADER + "q1\t0\td1\t2\nq1\t0\td2\t-1\n7\t0\td 3\t1\n"),
        ("test.tsv", "topic\titeration\tdocno\trel\nq1\t3\td1\t2\nq1\t1\td2\t-1\n7\t4\td 3\t1\n"),
        ("test.qrels", "q1\t0.5\td1\t2\nq1\t1\td2\t-1\n7\t4.5\td 3\t1\n"),
        ("test.csv", 'query-id,corpus-id,score\nq1,d1,2\n"q1",d2,-1\n7,"d 3",1\n'),
        ("test.csv", "query-id;corpus-id;score\nq1;d1;2\nq1;d2;-1\n7;d 3;1\n"),
        (
            "test.jsonl",
            '{"query-id": "q1", "corpus-id": "d1", "score": 2.0}\n'
            '{"query-id": "q1", "corpus-id": "d2", "score": -1}\n'
            '{"query-id": 7, "corpus-id": "d 3", "score": "1"}\n',
        ),
    ],
)
def test_forms(tmp_path, name, content):
    assert _read(tmp_path / name, content) == EXPECTED


@pytest.mark.parametrize(
    "content", ["q1 0 d1 1\n7 0 d2 0\n", "q1 d1 1\n7  d2   0\n", "qid docid label\nq1 d1 1\n7 d2 0\n"]
)
def test_white_space_between_columns(tmp_path, content):
    assert _read(tmp_path / "test.txt", content) == {"q1": {"d1": 1}, "7": {"d2": 0}}


def test_rows_without_scores_are_relevant(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path / "test.parquet"
    pq.write_table(pa.table({"query-id": [7, 7], "corpus-id": ["a", "b"]}), path)
    assert read_qrels(path, QUERIES, "") == {"7": {"a": 1, "b": 1}}
    pq.write_table(pa.table({"query-id": [7, 7], "corpus-id": ["a", "b"], "score": [1.0, 0.0]}), path)
    assert read_qrels(path, QUERIES, "") == {"7": {"a": 1, "b": 0}}
    assert _read(tmp_path / "test.tsv", "query-id\tcorpus-id\n7\ta\n") == {"7": {"a": 1}}


@pytest.mark.parametrize(
    ("name", "content", "line", "problem"),
    [
        ("t.tsv", HEADER + "q1\td1\t1\nq1\td1\t1\nq1\td1\t2\n", 4, "judged otherwise above; keep one"),
        ("t.tsv", HEADER + "q1\td1\t1.5\n", 2, "'1.5' is not a whole number; give 0, 1, 2"),
        ("t.tsv", HEADER + "q1\td1\t\n", 2, "'' is not a whole number"),
        ("t.tsv", HEADER + "q1\td1\tnan\n", 2, "'nan' is not a whole number"),
        ("t.tsv", HEADER + "q1\td1\t1e300\n", 2, "'1e300' is not a whole number"),
        ("t.tsv", f"q1\td1\t{'9' * 400}\n", 1, "is not a whole number"),
        ("t.tsv", HEADER + "q9\td1\t1\n", 2, "query 'q9' is not in queries.jsonl; add it or drop"),
        ("t.tsv", "q1\td1\tx\n", 1, "'x' is not a whole number"),
        ("t.tsv", "q1\t\t1\n", 1, "the document is ''; give a string"),
        (
            "t.tsv",
            "q1\td1\n",
            1,
            "2 fields; give query-id, corpus-id, score, or TREC's query 0 document score",
        ),
        ("t.tsv", "q1\td1\t1\n7\t0\td1\t1\n", 2, "4 fields, 3 above"),
        ("t.tsv", "q1\t0\td1\t1\tmore\n", 1, "5 fields"),
        ("t.tsv", "q1\td1\t2\tnote\n", 1, "the second is 'd1' and not TREC's 0, so it may be the document"),
        ("t.tsv", "7\t184\t1\t0\n", 1, "the second is '184' and not TREC's 0"),
        ("t.tsv", "query-id\tqid\tdocid\tscore\n", 1, "query-id and qid may both be the query"),
        (
            "t.jsonl",
            '{"query-id": "q1", "corpus-id": "d1", "rank": 1}\n',
            1,
            "has query-id, corpus-id, rank; give",
        ),
        (
            "t.jsonl",
            '{"query-id": "q1", "corpus-id": "d1", "score": null}\n',
            1,
            "None is not a whole number",
        ),
        (
            "t.jsonl",
            '{"query-id": 1.5, "corpus-id": "d1", "score": 1}\n',
            1,
            "the query is 1.5; give a string",
        ),
    ],
)
def test_what_may_mean_something_else_is_refused(tmp_path, name, content, line, problem):
    with pytest.raises(InputError) as caught:
        _read(tmp_path / name, content)
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / name}:{line}: ") and problem in message and "\n" not in message


@pytest.mark.parametrize("content", ["", "\n", HEADER])
def test_no_judgements(tmp_path, content):
    with pytest.raises(InputError, match=r"t\.tsv: no judgements; give at least one"):
        _read(tmp_path / "t.tsv", content)


@pytest.mark.parametrize("name", ["test.txt", "test.trec", "test.qrels", "test.tsv.gz"])
def test_names_of_files(tmp_path, name):
    (tmp_path / "qrels").mkdir()
    (tmp_path / "corpus.jsonl").write_text(json.dumps({"_id": "d1", "text": "x"}))
    (tmp_path / "queries.jsonl").write_text(json.dumps({"_id": "q1", "text": "x"}))
    raw = b"q1 0 d1 1\n"
    (tmp_path / "qrels" / name).write_bytes(gzip.compress(raw) if name.endswith("gz") else raw)
    assert read_collection(tmp_path).qrels == {"q1": {"d1": 1}}
