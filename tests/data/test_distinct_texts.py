"""Distinct texts of a data set, against sets of Python."""

import numpy as np
import pytest
from datasets import Dataset, Features, Value

from st_l0.data.distinct_texts import DistinctTexts, LookUp, text_columns
from st_l0.data.texts import Texts

COLUMNS = {
    "query": ["a", "b", "a", "é\0", ""],
    "positive": ["rain", "sun", "snow", "rain", "b"],
    "negative": ["sun", "wind", "", "rain", "wind"],
}


def by_id():
    """The same rows as numbers of texts, with two numbers of one text."""
    documents = ["wind", "rain", "sun", "snow", "b", "empty", "rain"]
    numbers = {"query": [0, 1, 0, 2, 3], "positive": [1, 2, 3, 6, 4], "negative": [2, 0, 5, 1, 0]}
    features = Features({**dict.fromkeys(numbers, Value("int32")), "scores": Value("float32")})
    corpus = Texts(Dataset.from_dict({"_id": list("0123456"), "text": documents}), "corpus", "corpus")
    queries = Texts(Dataset.from_dict({"_id": list("0123"), "text": list("abcd")}), "queries", "queries")
    rows = Dataset.from_dict({**numbers, "scores": [0.0] * 5}, features=features)
    return rows.with_transform(LookUp(corpus, queries))


@pytest.mark.parametrize("columns", [["query"], ["positive", "negative"], ["negative", "positive"], []])
def test_each_text_comes_once_in_order(columns):
    found = DistinctTexts(Dataset.from_dict(COLUMNS), columns)
    expected = list(dict.fromkeys(text for name in columns for text in COLUMNS[name]))
    assert list(found) == expected
    assert len(found) == len(expected)


def test_more_rows_than_are_read_at_once():
    numbers = np.random.default_rng(0).integers(0, 6000, (2, 9001))
    columns = {name: [f"text {number}" for number in row] for name, row in zip("ab", numbers, strict=True)}
    found = list(DistinctTexts(Dataset.from_dict(columns), ["a", "b"]))
    assert found == list(dict.fromkeys(columns["a"] + columns["b"]))


def test_of_rows_that_were_selected():
    data = Dataset.from_dict(COLUMNS).select([3, 1])
    assert list(DistinctTexts(data, ["positive", "negative"])) == ["rain", "sun", "wind"]


def test_rows_of_ids_are_told_apart_by_their_numbers():
    data = by_id()
    assert text_columns(data) == ["query", "positive", "negative"]
    assert list(DistinctTexts(data, ["query"])) == ["a", "b", "c", "d"]
    documents = ["rain", "sun", "snow", "rain", "b", "wind", "empty"]
    assert list(DistinctTexts(data, ["positive", "negative"])) == documents
    assert list(DistinctTexts(data, ["query", "positive"])) == [*"abcd", *documents[:5]]


def test_which_columns_hold_texts():
    data = Dataset.from_dict({"query": ["a"], "label": [1.0], "scores": [[1.0]], "number": [3]})
    assert text_columns(data) == ["query"]
    assert text_columns(data.with_transform(lambda rows: rows)) == []
