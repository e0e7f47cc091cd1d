"""Queries against the definition: the weight of each distinct token, by a plain loop over the tokenizer."""

import numpy as np
import pytest
import scipy.sparse as sp
import sentence_transformers
import torch
from test_word_cache import NASTY
from test_word_cache import random_texts as fuzz
from transformers import BertTokenizerFast

from st_l0.encoder.queries import QueryLookup
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
    matrix = QueryLookup(tokenizer, UNLIMITED)(texts, table)
    assert matrix.shape == (200, len(VOCABULARY))
    assert matrix.dtype == np.float32
    np.testing.assert_array_equal(
        matrix.toarray(), np.stack([expected(tokenizer, table, text) for text in texts])
    )
    assert matrix.nnz > 500


def test_the_matrix_is_as_canonical_as_it_says(tokenizer, table):
    matrix = QueryLookup(tokenizer, UNLIMITED)(random_texts(50), table)
    assert matrix.has_canonical_format
    assert (matrix.data != 0).all()
    for start, end in zip(matrix.indptr[:-1], matrix.indptr[1:], strict=True):
        assert (np.diff(matrix.indices[start:end]) > 0).all()
    assert matrix.indptr[0] == 0
    assert matrix.indptr[-1] == matrix.nnz == len(matrix.indices)


def test_one_text_equals_its_row_of_a_batch(tokenizer, table):
    texts = random_texts(40)
    encode = QueryLookup(tokenizer, UNLIMITED)
    batch = encode(texts, table)
    for row, text in enumerate(texts):
        one = encode([text], table)
        np.testing.assert_array_equal(one.toarray()[0], batch[row].toarray()[0])


def test_by_hand(tokenizer, table):
    matrix = QueryLookup(tokenizer, UNLIMITED)(["The cat, the CAT sleeping"], table)
    tokens = ["the", "cat", ",", "sleep", "##ing"]
    row = np.zeros(len(VOCABULARY), dtype=np.float32)
    for token in tokens:
        row[VOCABULARY.index(token)] = table[VOCABULARY.index(token)]
    np.testing.assert_array_equal(matrix.toarray()[0], row)
    assert matrix.nnz == 5


def test_special_and_unknown_words_weigh_nothing(tokenizer, table):
    encode = QueryLookup(tokenizer, UNLIMITED)
    assert encode(["[SEP] [MASK] zzz [CLS] [PAD] [UNK]"], table).nnz == 0
    assert encode(["[SEP] [MASK] zzz cat"], table).indices.tolist() == [VOCABULARY.index("cat")]


@pytest.mark.parametrize("texts", [[""], ["", "cat", "  "], []])
def test_empty_texts(tokenizer, table, texts):
    matrix = QueryLookup(tokenizer, UNLIMITED)(texts, table)
    assert matrix.shape == (len(texts), len(VOCABULARY))
    assert matrix.nnz == texts.count("cat")


def test_a_query_is_cut_after_max_length_tokens(tokenizer, table):
    text = "cat dog bird fish tree river"
    for limit in (1, 3, 6, 100):
        matrix = QueryLookup(tokenizer, limit)([text, text], table)
        for row in matrix.toarray():
            np.testing.assert_array_equal(row, expected(tokenizer, table, text, limit))
    long = " ".join([*WORDS] * 300)
    assert QueryLookup(tokenizer, UNLIMITED)([long], table).nnz == len(set(WORDS))


def test_the_tokenizer_and_the_copy_do_not_disturb_each_other(tokenizer, table):
    encode = QueryLookup(tokenizer, 4)
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
    batch = QueryLookup(tokenizer, UNLIMITED)(["cat dog bird fish tree", "cat"], ones)
    assert np.diff(batch.indptr).tolist() == [5, 1]


def test_a_token_without_an_entry_weighs_nothing(tokenizer, table):
    tokenizer.add_tokens(["newword"])
    matrix = QueryLookup(tokenizer, UNLIMITED)(["newword", "cat newword dog"], table)
    assert matrix.shape == (2, len(VOCABULARY))
    assert matrix.toarray()[0].sum() == 0
    np.testing.assert_array_equal(matrix.toarray()[1], expected(tokenizer, table, "cat newword dog"))
    assert matrix.nnz == 2


def test_a_weight_below_zero_weighs_nothing(tokenizer, table):
    table[VOCABULARY.index("cat")] = -2
    matrix = QueryLookup(tokenizer, UNLIMITED)(["cat dog", "cat"], table)
    assert matrix.indices.tolist() == [VOCABULARY.index("dog")]
    assert matrix.indptr.tolist() == [0, 1, 1]
    assert table[VOCABULARY.index("cat")] == -2


def test_a_table_full_of_weights_and_one_full_of_zeros(tokenizer):
    encode = QueryLookup(tokenizer, UNLIMITED)
    ones = np.ones(len(VOCABULARY), dtype=np.float32)
    assert encode(["cat [SEP]"], ones).nnz == 2, "the table decides, not the tokenizer"
    assert encode(["cat [SEP]", LETTERS], np.zeros_like(ones)).nnz == 0


@pytest.mark.parametrize("texts", [["the cat"], ["zzz"], [""], ["newword"], ["b2 river " * 40]])
def test_one_query_for_torch_is_its_row_for_scipy(tokenizer, table, texts):
    tokenizer.add_tokens(["newword"])
    encode = QueryLookup(tokenizer, UNLIMITED)
    vector = encode.vector(texts[0], table)
    assert vector.layout is torch.sparse_coo
    assert vector.is_coalesced()
    assert vector.shape == (len(VOCABULARY),)
    assert vector.dtype is torch.float32
    np.testing.assert_array_equal(vector.to_dense(), encode(texts, table).toarray()[0])
    np.testing.assert_array_equal(vector.to_dense(), expected(tokenizer, table, texts[0]))


def test_matrices_of_one_row_share_nothing(tokenizer, table):
    encode = QueryLookup(tokenizer, UNLIMITED)
    matrices = [encode([text], table) for text in ("the cat", "the dog", "", "the cat")]
    copies = [matrix.toarray() for matrix in matrices]
    matrices[0].data[:] = -1
    matrices[1].indices[:] = 0
    for matrix, values in zip(matrices[2:], copies[2:], strict=True):
        np.testing.assert_array_equal(matrix.toarray(), values)
    shorter = encode(["the cat"], table[:50])
    assert shorter.shape == (1, 50)
    assert matrices[2].shape == (1, len(VOCABULARY))
    assert (sp.vstack(matrices[2:]) @ np.ones(len(VOCABULARY)) > 0).tolist() == [False, True]
    assert table.min() >= 0, "and nothing with the table"


def test_a_query_is_cut_on_the_side_of_the_tokenizer(tokenizer, table):
    tokenizer.truncation_side = "left"
    text = "cat dog\tbird fish tree sleeping"  # seven tokens; once with, once without remembered words
    for one in (text, text.replace("\t", " ")):
        for limit in (1, 3, 7, 8):
            ids = tokenizer(one, add_special_tokens=False, truncation=True, max_length=limit)["input_ids"]
            row = np.zeros_like(table)
            row[ids] = table[ids]
            np.testing.assert_array_equal(QueryLookup(tokenizer, limit)([one], table).toarray()[0], row)
    assert len(ids) == 7


def test_a_word_of_more_tokens_than_the_limit_is_cut(tokenizer, table):
    for text in ("cats2ed the dog", "the cats2ed dog", "abcdefghi", "abcdefghi\tcat"):
        for limit in (1, 2, 3, 5):
            row = expected(tokenizer, table, text, limit)
            for texts in ([text], [text, "cat"]):
                np.testing.assert_array_equal(QueryLookup(tokenizer, limit)(texts, table).toarray()[0], row)


def test_a_weight_that_is_not_a_number_stays(tokenizer, table):
    table[VOCABULARY.index("cat")] = np.nan
    encode = QueryLookup(tokenizer, UNLIMITED)
    for texts in (["the cat"], ["[SEP] cat"], ["the cat", "dog [SEP]"] * 50):
        assert np.isnan(encode(texts, table).data).sum() == "".join(texts).count("cat")


def stock_queries(model, texts):
    stock = sentence_transformers.SparseEncoder(modules=list(model.children()), device="cpu")
    return stock.encode_query(texts)


def test_queries_of_every_kind_equal_stock(tiny_encoder):
    model = tiny_encoder()
    texts = [*NASTY, *fuzz(400, seed=11)]
    stock = stock_queries(model, texts)
    for _ in range(2):  # the second time words are remembered
        ours = model.encode_query(texts)
        assert ours.is_coalesced()
        assert (ours.layout, ours.dtype, ours.shape) == (stock.layout, stock.dtype, stock.shape)
        assert ours.device == stock.device
        np.testing.assert_array_equal(ours.to_dense(), stock.to_dense())
    matrix = model.encode_query(texts, convert_to_scipy=True)
    np.testing.assert_array_equal(matrix.toarray(), stock.to_dense())
    for row, text in enumerate(texts[:60]):
        one, theirs = model.encode_query(text), stock_queries(model, text)
        assert (one.layout, one.dtype, one.shape) == (theirs.layout, theirs.dtype, theirs.shape)
        np.testing.assert_array_equal(one.to_dense(), theirs.to_dense())
        np.testing.assert_array_equal(one.to_dense(), stock[row].to_dense())


def test_a_table_that_changes_counts_from_the_next_query_on(tiny_encoder):
    model = tiny_encoder()
    weight = model[0].sub_modules["query"][0].weight
    cat = VOCABULARY.index("cat")
    first = model.encode_query("cat")
    before = float(first.to_dense()[cat])
    changes = [
        lambda: weight.data.mul_(2),  # which torch does not count as a change
        lambda: weight.detach().numpy().__imul__(2),
        lambda: setattr(weight, "data", weight.data * 2),
        lambda: weight.requires_grad_(True),
        lambda: model.double(),
        lambda: model.half(),
        lambda: model.float(),
        lambda: setattr(model[0].sub_modules["query"][0], "weight", torch.nn.Parameter(weight.detach() * 2)),
    ]
    for change in changes:
        change()
        found = [
            model.encode_query("cat").to_dense(),
            model.encode_query(["cat", "dog"]).to_dense()[0],
            torch.from_numpy(model.encode_query(["cat"], convert_to_scipy=True).toarray()[0]),
        ]
        weight = model[0].sub_modules["query"][0].weight
        for one in found:
            assert one.dtype is torch.float32
            assert one[cat] == weight[cat].float()
            assert not one.requires_grad
    assert weight[cat].item() / before == pytest.approx(16, rel=1e-3)
    assert float(first.to_dense()[cat]) == before, "vectors that were given stay as they are"


def test_modules_that_are_exchanged_count_from_the_next_query_on(tiny_encoder, tokenizer):
    model, double = tiny_encoder(), tiny_encoder()
    cat, router = VOCABULARY.index("cat"), model[0]
    weight = router.sub_modules["query"][0].weight[cat].item()
    double[0].sub_modules["query"][0].weight.data.mul_(2)
    assert model.encode_query("cat").to_dense()[cat] == weight
    former = router.sub_modules["query"][0]
    router.sub_modules["query"][0] = double[0].sub_modules["query"][0]
    assert model.encode_query("cat").to_dense()[cat] == 2 * weight
    router.sub_modules["query"][0] = former
    assert model.encode_query("cat").to_dense()[cat] == weight
    router.sub_modules["query"] = double[0].sub_modules["query"]
    assert model.encode_query("cat").to_dense()[cat] == 2 * weight
    model[0] = tiny_encoder()[0]
    assert model.encode_query("cat").to_dense()[cat] == weight
    # Another tokenizer, in which the two words have changed places.
    words = {token: number for number, token in enumerate(VOCABULARY)}
    words["cat"], words["dog"] = words["dog"], words["cat"]
    model[0].sub_modules["query"][0].tokenizer = BertTokenizerFast(vocab=words, model_max_length=512)
    assert model.encode_query("dog").to_dense()[cat] == weight
    # And queries that run a model.
    model[0].sub_modules["query"] = torch.nn.Sequential(*model[0].sub_modules["document"])
    assert not model.inference_free
    torch.testing.assert_close(
        model.encode_query("cat").to_dense(), model.encode_document("cat").to_dense(), rtol=1e-5, atol=1e-5
    )


def test_a_query_touches_no_layer_of_the_document_side(tiny_encoder, monkeypatch):
    model = tiny_encoder()
    model.encode_query("cat")
    walked = []
    monkeypatch.setattr(torch.nn.Module, "named_modules", lambda self, *args, **kwargs: walked.append(self))
    monkeypatch.setattr(torch.nn.Module, "named_children", lambda self: walked.append(self))
    for options in ({}, {"convert_to_scipy": True}, {"convert_to_sparse_tensor": False}):
        model.encode_query("the cat", **options)
        model.encode_query(["the cat", "a dog"], **options)
    assert walked == []
