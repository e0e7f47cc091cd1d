"""A table of one's own: numbers by hand."""

import math

import numpy as np
import pytest

from st_l0.encoder.idf import compute_idf, document_frequencies
from st_l0.encoder.smoothing import how_counted, idf, own_share, smooth_idf
from st_l0.errors import InputError
from tiny_models import VOCABULARY, make_tokenizer

TEXTS = ["the cat sat.", "the dog", "the cat and the dog"]
CAT, THE, MOON, STOP = (VOCABULARY.index(token) for token in ("cat", "the", "moon", "."))


@pytest.fixture
def counted():
    return *document_frequencies(TEXTS, make_tokenizer(), progress=False), make_tokenizer()


def test_by_hand(counted):
    """N = 3: "the" in 3, "cat" in 2, "moon" in none."""
    found = smooth_idf(*counted)
    assert found.dtype == np.float32
    assert found[[THE, CAT]] == pytest.approx([math.log(8 / 7), math.log(1.6)])
    assert (found[MOON], found[STOP]) == (1, 0) and not found[:5].any()


def test_tokens_that_never_occur(counted):
    assert smooth_idf(*counted, unseen=None)[MOON] == pytest.approx(math.log(8))
    assert smooth_idf(*counted, unseen=0.25)[MOON] == 0.25
    for unseen in (None, 0.25):
        np.testing.assert_array_equal(smooth_idf(*counted, unseen=unseen)[:5], 0)
        assert smooth_idf(*counted, unseen=unseen)[CAT] == pytest.approx(math.log(1.6))


def test_the_mean_with_a_general_table(counted):
    """3 documents beside 9: a quarter is the corpus's own."""
    general = np.full(len(VOCABULARY), 2, np.float32)
    general[MOON] = 9
    found = smooth_idf(*counted, general=general, general_documents=9)
    assert own_share(3, 9) == 0.25
    assert found[CAT] == pytest.approx(0.25 * math.log(1.6) + 0.75 * 2)
    assert found[MOON] == pytest.approx(0.25 * 1 + 0.75 * 9)
    assert found[STOP] == 0 and not found[:5].any()  # whatever the general table says
    assert (general[[0, STOP]] == 2).all()
    kept = smooth_idf(*counted, general=general, general_documents=9, punctuation=True)
    assert kept[STOP] == pytest.approx(0.25 * math.log(1 + 2.5 / 1.5) + 0.75 * 2)


def test_all_choices_reach_the_function_of_texts(counted):
    general = np.linspace(0, 5, len(VOCABULARY), dtype=np.float32)
    options = {"unseen": None, "general": general, "general_documents": 7, "punctuation": True}
    whole = compute_idf(TEXTS, make_tokenizer(), progress=False, **options)
    np.testing.assert_array_equal(whole, smooth_idf(*counted, **options))
    former = compute_idf(TEXTS, make_tokenizer(), unseen=None, punctuation=True, progress=False)
    expected = idf(*counted[:2])
    expected[:5] = 0
    np.testing.assert_array_equal(former, expected)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"unseen": -1.0}, "unseen is -1.0; give a finite weight of at least 0"),
        ({"unseen": math.inf}, "unseen is inf; give a finite weight of at least 0"),
        ({"unseen": math.nan}, "unseen is nan; give a finite weight of at least 0"),
        ({"general": np.ones(3)}, r"the general table has the shape \(3,\), the frequencies"),
        (
            {"general": np.ones(len(VOCABULARY)), "general_documents": 0},
            "general_documents is 0; give at least 1",
        ),
    ],
)
def test_what_is_refused(counted, options, problem):
    with pytest.raises(InputError, match=problem):
        smooth_idf(*counted, **options)


def test_in_words():
    options = {"unseen": None, "general": np.ones(4), "general_documents": 3000, "punctuation": True}
    assert how_counted(np.array([0, 0, 900, 1000]), 1000, **options) == (
        "1,000 documents, 2 tokens occur, 2 do not and weigh the most, punctuation weighs its IDF, mean of "
        "0.25 of this table and 0.75 of the general one"
    )
