"""Tokens that are added to an encoder: as their pieces were, on both sides, in every reader."""

import json

import numpy as np
import pytest
import sentence_transformers
import torch
import transformers as tf
from safetensors.torch import load_file

from st_l0 import QueryEncoder, SparseEncoder
from st_l0.encoder.idf import compute_idf
from st_l0.encoder.learned_queries import train_query_table
from st_l0.encoder.modules import encoder_modules
from st_l0.errors import InputError
from tiny_models import VOCABULARY, assert_same_model, dense, make_mlm, make_tokenizer, reference_documents
from vocabularies import byte_fallback, byte_level, in_transformers, unigram

WORDS = ["catdog", "Snowing"]  # cat ##d ##o ##g, snow ##ing
TEXTS = [
    "The catdog sat on the mountain.",
    "a big dog and the river",
    "rain wind snowing, catdog?",
    "good milk and bread",
    "snow in the old city",
    "the man and a woman run",
    "small fish in the water",
    "a green tree",
]


def shares(model, texts):
    return (dense(model.encode_document(texts)) > 0).mean(0)


def untied(folder, architecture):
    """A model whose decoder is another matrix than its embeddings."""
    make_mlm(architecture, tied=False).save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize("layout", ["folders", "root"])
@pytest.mark.parametrize("architecture", ["bert", "distilbert", "roberta", "modernbert"])
def test_they_are_active_as_their_pieces_were(tiny_encoder, mlm_folders, tmp_path, architecture, layout):
    model = tiny_encoder(mlm_folders(architecture))
    check_added(model, tmp_path, layout)


@pytest.mark.parametrize("architecture", ["bert", "roberta", "mpnet"])
def test_with_a_decoder_of_its_own(tiny_encoder, tmp_path, architecture):
    model = tiny_encoder(untied(tmp_path / "base", architecture))
    decoder = encoder_modules(model).transformer.model.get_output_embeddings()
    embeddings = encoder_modules(model).transformer.model.get_input_embeddings()
    assert decoder.weight is not embeddings.weight
    check_added(model, tmp_path, "folders")


def test_pooled_by_sum(tiny_encoder, tmp_path):
    check_added(tiny_encoder(pooling="sum"), tmp_path, "folders")


def check_added(model, tmp_path, layout):
    size, before = len(VOCABULARY), shares(model, TEXTS)
    table = model.query_weights
    transformer = encoder_modules(model).transformer.model
    matrices = [
        one().weight.clone() for one in (transformer.get_input_embeddings, transformer.get_output_embeddings)
    ]
    plain = ["a big dog and the river", "good milk and bread"]
    vectors, queries = dense(model.encode_document(plain)), dense(model.encode_query(plain))
    transformer.get_input_embeddings().weight.requires_grad_(False)

    report = model.add_tokens(WORDS, texts=iter(TEXTS), progress=False)

    assert [(new.token, new.pieces) for new in report] == [
        ("catdog", ("cat", "##d", "##o", "##g")),
        ("snowing", ("snow", "##ing")),
    ]
    after = shares(model, TEXTS)
    for place, new in enumerate(report):
        rows = [VOCABULARY.index(piece) for piece in new.pieces]
        assert new.texts == [2 / 8, 1 / 8][place]
        assert new.before == pytest.approx(before[rows].mean())
        wanted = max(new.before, new.texts)
        assert new.after == after[size + place]
        assert abs(new.after - wanted) <= 1 / len(TEXTS) / 2 + 1e-9 or new.after == 1 / len(TEXTS)
        for matrix, now in zip(
            matrices, (transformer.get_input_embeddings(), transformer.get_output_embeddings()), strict=True
        ):
            torch.testing.assert_close(now.weight[size + place], matrix[rows].mean(0))
            torch.testing.assert_close(now.weight[:size], matrix, rtol=0, atol=0)
        assert model.query_weights[size + place] == np.float32(new.weight)
    # Nothing else is another than it was.
    np.testing.assert_allclose(dense(model.encode_document(plain))[:, :size], vectors, atol=1e-6)
    np.testing.assert_array_equal(dense(model.encode_query(plain))[:, :size], queries)
    np.testing.assert_array_equal(model.query_weights[:size], table)
    frozen = [one for one in transformer.parameters() if not one.requires_grad]
    assert len(frozen) == 1
    assert frozen[0] is transformer.get_input_embeddings().weight
    assert dense(model.encode_query(["Catdog and catdogs"])).nonzero()[1].max() == size

    folder = tmp_path / "model"
    model.save(str(folder), layout=layout)
    loaded = SparseEncoder.from_pretrained(folder, device="cpu")
    stock = sentence_transformers.SparseEncoder(str(folder), device="cpu")
    alone = QueryEncoder.from_pretrained(folder)
    texts = [*TEXTS, *WORDS, "catdogs snowing catdog"]
    for reader in (loaded, stock):
        np.testing.assert_allclose(
            dense(reader.encode_document(texts)), dense(model.encode_document(texts)), atol=1e-5
        )
    for reader in (loaded, stock, alone):
        np.testing.assert_array_equal(dense(reader.encode_query(texts)), dense(model.encode_query(texts)))
    assert_same_model(loaded, stock)
    assert loaded.fingerprint() == model.fingerprint()
    home = folder if layout == "root" else folder / "document_0_Transformer"
    assert json.loads((home / "config.json").read_text())["vocab_size"] == size + 2
    for place in (home, folder / "query_0_SparseStaticEmbedding"):
        tokenizer = tf.AutoTokenizer.from_pretrained(place)
        assert len(tokenizer) == size + 2
        assert tokenizer.convert_ids_to_tokens([size, size + 1]) == ["catdog", "snowing"]
    assert load_file(folder / "query_0_SparseStaticEmbedding" / "model.safetensors")["weight"].shape == (
        size + 2,
    )
    if layout == "root":
        weights = json.loads((folder / "idf.json").read_text())
        assert [weights[new.token] for new in report] == [new.weight for new in report]
        if model.similarity_fn_name == "dot" and encoder_modules(model).pooling.pooling_strategy == "max":
            np.testing.assert_allclose(
                reference_documents(folder, texts), dense(model.encode_document(texts)), atol=1e-5
            )


def test_without_it_each_document_would_have_them(tiny_encoder, mlm_folder):
    """What the advice was before: a decoder bias of 0, where the others lie far below."""
    model = tiny_encoder()
    transformer = encoder_modules(model).transformer.model
    with torch.no_grad():
        transformer.get_output_embeddings().bias.sub_(6)
    before = shares(model, TEXTS)
    rows = [VOCABULARY.index(piece) for piece in ("snow", "##ing")]
    (new,) = model.add_tokens(["snowing"], texts=TEXTS, progress=False)
    assert new.before == before[rows].mean() < 0.5
    assert new.after <= 0.5
    with torch.no_grad():
        transformer.get_output_embeddings().bias[-1] = 0
    assert shares(model, TEXTS)[-1] > new.after


def test_weights_are_those_of_tokens_in_as_many_texts(tiny_encoder):
    idf = compute_idf(TEXTS, make_tokenizer(), progress=False)
    model = tiny_encoder(idf=idf)
    report = model.add_tokens(WORDS, texts=TEXTS, progress=False)
    for new, held in zip(report, [2, 1], strict=True):  # log(1 + (N - df + 0.5) / (df + 0.5))
        assert new.weight == pytest.approx(np.log(1 + (8 - held + 0.5) / (held + 0.5)))
    binary = tiny_encoder(idf="binary")
    assert [new.weight for new in binary.add_tokens(WORDS, texts=TEXTS, progress=False)] == [1, 1]


@pytest.mark.parametrize("make", [unigram, byte_level, byte_fallback])
def test_they_take_the_space_before_them_along(tmp_path, make):
    tokenizer = in_transformers(make())
    make_mlm("bert", len(tokenizer)).save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    model = SparseEncoder.from_mlm(tmp_path / "base", idf="binary", device="cpu")
    plain = model.tokenizer.tokenize("the cat")
    texts = ["catdog and the cat", "the catdog", "the cat", "a dog"]
    (new,) = model.add_tokens(["catdog"], texts=texts, progress=False)
    assert new.pieces[0] in ("Ġcat", "\u2581cat")
    assert new.texts == 1 / 2
    for text in ("catdog the cat", "the catdog the cat"):
        tokens = model.tokenizer.convert_ids_to_tokens(
            model.tokenizer(text, add_special_tokens=False).input_ids
        )
        assert tokens == [*(plain[:-1] if text[0] == "t" else []), "catdog", *plain]
    assert "catdog" not in model.tokenizer.tokenize("the catdogs")
    model.save(str(tmp_path / "model"))
    stock = sentence_transformers.SparseEncoder(str(tmp_path / "model"), device="cpu")
    queries = ["catdog the cat", "the cat catdog", "catdogs"]
    expected = dense(model.encode_query(queries))
    np.testing.assert_array_equal(expected[0], expected[1])
    for reader in (stock, QueryEncoder.from_pretrained(tmp_path / "model")):
        np.testing.assert_array_equal(dense(reader.encode_query(queries)), expected)
    np.testing.assert_allclose(
        dense(stock.encode_document(texts)), dense(model.encode_document(texts)), atol=1e-5
    )


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (["catdog", "Cat"], "'Cat' is a token already"),
        (["##ing"], "'##ing' is a token already"),
        (["[SEP]"], r"'\[SEP\]' is a token already"),
        (["catdog", "CatDog"], "'CatDog' is a token already"),
        (["the cat"], "'the cat' is no word"),
        ([""], "'' is no word"),
        (["zzz"], "'zzz' has no piece that the vocabulary knows"),
        ([], "no tokens to add"),
        ("catdog", "is one text where a list"),
        (["riverdog"], "'riverdog' is in none of the texts"),
    ],
)
def test_what_is_refused_leaves_the_model_as_it_was(tiny_encoder, tokens, message):
    model = tiny_encoder()
    mark = model.fingerprint()
    with pytest.raises(InputError, match=message):
        model.add_tokens(tokens, texts=TEXTS, progress=False)
    assert model.fingerprint() == mark


def test_models_that_cannot_take_any(tiny_encoder, mlm_folders):
    def add(model):
        model.add_tokens(WORDS, texts=TEXTS, progress=False)

    with pytest.raises(InputError, match="not inference-free"):
        add(tiny_encoder(idf=None))
    with pytest.raises(InputError, match="without a bias"):
        add(tiny_encoder(mlm_folders("modernbert", bias=False)))
    model = tiny_encoder()
    train_query_table(encoder_modules(model), "trained_table")
    with pytest.raises(InputError, match="query weights are being trained"):
        add(model)
    model = tiny_encoder()
    model.tokenizer.add_tokens(["catdog"])
    with pytest.raises(InputError, match="knows 128 tokens, of 127 with a weight"):
        add(model)


def test_tokens_are_added_to_those_that_were(tiny_encoder):
    model = tiny_encoder()
    model.add_tokens(["catdog"], texts=TEXTS, progress=False)
    (new,) = model.add_tokens(["snowing"], texts=TEXTS, progress=False)
    assert model.tokenizer.convert_tokens_to_ids(["catdog", "snowing"]) == [
        len(VOCABULARY),
        len(VOCABULARY) + 1,
    ]
    assert shares(model, TEXTS)[-1] == new.after
    with pytest.raises(InputError, match="'catdog' is a token already"):
        model.add_tokens(["catdog"], texts=TEXTS, progress=False)
