"""Queries against the definition: the weight of each distinct token, by a plain loop over the tokenizer."""

import numpy as np
import pytest

from st_l0.query_encoder import QueryEncoder
from tiny_models import LETTERS, VOCABULARY, WORDS, make_tokenizer

UNLIMITED = int(1e30)


@pytest.fixture
def tokenizer():
    return make_tokenizer()


@pytest.fixture
def table():
    weights = np.random.default_rng(3).uniform(0.1, 9, len(VOCABULARY)).astype(np.float32)
    weights[:5] = 0  # special tokens
    return weights


def expected(tokenizer, table, text, max_length=None):
    ids = tokenizer.convert_tokens_to_ids(tokenizer.tokenize(text))[:max_length]
    row = np.zeros(len(table), dtype=np.float32)
    for token in ids:
        if token < len(table):
            row[token] = table[token]
    return row


def random_texts(count, seed=0):
    generator = np.random.default_rng(seed)
    vocabulary = np.array(
        [*WORDS, "cats", "Sleeping", "zzz", "qx", "[SEP]", "[MASK]", "日本", ".", ",", "", "b2"]
    )
    return [" ".join(generator.choice(vocabulary, generator.integers(0, 12))) for _ in range(count)]


def test_rows_are_the_weights_of_the_distinct_tokens(tokenizer, table):
    texts = random_texts(200)
    matrix = QueryEncoder(tokenizer, UNLIMITED)(texts, table)
    assert matrix.shape == (200, len(VOCABULARY))
    assert matrix.dtype == np.float32
    np.testing.assert_array_equal(
        matrix.toarray(), np.stack([expected(tokenizer, table, text) for text in texts])
    )
    assert matrix.nnz > 500


def test_the_matrix_is_as_canonical_as_it_says(tokenizer, table):
    matrix = QueryEncoder(tokenizer, UNLIMITED)(random_texts(50), table)
    assert matrix.has_canonical_format
    assert (matrix.data != 0).all()
    for start, end in zip(matrix.indptr[:-1], matrix.indptr[1:], strict=True):
        assert (np.diff(matrix.indices[start:end]) > 0).all()
    assert matrix.indptr[0] == 0
    assert matrix.indptr[-1] == matrix.nnz == len(matrix.indices)


def test_one_text_equals_its_row_of_a_batch(tokenizer, table):
    texts = random_texts(40)
    encode = QueryEncoder(tokenizer, UNLIMITED)
    batch = encode(texts, table)
    for row, text in enumerate(texts):
        one = encode([text], table)
        np.testing.assert_array_equal(one.toarray()[0], batch[row].toarray()[0])


def test_by_hand(tokenizer, table):
    matrix = QueryEncoder(tokenizer, UNLIMITED)(["The cat, the CAT sleeping"], table)
    tokens = ["the", "cat", ",", "sleep", "##ing"]
    row = np.zeros(len(VOCABULARY), dtype=np.float32)
    for token in tokens:
        row[VOCABULARY.index(token)] = table[VOCABULARY.index(token)]
    np.testing.assert_array_equal(matrix.toarray()[0], row)
    assert matrix.nnz == 5


def test_special_and_unknown_words_weigh_nothing(tokenizer, table):
    encode = QueryEncoder(tokenizer, UNLIMITED)
    assert encode(["[SEP] [MASK] zzz [CLS] [PAD] [UNK]"], table).nnz == 0
    assert encode(["[SEP] [MASK] zzz cat"], table).indices.tolist() == [VOCABULARY.index("cat")]


@pytest.mark.parametrize("texts", [[""], ["", "cat", "  "], []])
def test_empty_texts(tokenizer, table, texts):
    matrix = QueryEncoder(tokenizer, UNLIMITED)(texts, table)
    assert matrix.shape == (len(texts), len(VOCABULARY))
    assert matrix.nnz == texts.count("cat")


def test_a_query_is_cut_after_max_length_tokens(tokenizer, table):
    text = "cat dog bird fish tree river"
    for limit in (1, 3, 6, 100):
        matrix = QueryEncoder(tokenizer, limit)([text, text], table)
        for row in matrix.toarray():
            np.testing.assert_array_equal(row, expected(tokenizer, table, text, limit))
    long = " ".join([*WORDS] * 300)
    assert QueryEncoder(tokenizer, UNLIMITED)([long], table).nnz == len(set(WORDS))


def test_the_tokenizer_and_the_copy_do_not_disturb_each_other(tokenizer, table):
    encode = QueryEncoder(tokenizer, 4)
    before = encode(["cat dog bird fish tree"], table)
    assert tokenizer.backend_tokenizer.truncation is None
    assert tokenizer.backend_tokenizer.padding is None
    tokenizer(["cat", "cat dog bird"], padding=True, truncation=True, max_length=2)
    assert tokenizer.backend_tokenizer.truncation["max_length"] == 2
    after = encode(["cat dog bird fish tree", "cat"], table)
    np.testing.assert_array_equal(after[0].toarray(), before.toarray())
    assert after[1].nnz == 1
    # And one that was told to cut and pad before the copy was made.
    ones = np.ones_like(table)
    batch = QueryEncoder(tokenizer, UNLIMITED)(["cat dog bird fish tree", "cat"], ones)
    assert np.diff(batch.indptr).tolist() == [5, 1]


def test_a_token_without_an_entry_weighs_nothing(tokenizer, table):
    tokenizer.add_tokens(["newword"])
    matrix = QueryEncoder(tokenizer, UNLIMITED)(["newword", "cat newword dog"], table)
    assert matrix.shape == (2, len(VOCABULARY))
    assert matrix.toarray()[0].sum() == 0
    np.testing.assert_array_equal(matrix.toarray()[1], expected(tokenizer, table, "cat newword dog"))
    assert matrix.nnz == 2


def test_a_weight_below_zero_weighs_nothing(tokenizer, table):
    table[VOCABULARY.index("cat")] = -2
    matrix = QueryEncoder(tokenizer, UNLIMITED)(["cat dog", "cat"], table)
    assert matrix.indices.tolist() == [VOCABULARY.index("dog")]
    assert matrix.indptr.tolist() == [0, 1, 1]
    assert table[VOCABULARY.index("cat")] == -2


def test_a_table_full_of_weights_and_one_full_of_zeros(tokenizer):
    encode = QueryEncoder(tokenizer, UNLIMITED)
    ones = np.ones(len(VOCABULARY), dtype=np.float32)
    assert encode(["cat [SEP]"], ones).nnz == 2, "the table decides, not the tokenizer"
    assert encode(["cat [SEP]", LETTERS], np.zeros_like(ones)).nnz == 0
