"""Rows as others write them: every form with a tiny example, and what is refused rather than dropped."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from data_files import message
from datasets import Dataset, DatasetDict, IterableDataset

from st_l0.data import Row, Texts, read_rows, read_training_data

PAIR = {"query": "q", "positive": "p"}
TRIPLET = {**PAIR, "negative": "n"}
HOW = "with columns (data.columns, --column)"


def texts(kind, letter, ids):
    rows = {"_id": [str(number) for number in ids], "text": [f"{letter}{number}" for number in ids]}
    return Texts(Dataset.from_dict(rows), kind, kind)


LOOKUPS = {"corpus": texts("corpus", "D", range(1, 6)), "queries": texts("queries", "Q", (7, 8))}


@pytest.mark.parametrize(
    ("record", "rows"),
    [
        # sentence-transformers, and what its mine_hard_negatives writes
        ({"anchor": "q", "positive": "p"}, [Row("q", ("p",))]),
        ({"question": "q", "answer": "p"}, [Row("q", ("p",))]),
        ({"query": "q", "answer": "1945", "passage": "p"}, [Row("q", ("p",))]),
        ({"anchor": "q", **TRIPLET, "query": None}, [Row("q", ("p", "n"))]),
        (
            {**PAIR, "negative_10": "n10", "negative_2": "n2", "negative_1": "n1", "scores": [4, 3, 2, 1]},
            [Row("q", ("p", "n1", "n2", "n10"), (4.0, 3.0, 2.0, 1.0))],
        ),
        ({**PAIR, "negative_1": "n", "negative_2": None}, [Row("q", ("p", "n"))]),
        ({**PAIR, "label": 1}, [Row("q", ("p",))]),
        ({**PAIR, "score": 0.5}, [Row("q", ("p",), (0.5,))]),
        ({"query": "q", "positive": ["p", "n"], "labels": [1, 0]}, [Row("q", ("p", "n"), (1.0, 0.0))]),
        # margins: the positive scores 1.5 and 2 more
        ({**TRIPLET, "label": 1.5}, [Row("q", ("p", "n"), (0.0, -1.5))]),
        ({**TRIPLET, "score": 1.5}, [Row("q", ("p", "n"), (0.0, -1.5))]),
        (
            {**PAIR, "negative_1": "n", "negative_2": "m", "label": [1.5, 2]},
            [Row("q", ("p", "n", "m"), (0.0, -1.5, -2.0))],
        ),
        ({**TRIPLET, "label": [3.5, 2.5]}, [Row("q", ("p", "n"), (3.5, 2.5))]),
        # BGE
        (
            {"query": "q", "pos": ["a", "b"], "neg": ["c", "d"], "prompt": "", "type": "normal"},
            [Row("q", ("a", "c", "d")), Row("q", ("b", "c", "d"))],
        ),
        (
            {"query": "q", "pos": ["a", "b"], "neg": ["c"], "pos_scores": [1, 2], "neg_scores": [0.5]},
            [Row("q", ("a", "c"), (1.0, 0.5)), Row("q", ("b", "c"), (2.0, 0.5))],
        ),
        (
            {"query": "q", "pos": ["a"], "neg": ["c"], "pos_id": ["1"], "neg_id": [5]},
            [Row("q", ("a", "c"), None, None, ("1", "5"))],
        ),
        # Tevatron, also as columns of lists
        (
            {
                "query_id": "7",
                "query": "q",
                "positive_passages": [
                    {"docid": "1", "title": "T", "text": "x"},
                    {"docid": "2", "title": "", "text": "y"},
                ],
                "negative_passages": [{"docid": "3", "title": "U", "text": "z"}],
            },
            [
                Row("q", ("T x", "U z"), None, "7", ("1", "3")),
                Row("q", ("y", "U z"), None, "7", ("2", "3")),
            ],
        ),
        (
            {
                "query": "q",
                "positive_passages": {"docid": ["1"], "title": ["T"], "text": ["x"]},
                "negative_passages": {"docid": ["3", "4"], "title": ["", ""], "text": ["y", "z"]},
            },
            [Row("q", ("T x", "y", "z"), None, None, ("1", "3", "4"))],
        ),
        # DPR
        (
            {
                "question": "q",
                "answers": ["1945"],
                "positive_ctxs": [{"title": "T", "text": "x", "passage_id": "3"}],
                "negative_ctxs": [],
                "hard_negative_ctxs": [{"title": "U", "text": "y", "passage_id": "4"}],
            },
            [Row("q", ("T x", "U y"), None, None, ("3", "4"))],
        ),
        # the package's own columns, and a single document
        (
            {"query": "q", "document_1": "a", "document_2": "b", "scores": [2, 1]},
            [Row("q", ("a", "b"), (2, 1))],
        ),
        ({"query": "q", "document_1": "a"}, [Row("q", ("a",))]),
        # capitals and signs
        (
            {"Query": "q", "Positive": "p", "hardNegatives": ["n"], "Query-ID": 7},
            [Row("q", ("p", "n"), None, "7")],
        ),
        # what says something about a row, and is no part of it
        (
            {
                **PAIR,
                "docid": "D1",
                "lang": "en",
                "url": "https://a.b",
                "title": "T",
                "meta": {"text": "x"},
                "tags": ["a", "b"],
                "num_negatives": 3,
                "label": "sports",
                "entity_ids": [5, 6],
                "author_id": 5,
                "answers": ["an answer of more than eight words is no document here"],
                "lengths": [7],
            },
            [Row("q", ("p",), None, None, ("D1",))],
        ),
    ],
)
def test_forms(record, rows):
    assert list(read_rows([record, record])) == rows * 2


@pytest.mark.parametrize(
    ("record", "row"),
    [
        # PyLate
        (
            {"query_id": 7, "document_ids": [2, 1], "scores": [0.9, 0.1]},
            Row("Q7", ("D2", "D1"), (0.9, 0.1), "7", ("2", "1")),
        ),
        # Tevatron's newer form; the query's text stands beside its id
        (
            {
                "query_id": "7",
                "query_text": "q",
                "positive_document_ids": ["1"],
                "negative_document_ids": ["3"],
            },
            Row("Q7", ("D1", "D3"), None, "7", ("1", "3")),
        ),
        # sentence-transformers: ids under the names of texts; margins; labels
        ({"query": 7, "positive": 1, "negative": 2}, Row("Q7", ("D1", "D2"), None, "7", ("1", "2"))),
        (
            {"query_id": "7", "positive_id": "1", "negative_id": "2", "score": 4.5},
            Row("Q7", ("D1", "D2"), (0.0, -4.5), "7", ("1", "2")),
        ),
        (
            {"query_id": "7", "doc_ids": ["1", "2"], "labels": [1, 0]},
            Row("Q7", ("D1", "D2"), (1.0, 0.0), "7", ("1", "2")),
        ),
        # a row of judgements
        ({"query-id": "7", "corpus-id": "3", "score": 1}, Row("Q7", ("D3",), None, "7", ("3",))),
    ],
)
def test_forms_of_ids(record, row):
    assert list(read_rows([record], **LOOKUPS)) == [row]


def test_forms_of_the_documentation():
    text = (Path(__file__).parents[2] / "training_recipes" / "README.md").read_text("utf-8")
    forms = text[text.index("| from | a row |") : text.index("Corpus and queries have")]
    by_text, by_id = (
        [json.loads(row) for row in re.findall(r"`(\{[^`…]*\})`", part)]
        for part in forms.split("rows of ids:")
    )
    assert len(by_text) >= 8 and len(by_id) >= 6
    for record in by_text:
        assert len(next(read_rows([record])).documents) >= 2 or "answer" in record
    for record in by_id:
        assert next(read_rows([record], **LOOKUPS)).documents[:2] == ("D3", "D4")


def test_ids_may_hold_white_space_around_them():
    assert list(read_rows([{"query_id": " 7", "positive_id": "1 "}], **LOOKUPS)) == [
        Row("Q7", ("D1",), None, "7", ("1",))
    ]


WRONG = f"which says that the document is wrong; give negatives beside a positive, or ignore it {HOW}"
MAY_HOLD = "is not known; say what it is, or ignore it"


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ({**PAIR, "hard": ["n"]}, f"hard may hold documents and {MAY_HOLD} {HOW}"),
        ({**PAIR, "distractors": ["n"]}, f"distractors may hold documents and {MAY_HOLD} {HOW}"),
        ({**PAIR, "neg_text": "n"}, f"neg_text may hold documents and {MAY_HOLD} {HOW}"),
        ({**PAIR, "positive_2": "p"}, f"positive_2 may hold documents and {MAY_HOLD} {HOW}"),
        ({**PAIR, "context": "c"}, f"context may hold documents and {MAY_HOLD} {HOW}"),
        ({**PAIR, "negative_answers": ["n"]}, f"negative_answers may hold documents and {MAY_HOLD} {HOW}"),
        (
            {**PAIR, "schlecht": ["ein Text von acht Wörtern ist ein Dokument"]},
            f"schlecht may hold documents or scores and {MAY_HOLD} {HOW}",
        ),
        ({**PAIR, "hard_ids": ["3"]}, f"hard_ids may hold ids and {MAY_HOLD} {HOW}"),
        ({**PAIR, "bm25_score": 3.5}, f"bm25_score may hold scores and {MAY_HOLD} {HOW}"),
        ({**TRIPLET, "logits": [2.5, 1]}, f"logits may hold scores and {MAY_HOLD} {HOW}"),
        ({**TRIPLET, "reranked": [2.5, 1]}, f"reranked may hold documents or scores and {MAY_HOLD} {HOW}"),
        (
            {**PAIR, "passage": "x"},
            f"has positive and passage, which are keys of different forms; give one, or ignore one {HOW}",
        ),
        (
            {"query": "q", "documents": ["a"], "negatives": ["n"]},
            f"has documents and negatives, which are keys of different forms; give one, or ignore one {HOW}",
        ),
        (
            {**PAIR, "neg_ids": [3]},
            "has neg_ids, ids beside texts; give the texts too, or ids alone, corpus and queries",
        ),
        ({**TRIPLET, "negative_ids": [3, 4]}, "2 negative_ids for 1 negatives; give one for each"),
        (
            {"query_text": "q", "positive_document_ids": ["1"]},
            "has positive_document_ids, ids; give corpus and queries, to look them up",
        ),
        (
            {**PAIR, "prompt": "Represent this: "},
            f"prompt is not read: write it into the query, or ignore it {HOW}",
        ),
        # labels of wrong documents are no pairs
        (
            {**PAIR, "label": 0},
            f"label is 0, {WRONG}",
        ),
        (
            {"query": "q", "document": "d", "score": 0.7},
            "score is 0.7, a score of one document that is not called positive; give the documents of a "
            f"query in one row, or say which is the positive {HOW}",
        ),
        ({**TRIPLET, "label": 1}, "label is int; give a list"),
        (
            {"query": "q", "pos": ["p"], "neg": ["n"], "pos_scores": [1]},
            "0 negative_scores for 1 negatives; give one for each",
        ),
        (
            {**TRIPLET, "scores": [1.0], "neg_scores": [2]},
            "has both scores and neg_scores; give one of them, or ignore one " + HOW,
        ),
        (
            {**PAIR, "negative": {"url": "u"}},
            "negative is an object of url; give a text, or text, title and docid in it",
        ),
        ({"query": "q\ud800", "positive": "p"}, "cannot be text ("),
        ({"query": "q", "passage": "p", "is_relevant": False}, f"is_relevant may hold scores and {MAY_HOLD}"),
        ({"query": "q", "passage": "p", "is_positive": 0}, f"is_positive may hold scores and {MAY_HOLD}"),
        ({"query": "q", "passage": "p", "relevant": 0}, f"relevant may hold scores and {MAY_HOLD}"),
        ({"query": "q", "positive": "p", "rating": 3}, f"rating may hold scores and {MAY_HOLD}"),
        ({"query": "q", "positive": "['p' 'o']"}, "positive is \"['p' 'o']\", a list that is not JSON;"),
    ],
)
def test_what_would_be_lost_is_refused(record, expected):
    text = message(read_rows, [PAIR, record])
    assert text.startswith(f"row 2: {expected}")


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        (
            {"query_id": 7, "positive_id": 1, "negatives": ["n"]},
            "has negatives, texts beside ids; give their ids as negative_ids",
        ),
        (
            {"query_id": 7, "positive_id": 1, "bad_ids": [2]},
            f"bad_ids may hold more ids and {MAY_HOLD} {HOW}",
        ),
        (
            {"query-id": 7, "corpus-id": 3, "score": 0},
            f"score is 0, {WRONG}",
        ),
        (
            {"query_id": 7, "positive_id": 1, "docid": 2},
            f"has positive_id and docid, which are keys of different forms; give one, or ignore one {HOW}",
        ),
    ],
)
def test_what_would_be_lost_of_ids_is_refused(record, expected):
    assert message(read_rows, [record], **LOOKUPS) == f"row 1: {expected}"


def test_lists_in_cells(tmp_path):
    """A table has no lists: people write them as JSON into a cell."""
    table = tmp_path / "rows.csv"
    table.write_text('query,pos,neg\nq,"[""p""]","[""n"",""m""]"\n[1],[2],[see below]\n')
    assert list(read_rows(table)) == [Row("q", ("p", "n", "m")), Row("[1]", ("[2]", "[see below]"))]
    table.write_text("""query,pos,neg\nq,p,"['n', 'm']"\n""")
    assert "neg is \"['n', 'm']\", a list that is not JSON; write it with json.dumps" in message(
        read_rows, table
    )
    [row] = read_rows([{"query_id": 7, "document_ids": "[1, 2]", "scores": "[2.5, 1]"}], **LOOKUPS)
    assert (row.documents, row.scores) == (("D1", "D2"), (2.5, 1.0))


def test_columns_name_keys_of_any_name():
    record = {"frage": "q", "gut": "p", "schlecht": ["n"], "auch": "m", "label": 3, "passage": "x"}
    columns = {
        "query": "frage",
        "positive": "gut",
        "negatives": ["schlecht", "auch"],
        "ignore": ["label", "passage"],
    }
    assert list(read_rows([record], columns=columns)) == [Row("q", ("p", "n", "m"))]
    data = read_training_data([record], columns=columns)
    assert data.columns == ("query", "positive", "negative_1", "negative_2")
    # Words that are not named are found as ever.
    assert list(read_rows([{**PAIR, "hard": "n"}], columns={"negative": "hard"})) == [Row("q", ("p", "n"))]
    by_id = {"q": 7, "d": [1, 2]}
    [row] = read_rows([by_id], columns={"query_id": "q", "document_ids": "d"}, **LOOKUPS)
    assert row.documents == ("D1", "D2")


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        (
            {"negatives": "hrad"},
            "row 1: has no hrad (but query, positive, hard), which columns name as negatives",
        ),
        ({"negs": "hard"}, "columns: 'negs' is no word for a column; give one of query, positive"),
        ({"negative": "hard", "ignore": ["hard"]}, "columns: 'hard' is named twice"),
        ({"query": ["query", "hard"]}, "columns: query names 2 keys; give one"),
        ({"negative": ""}, "columns: negative names ('',); give the name of a key"),
        ({"positive": "hard"}, f"row 1: has both hard and positive; give one of them, or ignore one {HOW}"),
    ],
)
def test_columns_that_do_not_fit_are_refused(columns, expected):
    record = {**PAIR, "hard": "n"}
    assert message(lambda: read_rows([record], columns=columns)).startswith(expected)


def test_rows_in_python():
    records = [{"query": f"q{i}", "positive": f"p{i}", "negatives": [f"n{i}"]} for i in range(5)]
    expected = [Row(f"q{i}", (f"p{i}", f"n{i}")) for i in range(5)]
    dataset = Dataset.from_list(records)
    stream = IterableDataset.from_generator(lambda: iter(records))
    assert list(read_rows(records)) == list(read_rows(iter(records))) == expected
    assert list(read_rows(dataset)) == list(read_rows(dataset.with_format("numpy"))) == expected
    assert list(read_rows(stream)) == expected
    assert list(read_rows([dataset, stream])) == expected * 2
    assert len(read_training_data(stream, limit=3).dataset) == 3
    arrays = {
        "query": "q",
        "documents": np.array(["a", "b"]),
        "scores": np.array([1, 2], np.float32),
        "url": np.nan,
    }
    assert list(read_rows([arrays])) == [Row("q", ("a", "b"), (1.0, 2.0))]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (
            DatasetDict(train=Dataset.from_list([PAIR])),
            "of the type DatasetDict; give data['train'] or another split",
        ),
        (PAIR, "of the type dict; give paths, data sets, or a list of dictionaries"),
        (5, "of the type int; give paths"),
        ([PAIR, "x"], "row 2: is str; give a dictionary"),
        ([["q", "p"]], "training data hold list; give paths"),
    ],
)
def test_other_objects_are_refused(data, expected):
    assert expected in message(lambda: read_rows(data))


def test_own_data_are_read_again(tmp_path):
    records = [
        {**PAIR, "negatives": ["n", "m"], "scores": [3, 2, 1]},
        {"query": "q", "documents": ["a", "b", "c"]},
    ]
    for record in records:
        data = read_training_data([record])
        again = read_training_data(data.dataset)
        assert again.columns == data.columns and again.dataset.to_list() == data.dataset.to_list()
