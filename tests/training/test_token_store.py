"""Batches out of stored tokens are those of live tokenizing, feature by feature."""

import pickle
import random

import pytest
import torch
from datasets import Dataset
from sentence_transformers.sparse_encoder.data_collator import SparseEncoderDataCollator

from st_l0 import SparseEncoder
from st_l0.data.distinct_texts import DistinctTexts
from st_l0.encoder.modules import encoder_modules, text_tokenizer
from st_l0.training import token_store
from st_l0.training.collator import KeepTexts, StoredTokens
from st_l0.training.token_store import NotStorable, Side, TokenStore, write_tokens
from tiny_models import DOCUMENTS, QUERIES, make_mlm
from vocabularies import byte_level, in_transformers

LONG = "the cat and the dog in the house of the woman. " * 3
TEXTS = [*DOCUMENTS, LONG, f"a {LONG}", "the  two   spaces", "cat", "日本 fish"]
ROUTES = {"query": "query", "positive": "document", "negative": "document"}
PROMPTS = {"query": "a: ", "positive": "the song: ", "negative": "the song: "}


@pytest.fixture(params=["wordpiece", "bpe", "left", "siamese"])
def model(request, tmp_path, tiny_encoder):
    if request.param == "bpe":
        tokenizer = in_transformers(byte_level())
        make_mlm("roberta", len(tokenizer)).save_pretrained(tmp_path / "mlm")
        tokenizer.save_pretrained(tmp_path / "mlm")
        return SparseEncoder.from_mlm(tmp_path / "mlm", idf="binary", max_seq_length=16, device="cpu")
    if request.param == "siamese":
        return tiny_encoder(idf=None, max_seq_length=16)
    model = tiny_encoder(max_seq_length=16)
    if request.param == "left":
        modules = encoder_modules(model)
        modules.tokenizer.padding_side = text_tokenizer(modules.transformer).padding_side = "left"
    return model


def rows():
    chance = random.Random(0)
    columns = {"query": QUERIES, "positive": TEXTS, "negative": TEXTS}
    return [{name: chance.choice(texts) for name, texts in columns.items()} for _ in range(40)]


def store_of(model, folder, prompts, routes=ROUTES, **options):
    data, sides = Dataset.from_list(rows()), {}
    for name in data.column_names:
        side = Side(routes.get(name), prompts.get(name) if prompts else None)
        sides.setdefault(side, []).append(name)
    texts = {side: DistinctTexts(data, names) for side, names in sides.items()}
    size = len(encoder_modules(model).tokenizer)
    write_tokens(
        folder,
        texts,
        options.get("preprocess", model.preprocess),
        vocabulary_size=options.get("vocabulary_size", size),
        fingerprint="f",
    )
    return TokenStore(folder)


def counted(model):
    """The model's own function, and the texts that it was asked for."""
    asked = []

    def preprocess(texts, **options):
        asked.append(list(texts))
        return model.preprocess(texts, **options)

    return preprocess, asked


def assert_same_batch(found, expected):
    assert list(found) == list(expected)
    for name, value in expected.items():
        assert type(found[name]) is type(value), name
        if isinstance(value, torch.Tensor):
            assert (found[name].dtype, found[name].shape) == (value.dtype, value.shape), name
            assert torch.equal(found[name], value), name
        else:
            assert found[name] == value, name


@pytest.mark.parametrize("prompts", [None, PROMPTS])
@pytest.mark.parametrize("chunk", [4096, 3])
def test_the_same_batches_as_live(model, tmp_path, prompts, chunk, monkeypatch):
    monkeypatch.setattr(token_store, "_CHUNK", chunk)
    routes = ROUTES if model.inference_free else {}
    store = store_of(model, tmp_path / "store", prompts, routes)
    live, asked = counted(model)
    options = {"router_mapping": routes, "prompts": prompts}
    expected = SparseEncoderDataCollator(model.preprocess, **options)
    stored = StoredTokens(live, pickle.loads(pickle.dumps(store)))
    found = SparseEncoderDataCollator(stored, **options)
    data = [{**row, "scores": [1.0, float(place)]} for place, row in enumerate(rows())]
    widths = set()
    for size in (1, 2, 5, 40):
        for start in range(0, 40, size):
            batch = data[start : start + size]
            made = expected(batch)
            assert_same_batch(found(batch), made)
            widths.add(made["positive_input_ids"].shape[1])
    assert max(widths) == 16 and len(widths) > 3
    kept = KeepTexts(found)(data[:2])
    assert kept["texts"] == {name: [row[name] for row in data[:2]] for name in ROUTES}
    # Of queries without a token no tensor of integers can be made: those are asked for.
    assert all(texts == [""] * len(texts) for texts in asked)


@pytest.mark.parametrize(("vocabulary_size", "width"), [(1 << 16, 2), ((1 << 16) + 1, 4)])
def test_what_the_files_hold(tiny_encoder, tmp_path, vocabulary_size, width):
    model = tiny_encoder(max_seq_length=16)
    store = store_of(model, tmp_path / "store", None, vocabulary_size=vocabulary_size)
    used = {name: {row[name] for row in rows()} for name in ROUTES}
    documents = used["positive"] | used["negative"]
    tokenizer = encoder_modules(model).tokenizer
    count = sum(len(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in used["query"])
    for text in documents:
        count += len(tokenizer(text, truncation=True, max_length=16)["input_ids"])
    assert store.tokens == count
    assert (tmp_path / "store" / "ids.bin").stat().st_size == width * count
    assert store.nbytes == width * count + 32 * (len(documents) + len(used["query"]))


def test_what_is_not_known_is_made_live(tiny_encoder, tmp_path):
    model = tiny_encoder(max_seq_length=16)
    live, asked = counted(model)
    stored = StoredTokens(live, store_of(model, tmp_path / "store", None))
    for texts, options in (
        (["cat", "a song of no row"], {"task": "document"}),
        (["cat"], {"task": "document", "prompt": "the "}),
        (["cat"], {"task": "document", "max_length": 4}),
        ([LONG], {"task": "query"}),
        ([{"text": "cat"}], {"task": "document"}),
    ):
        asked.clear()
        assert_same_batch(dict(stored(texts, **options)), dict(model.preprocess(texts, **options)))
        assert asked == [texts]
    asked.clear()
    assert_same_batch(stored(["cat"], task="document"), dict(model.preprocess(["cat"], task="document")))
    assert not asked


def changed(change):
    def build(model):
        def preprocess(texts, **options):
            return change(dict(model.preprocess(texts, **options)), texts)

        return preprocess

    return build


def padded(features, texts):
    """To a multiple of 8, which the longest text alone does not show."""
    more = -features["input_ids"].shape[1] % 8
    return {
        name: torch.nn.functional.pad(value, (0, more)) if isinstance(value, torch.Tensor) else value
        for name, value in features.items()
    }


@pytest.mark.parametrize(
    "change",
    [
        lambda features, texts: {**features, "position_ids": features["input_ids"] * 0},
        lambda features, texts: {**features, "length": len(texts)},
        lambda features, texts: {**features, "token_type_ids": features["token_type_ids"] + 1},
        lambda features, texts: {**features, "attention_mask": features["attention_mask"].float()},
        lambda features, texts: {"input_ids": features["input_ids"].reshape(1, -1)},  # one after the other
        padded,
    ],
    ids=["more", "a number", "types", "a float", "flattened", "multiples"],
)
def test_what_does_not_follow_from_the_ids_is_not_stored(tiny_encoder, tmp_path, change):
    model = tiny_encoder(max_seq_length=16)
    with pytest.raises(NotStorable):
        store_of(model, tmp_path / "store", None, preprocess=changed(change)(model))
    assert not list(tmp_path.iterdir())


def test_a_store_agrees_with_its_own_tokenizer_only(tiny_encoder, tmp_path):
    model, other = (tiny_encoder(max_seq_length=length) for length in (16, 12))
    store, side = store_of(model, tmp_path / "store", None), Side("document", None)
    texts = [row["positive"] for row in rows()]
    assert store.agrees(texts, side, model.preprocess)
    assert not store.agrees(texts, side, other.preprocess)
    assert not store.agrees(["a song of no row"], side, model.preprocess)
