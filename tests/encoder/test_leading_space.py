"""The first word of a text is as any other, to every reader of a checkpoint, whatever the vocabulary."""

import json
import logging
from itertools import permutations

import numpy as np
import pytest
import sentence_transformers
import torch
import transformers as tf
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from st_l0 import QueryEncoder, SparseEncoder, open_index
from st_l0.encoder.hub_options import HubOptions
from st_l0.encoder.idf import compute_idf, document_frequencies
from st_l0.encoder.leading_space import cure_tokenizer, first_word_differs, inside_text, tell_first_words
from st_l0.encoder.loading import start_document_encoder
from st_l0.encoder.modules import make_modules
from st_l0.encoder.query_tokenizer import read_tokenizer
from st_l0.errors import InputError
from tiny_models import dense, make_mlm, save_model
from vocabularies import (
    TEXTS,
    WITH_SPACE,
    WITHOUT_SPACE,
    byte_fallback,
    byte_level,
    byte_level_pattern,
    in_transformers,
    unigram,
)

KINDS = [*WITH_SPACE, *WITHOUT_SPACE]
QUERIES = ["cat dog river", "river cat dog", "dog river cat", "Water what", "what Water", "?", "", "snow"]


def ids(tokenizer, text):
    return tokenizer.encode(text, add_special_tokens=False).ids


@pytest.mark.parametrize("make", KINDS)
def test_which_need_it_is_tried(make):
    assert first_word_differs(make()) == (make in WITHOUT_SPACE)


@pytest.mark.parametrize("make", KINDS)
def test_a_text_is_taken_as_after_another(make):
    plain = make()
    cured = inside_text(plain)
    assert (cured is plain) == (make in WITH_SPACE)
    before = len(ids(plain, "cat"))
    for text in ["dog", "what is the Water?", "café 日本", "Cat, dog", "zzz", "? what", "a\tb\nc", "<mask>"]:
        # The tokenizer as it was, asked for a text in the middle of another one.
        if text != "<mask>":
            assert ids(cured, text) == ids(plain, f"cat {text}")[before:], text
        if make in WITHOUT_SPACE:  # nothing else changes
            assert ids(cured, f" {text}") == ids(plain, f" {text}")
            assert ids(cured, f"<mask>{text}") == ids(plain, f"<mask>{text}")
    for words in permutations(["cat", "Water", "xylem"]):
        assert sorted(ids(cured, " ".join(words))) == sorted(ids(cured, "xylem cat Water"))
    assert ids(cured, "") == []
    assert inside_text(cured) is cured
    with_spaces = ids(plain, "cat   dog")
    assert ids(cured, " cat   dog") == [*ids(cured, "cat"), *with_spaces[before:]]


def test_a_space_before_each_piece_would_be_too_many():
    """Why `add_prefix_space` is no cure where a pattern cuts first."""
    tokenizer = byte_level_pattern()
    pattern = tokenizer.pre_tokenizer[0]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pattern, pre_tokenizers.ByteLevel(use_regex=False)])
    assert not first_word_differs(tokenizer)
    assert tokenizer.encode("cat, dog").tokens == ["Ġcat", "Ġ", ",", "Ġdog"]
    assert inside_text(byte_level_pattern()).encode("cat, dog").tokens == ["Ġcat", ",", "Ġdog"]


def test_what_a_call_has_left_in_a_tokenizer_stays_there():
    tokenizer = byte_level()
    tokenizer.enable_truncation(1, direction="left")
    tokenizer.enable_padding(length=9)
    truncation, padding = tokenizer.truncation, tokenizer.padding
    cured = inside_text(tokenizer)
    assert first_word_differs(tokenizer)
    assert not first_word_differs(cured)
    for one in (tokenizer, cured):
        assert (one.truncation, one.padding) == (truncation, padding)


def pieces_over_spaces():
    """A vocabulary whose pieces hold spaces wherever they like."""
    tokenizer = Tokenizer(models.BPE())
    trainer = trainers.BpeTrainer(vocab_size=500, special_tokens=["<unk>"], show_progress=False)
    tokenizer.train_from_iterator(
        [f"{word} {word} {word}" for word in ("what", "the", "Water", "x")] * 9, trainer
    )
    return tokenizer


def test_what_cannot_be_cured_is_refused(tmp_path):
    plain = pieces_over_spaces()
    with pytest.raises(InputError, match=r"another token of the first word of a query than.*base model"):
        inside_text(plain)
    wrapped = in_transformers(plain)
    with pytest.raises(InputError, match="another token of the first word"):
        compute_idf(["what"], wrapped, progress=False)
    make_mlm("bert", len(wrapped)).save_pretrained(tmp_path)
    wrapped.save_pretrained(tmp_path)
    with pytest.raises(InputError, match=f"{tmp_path}: the tokenizer makes another token"):
        SparseEncoder.from_mlm(tmp_path, idf="binary", device="cpu")


def test_a_table_needs_a_fast_tokenizer(tmp_path):
    (tmp_path / "vocab.txt").write_text("\n".join(["<cls>", "<pad>", "<eos>", "<unk>", "A", "C", "<mask>"]))
    slow = tf.EsmTokenizer(str(tmp_path / "vocab.txt"), model_max_length=64)
    slow.save_pretrained(tmp_path)
    make_mlm("bert", len(slow)).save_pretrained(tmp_path)
    with pytest.raises(InputError, match="EsmTokenizer is not a fast tokenizer"):
        SparseEncoder.from_mlm(tmp_path, idf="binary", device="cpu")
    assert not SparseEncoder.from_mlm(tmp_path, idf=None, device="cpu").inference_free


@pytest.mark.parametrize("model_type", [None, "roberta", "modernbert", "gemma3_text", "xlm-roberta"])
@pytest.mark.parametrize(
    ("make", "kind", "options"),
    [
        (byte_level, tf.PreTrainedTokenizerFast, {}),
        (byte_level, tf.RobertaTokenizer, {}),
        (byte_level, tf.RobertaTokenizer, {"add_prefix_space": True}),
        (byte_level, tf.GPT2Tokenizer, {}),
        (byte_level_pattern, tf.PreTrainedTokenizerFast, {}),
        (byte_fallback, tf.PreTrainedTokenizerFast, {}),
        (byte_fallback, tf.GemmaTokenizer, {}),
        (unigram, tf.XLMRobertaTokenizer, {}),
    ],
)
def test_it_is_kept_by_saving_and_loading(tmp_path, make, kind, options, model_type):
    given = in_transformers(make(), kind, **options)
    cured = cure_tokenizer(given)
    needed = make in WITHOUT_SPACE and not options
    assert (cured is given) != needed
    text = "what is the cat <mask> <mask>dog, Water"
    folder = tmp_path / "0"
    cured.save_pretrained(folder)
    config = tf.PretrainedConfig() if model_type is None else tf.AutoConfig.for_model(model_type)
    config.save_pretrained(folder)
    for again in ("1", "2"):
        loaded = tf.AutoTokenizer.from_pretrained(folder)
        assert not first_word_differs(loaded.backend_tokenizer)
        assert (
            ids(read_tokenizer(str(folder), "", HubOptions()).backend_tokenizer, text)
            == loaded(text, add_special_tokens=False).input_ids
        )
        assert dict(loaded(text)) == dict(cured(text))
        assert loaded.all_special_ids == given.all_special_ids
        assert loaded.get_vocab() == given.get_vocab()
        assert loaded.model_max_length == 64
        assert loaded.decode(loaded(text).input_ids) == given.decode(loaded(text).input_ids)
        folder = tmp_path / again
        loaded.save_pretrained(folder)
        config.save_pretrained(folder)
    if needed:  # of what surrounds a text nothing changed
        assert dict(cured(f" {text}")) == dict(given(f" {text}"))


def base_of(make, folder, kind=tf.PreTrainedTokenizerFast):
    tokenizer = in_transformers(make(), kind)
    model = make_mlm("roberta", len(tokenizer))
    model.get_output_embeddings().bias.data.add_(4)  # so that documents hold most tokens
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def trained(make, folder):
    """A tiny model after a few steps, its IDF from the texts, and that IDF."""
    base_of(make, folder)
    weights = compute_idf(TEXTS, tf.AutoTokenizer.from_pretrained(folder), progress=False)
    model = SparseEncoder.from_mlm(folder, idf=weights, device="cpu")
    optimizer = torch.optim.Adam((one for one in model.parameters() if one.requires_grad), 1e-3)
    pairs = [("cat dog", "the cat and the dog"), ("river", "a river of rain")]
    for _ in range(5):
        sides = [
            model(model.preprocess(list(texts), task=task), task=task)["sentence_embedding"]
            for texts, task in zip(zip(*pairs, strict=True), ("query", "document"), strict=True)
        ]
        loss = torch.nn.functional.cross_entropy(sides[0] @ sides[1].T, torch.arange(len(pairs)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()


@pytest.mark.parametrize("layout", ["folders", "root"])
@pytest.mark.parametrize("make", KINDS)
def test_trained_saved_and_searched(tmp_path, make, layout):
    model = trained(make, tmp_path / "base")
    folder = tmp_path / "model"
    model.save(str(folder), layout=layout)
    queries = model.encode_query(QUERIES, convert_to_scipy=True)
    first = queries[0].toarray()
    assert np.count_nonzero(first) >= 3
    for moved in (1, 2):  # the first word in the middle and at the end
        np.testing.assert_array_equal(queries[moved].toarray(), first)
    np.testing.assert_array_equal(queries[3].toarray(), queries[4].toarray())

    stock = sentence_transformers.SparseEncoder(str(folder), device="cpu")
    ours, alone = SparseEncoder.from_pretrained(folder, device="cpu"), QueryEncoder.from_pretrained(folder)
    for reader in (stock, ours, alone):
        np.testing.assert_array_equal(dense(reader.encode_query(QUERIES)), queries.toarray())
    documents = ["cat dog river", "snow rain", "a cat on the mountain", "river"]
    vectors = dense(model.encode_document(documents))
    for reader in (stock, ours):
        np.testing.assert_allclose(dense(reader.encode_document(documents)), vectors, atol=1e-5)
    assert ours.fingerprint() == model.fingerprint()

    index = open_index(tmp_path / "index")
    index.add([str(place) for place in range(4)], ours.encode_document(documents, convert_to_scipy=True))
    hits = index.search(alone.encode_query(QUERIES), k=4)
    scores = [{hit.id: hit.score for hit in found} for found in hits]
    assert scores[0] == scores[1] == scores[2]
    assert len(scores[0]) == 4


def uncured(make, folder):
    """An encoder as it was made before: its tokenizers as they came."""
    base_of(make, folder)
    transformer = start_document_encoder(str(folder), 64, None, HubOptions(), trained=True)
    table = np.random.default_rng(2).uniform(1, 5, len(transformer.tokenizer)).astype(np.float32)
    return SparseEncoder(modules=make_modules(transformer, table, "relu"), device="cpu")


def test_old_checkpoints_stay_as_they_are_and_say_so_once(tmp_path, caplog):
    model = uncured(byte_level, tmp_path / "base")
    expected = dense(model.encode_query(QUERIES))
    assert not np.array_equal(expected[0], expected[1])
    documents = dense(model.encode_document(QUERIES))
    folder = save_model(model, tmp_path / "model")
    tell_first_words.cache_clear()
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            loaded = SparseEncoder.from_pretrained(folder, device="cpu")
            np.testing.assert_array_equal(dense(loaded.encode_query(QUERIES)), expected)
            np.testing.assert_allclose(dense(loaded.encode_document(QUERIES)), documents, atol=1e-6)
            alone = QueryEncoder.from_pretrained(folder)
            np.testing.assert_array_equal(alone.encode_query(QUERIES).toarray(), expected)
    told = [record.getMessage() for record in caplog.records if "first word" in record.getMessage()]
    assert told == [
        f"{folder}: the first word of a query is another token than in a text, as this checkpoint was "
        "trained; a model that is trained now has no such flaw"
    ]


def test_the_older_layout_stays_as_it_is(tmp_path, caplog):
    base = base_of(byte_level, tmp_path / "base", tf.RobertaTokenizer)
    vocabulary = tf.AutoTokenizer.from_pretrained(base).get_vocab()
    (base / "idf.json").write_text(json.dumps({token: 1 + row / 99 for token, row in vocabulary.items()}))
    tell_first_words.cache_clear()
    with caplog.at_level(logging.WARNING):
        model = SparseEncoder.from_pretrained(base, device="cpu")
    assert "first word" in caplog.text
    assert first_word_differs(model.tokenizer.backend_tokenizer)
    found = QueryEncoder.from_pretrained(base).encode_query(QUERIES)
    np.testing.assert_array_equal(found.toarray(), dense(model.encode_query(QUERIES)))


def test_new_models_have_nothing_to_say(tmp_path, caplog):
    base = base_of(byte_level, tmp_path / "base", tf.RobertaTokenizer)
    tell_first_words.cache_clear()
    with caplog.at_level(logging.WARNING):
        folder = save_model(SparseEncoder.from_mlm(base, idf="binary", device="cpu"), tmp_path / "model")
        SparseEncoder.from_pretrained(folder, device="cpu")
        QueryEncoder.from_pretrained(folder)
    assert "first word" not in caplog.text


def test_texts_are_counted_with_a_space_before_them():
    tokenizer = in_transformers(byte_level())
    frequencies, documents = document_frequencies(["cat dog", "dog cat", "dog"], tokenizer, progress=False)
    counts = {
        token: int(frequencies[row]) for token, row in tokenizer.get_vocab().items() if frequencies[row]
    }
    assert documents == 3
    assert counts == {"Ġcat": 2, "Ġdog": 3}
    assert first_word_differs(tokenizer.backend_tokenizer)  # which was left as it is
