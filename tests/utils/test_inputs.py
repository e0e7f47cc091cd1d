"""Texts in the forms that people have, and what is said of what is none."""

import array
from collections import UserDict, deque
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from datasets import Dataset

from st_l0.errors import InputError
from st_l0.utils.inputs import as_texts, is_one_text, text_batches

TEXTS = ["rain", "été 雨", ""]
LISTS = {
    "list": lambda: TEXTS,
    "tuple": lambda: tuple(TEXTS),
    "generator": lambda: (text for text in TEXTS),
    "map": lambda: map(str, TEXTS),
    "deque": lambda: deque(TEXTS),
    "keys": lambda: dict.fromkeys(TEXTS).keys(),
    "values": lambda: dict(enumerate(TEXTS)).values(),
    "numpy": lambda: np.array(TEXTS),
    "numpy of objects": lambda: np.array(TEXTS, dtype=object),
    "series": lambda: pd.Series(TEXTS, index=[7, 5, 3]),
    "categories": lambda: pd.Series(TEXTS, dtype="category"),
    "index": lambda: pd.Index(TEXTS),
    "column": lambda: Dataset.from_dict({"text": TEXTS})["text"],
    "column for numpy": lambda: Dataset.from_dict({"text": TEXTS}).with_format("numpy")["text"],
    "Arrow": lambda: pa.chunked_array([TEXTS[:1], TEXTS[1:]]),
    "as stock has them": lambda: [{"text": text} for text in TEXTS],
    "some as stock has them": lambda: [TEXTS[0], UserDict({"text": TEXTS[1]}), TEXTS[2]],
}


@pytest.mark.parametrize("kind", LISTS)
def test_every_list_of_texts_is_one(kind):
    assert as_texts(LISTS[kind]()) == TEXTS
    assert all(type(text) in (str, np.str_) for text in as_texts(LISTS[kind]()))


def test_a_list_is_not_copied():
    assert as_texts(TEXTS) is TEXTS
    assert as_texts([]) == as_texts(()) == as_texts(np.array([], dtype=str)) == as_texts(iter([])) == []


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (lambda: "rain", "'rain' is one text where a list of texts is expected: give ['rain']"),
        (lambda: b"rain", "bytes is no list of texts: decode it first"),
        (lambda: None, "None is no list of texts: give a list of strings"),
        (lambda: 3, "3 (int) is no list of texts: give a list of strings"),
        (lambda: Path("a"), "PosixPath('a') (PosixPath) is no list of texts: give a list of strings"),
        (lambda: np.array("rain"), "array('rain', dtype='<U4') (ndarray) is no list of texts"),
        (lambda: {"d1": "rain"}, "a dict (of 'd1') is no list of texts: give its values, list(it.values())"),
        (lambda: dict.fromkeys("abcde"), "a dict (of 'a', 'b', 'c', …) is no list of texts"),
        (lambda: {}, "a dict (of nothing) is no list of texts"),
        (lambda: {"rain", "sun"}, "a set has no order: give a list of texts"),
        (
            lambda: pd.DataFrame({"t": TEXTS}),
            "a DataFrame is a table, no list of texts: give the column that",
        ),
        (lambda: Dataset.from_dict({"text": TEXTS}), "a Dataset is a table, no list of texts"),
        (lambda: pa.table({"text": TEXTS}), "a Table is a table, no list of texts"),
        (lambda: ["a", None], "text 1 is None, no string: give one, which may be empty, or leave it out"),
        (lambda: ["a", float("nan")], "text 1 is nan, no string"),
        (lambda: pd.Series(["a", None], dtype=object), "text 1 is None, no string"),
        (lambda: pd.Series(["a", pd.NA], dtype="string"), "text 1 is <NA>, no string"),
        (lambda: pa.array(["a", None]), "text 1 is None, no string"),
        (lambda: ["a", b"b"], "text 1 is bytes, no string"),
        (lambda: [3, "a"], "text 0 is 3 (int), no string"),
        (lambda: [True], "text 0 is True (bool), no string"),
        (lambda: np.arange(2), "text 0 is 0 (int), no string"),
        (lambda: array.array("d", [1.5]), "text 0 is 1.5 (float), no string"),
        (lambda: torch.ones(2), "text 0 is 1.0 (float), no string"),
        (lambda: [["a", "b"]], "text 0 is a list, no string"),
        (lambda: np.array([["a", "b"]]), "text 0 is a list, no string"),
        (lambda: ["c", ("a", "b")], "text 1 is a tuple, no string"),
        (lambda: [{"title": "a"}], "text 0 is a dictionary of 'title', no string"),
        (lambda: [{"text": "a", "id": 1}], "text 0 is a dictionary of 'text', 'id', no string"),
        (lambda: [{"text": None}], "text 0 is None, no string"),
        (lambda: [{"text": ["a", "b"]}], "text 0 is a list, no string"),
        (lambda: (text for text in ["a", 1]), "text 1 is 1 (int), no string"),
        (lambda: [object()], "text 0 is a object, no string"),
        (lambda: ["a", "x\ud800y"], r"text 1 holds a lone surrogate, '\ud800' at character 1, which is no"),
        # Two halves of one character, in two texts: each is alone.
        (lambda: ["a\ud83d", "\ude00b"], r"text 0 holds a lone surrogate, '\ud83d' at character 1"),
        (lambda: ["été"] * 9000 + [None], "text 9000 is None, no string"),
    ],
)
def test_what_is_no_list_of_texts_is_refused_by_place(given, message):
    with pytest.raises(InputError) as caught:
        as_texts(given())
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_the_advice_on_surrogates_helps():
    assert as_texts(["x\ud800y".encode("utf-8", "replace").decode()]) == ["x?y"]


def test_texts_go_by_the_names_that_they_are_given():
    with pytest.raises(InputError, match=r"^query 'q2' is nan, no string"):
        as_texts({"q1": "a", "q2": float("nan")}.values(), "query", {"q1": 0, "q2": 0})


def test_one_text():
    assert is_one_text("") and is_one_text({"text": None}) and is_one_text(np.str_("a"))
    assert not is_one_text(["a"]) and not is_one_text({"title": "a"}) and not is_one_text({})


def test_a_stream_counts_on():
    assert list(text_batches(iter("abcde"), 2)) == [["a", "b"], ["c", "d"], ["e"]]
    stream = text_batches(iter(["a", "b", "c", None]), 2)
    assert next(stream) == ["a", "b"]
    with pytest.raises(InputError, match=r"^text 3 is None"):
        next(stream)
    for wrong in ("abc", {"d1": "a"}):
        with pytest.raises(InputError, match="list of texts"):
            next(text_batches(wrong, 2))
