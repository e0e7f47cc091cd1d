"""Packing, rows and streaming: each text gets the vector that stock gives it, whatever it is batched with."""

from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sentence_transformers.util import select_max_active_dims

from st_l0.encoder.documents import (
    _active_entries,
    encode_texts,
    pack,
)
from st_l0.errors import InputError
from st_l0.indexing.encode import encode_stream
from st_l0.utils.sparse import as_csr
from tiny_models import ARCHITECTURES, DOCUMENTS, VOCABULARY, dense, stock_encode

LETTERS = "abcdefgh"


def some_texts(number=37, longest=40, seed=0):
    generator = np.random.default_rng(seed)
    words = [word for word in VOCABULARY if word.isalpha()]
    return [" ".join(generator.choice(words, generator.integers(0, longest))) for _ in range(number)]


class Letters:
    """Counts the letters a-h; a token a letter, an h at each padded place. Notes what it is given."""

    device = torch.device("cpu")

    def __init__(self, padding="right", flat=False):
        self.padding, self.flat = padding, flat
        self.tokenized, self.shapes, self.evaluating = [], [], False

    def eval(self):
        self.evaluating = True

    def get_embedding_dimension(self):
        return len(LETTERS)

    def _can_flatten_inputs(self):
        return self.flat

    def preprocess(self, texts, prompt=None, task=None):
        rows = [[LETTERS.index(letter) for letter in (prompt or "") + text] for text in texts]
        self.tokenized.append(len(rows))
        if self.flat:
            return {"rows": rows}
        longest = max(map(len, rows))
        ids, mask = torch.full((len(rows), longest), 7), torch.zeros(len(rows), longest, dtype=torch.long)
        for row, tokens in enumerate(rows):
            place = (
                slice(0, len(tokens)) if self.padding == "right" else slice(longest - len(tokens), longest)
            )
            ids[row, place], mask[row, place] = torch.tensor(tokens, dtype=torch.long), 1
        return {"input_ids": ids, "attention_mask": mask, "prompt_length": len(prompt or "")}

    def __call__(self, features, task):
        assert torch.is_inference_mode_enabled()
        assert self.evaluating
        if self.flat:
            self.shapes.append((len(features["rows"]), None))
            rows = [torch.tensor(row, dtype=torch.long) for row in features["rows"]]
        else:
            assert isinstance(features["prompt_length"], int)
            self.shapes.append(tuple(features["input_ids"].shape))
            pairs = zip(features["input_ids"], features["attention_mask"], strict=True)
            rows = [ids[mask.bool()] for ids, mask in pairs]
        counts = [torch.bincount(row, minlength=len(LETTERS)) for row in rows]
        return {"sentence_embedding": torch.stack(counts).float()}


def counts_of(texts):
    return np.array([[text.count(letter) for letter in LETTERS] for text in texts], np.float32)


def encode(model, texts, **options):
    defaults = {"prompt": None, "task": None, "batch_size": 2, "max_active_dims": None, "progress": False}
    return encode_texts(model, texts, **{**defaults, **options})


# Packing


@pytest.mark.parametrize(
    ("lengths", "tokens", "texts", "expected"),
    [
        # 20 tokens: two of 10, two of 9, then three of 5 (the text of 1 is more than an eighth shorter).
        ([10, 10, 9, 9, 5, 5, 5, 1], 20, 4, [2, 2, 3, 1]),
        # A quarter of 32 tokens is reached by one text of 8, by two places of 4, and never by the ones left.
        ([8, 4, 2, 2, 1, 1], 32, 8, [1, 2, 3]),
        # No more texts than allowed, however short.
        ([1] * 10, 100, 4, [4, 4, 2]),
        # 16 - 16 // 8 = 14 is still close enough, 13 is not.
        ([16, 16, 14, 13, 13], 128, 8, [3, 2]),
        # A text above the budget is a batch alone.
        ([50, 40, 1, 1], 30, 8, [1, 1, 2]),
        ([3], 3, 4, [1]),
        ([], 10, 4, []),
        ([0, 0], 8, 4, [2]),
    ],
)
def test_packing_by_hand(lengths, tokens, texts, expected):
    cuts = list(pack(np.array(lengths, dtype=np.int64), tokens=tokens, texts=texts))
    assert [cut.stop - cut.start for cut in cuts] == expected
    assert [cut.start for cut in cuts] == [0, *np.cumsum(expected)[:-1]][: len(expected)]


@pytest.mark.parametrize("seed", range(5))
def test_packing_covers_all_within_the_budget(seed):
    generator = np.random.default_rng(seed)
    lengths = np.sort(generator.integers(1, 200, 300))[::-1]
    budget = 8 * lengths[0]
    batches = [lengths[cut] for cut in pack(lengths, tokens=int(budget), texts=32)]
    np.testing.assert_array_equal(np.concatenate(batches), lengths)
    assert all(len(batch) <= 32 and len(batch) * batch[0] <= budget for batch in batches)
    padded = sum(len(batch) * batch[0] for batch in batches)
    assert padded < 1.1 * lengths.sum()


# Batches


@pytest.mark.parametrize("padding", ["left", "right"])
def test_rows_come_back_in_order_with_little_padding(padding):
    generator = np.random.default_rng(3)
    texts = ["".join(generator.choice(list(LETTERS), generator.integers(1, 60))) for _ in range(101)]
    model = Letters(padding)
    matrix = encode(model, texts, batch_size=4)
    np.testing.assert_array_equal(matrix.toarray(), counts_of(texts))
    assert matrix.dtype == np.float32
    assert matrix.has_canonical_format
    assert (matrix.data != 0).all()
    assert sum(rows for rows, _ in model.shapes) == 101
    longest = max(map(len, texts))
    assert all(rows * width <= 4 * longest and rows <= 16 for rows, width in model.shapes)
    assert max(rows for rows, _ in model.shapes) > 4  # short texts go in larger batches
    assert model.shapes[0][1] == longest  # a lack of memory shows at once
    assert sum(rows * width for rows, width in model.shapes) < 1.15 * sum(map(len, texts))
    assert model.tokenized == [32, 32, 32, 5]


def test_inputs_without_padding_are_left_as_they_are():
    model = Letters(flat=True)
    texts = ["a", "bbb", "cc", "", "dddd"]
    np.testing.assert_array_equal(encode(model, texts).toarray(), counts_of(texts))
    assert model.shapes == [(2, None), (2, None), (1, None)]


def test_empty_texts_and_prompts():
    np.testing.assert_array_equal(encode(Letters(), ["", "", ""]).toarray(), np.zeros((3, 8)))
    expected = counts_of(["aba", "abh"])
    np.testing.assert_array_equal(encode(Letters(), ["a", "h"], prompt="ab").toarray(), expected)
    assert encode(Letters(), []).shape == (0, 8)


def test_a_damaged_model_is_named_with_the_text():
    class Damaged(Letters):
        def __call__(self, features, task):
            output = super().__call__(features, task)
            values = output["sentence_embedding"]
            values[values[:, 7] > 0, 2] = float("nan")
            return output

    with pytest.raises(InputError, match=r"^text 3 gets weights that are not finite: the model is damaged$"):
        encode(Damaged(), ["a", "bb", "ccc", "h", "aaaaa"])


def test_the_largest_weights_are_those_of_stock_ties_included():
    generator = torch.Generator().manual_seed(0)
    values = torch.randint(0, 4, (40, 300), generator=generator).float()  # many ties
    values[3] = 0
    values[5, 10:] = 0
    for limit in (1, 7, 60, 250, 1000):
        kept = _active_entries(values, np.arange(40), limit)
        expected = as_csr(select_max_active_dims(values, limit))
        np.testing.assert_array_equal(kept.counts, np.diff(expected.indptr))
        np.testing.assert_array_equal(kept.columns, expected.indices)
        np.testing.assert_array_equal(kept.weights, expected.data)
    untouched = values.clone()
    _active_entries(values, np.arange(40), 3)
    assert torch.equal(values, untouched)


# Against stock


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_vectors_are_those_of_stock(tiny_encoder, mlm_folders, architecture):
    model = tiny_encoder(mlm_folders(architecture))
    texts = [*some_texts(), *DOCUMENTS]
    stock = dense(stock_encode(model, texts, "document"))
    for batch_size in (1, 3, 32):
        ours = dense(model.encode_document(texts, batch_size=batch_size))
        np.testing.assert_allclose(ours, stock, rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(ours > 1e-4, stock > 1e-4)


@pytest.mark.parametrize("limit", [1, 5, 10_000])
def test_max_active_dims_is_that_of_stock(tiny_encoder, limit):
    model = tiny_encoder()
    texts = some_texts()
    stock = dense(stock_encode(model, texts, "document", max_active_dims=limit))
    ours = dense(model.encode_document(texts, max_active_dims=limit))
    np.testing.assert_allclose(ours, stock, rtol=1e-4, atol=1e-5)


# Streaming


def test_a_stream_is_read_a_window_at_a_time(tiny_encoder):
    model = tiny_encoder()
    texts = some_texts(23)
    read = []

    def source():
        for text in texts:
            read.append(text)
            yield text

    stream = encode_stream(model, source(), window=5, batch_size=2)
    assert read == []
    parts = []
    for number, part in enumerate(stream, 1):
        assert len(read) == min(5 * number, 23)
        parts.append(part)
    assert [part.shape[0] for part in parts] == [5, 5, 5, 5, 3]
    together = dense(model.encode_document(texts))
    together[[not text for text in texts]] = 0
    np.testing.assert_allclose(np.concatenate([part.toarray() for part in parts]), together, atol=1e-5)


def test_a_stream_takes_the_settings_of_the_model(tiny_encoder):
    model = tiny_encoder()
    model.prompts["document"] = "moon "
    model.max_active_dims = 4
    (part,) = encode_stream(model, iter(["cat", "the dog"]))
    np.testing.assert_array_equal(part.toarray(), dense(model.encode_document(["cat", "the dog"])))
    assert np.diff(part.indptr).tolist() == [4, 4]
    (fewer,) = encode_stream(model, ["cat"], max_active_dims=2)
    assert fewer.nnz == 2
    assert list(encode_stream(model, [])) == []


def test_an_impossible_window():
    with pytest.raises(InputError, match="window must be at least 1, not 0"):
        next(encode_stream(SimpleNamespace(), ["a"], window=0))


# Half precision


def test_eight_threads_encode_as_one(tiny_encoder):
    model, texts = tiny_encoder(), some_texts(64, seed=5)
    chunks = [texts[start : start + 8] for start in range(0, 64, 8)]
    alone = [dense(model.encode_document(chunk)) for chunk in chunks]
    with ThreadPoolExecutor(8) as pool:
        together = [dense(found) for found in pool.map(model.encode_document, chunks * 3)]
    for number, found in enumerate(together):
        np.testing.assert_array_equal(found, alone[number % 8])
