from __future__ import annotations

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import sentence_transformers
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast
from typer.testing import CliRunner

from st_l0 import SparseEncoder, cli
from st_l0.encoder.idf import compute_idf, read_idf, write_idf
from st_l0.encoder.punctuation import has_punctuation, punctuation_ids
from st_l0.errors import InputError
from st_l0.hub.exporting import export
from st_l0.training.build import build_model
from st_l0.training.recipe import Model
from tiny_models import VOCABULARY, make_tokenizer

PUNCTUATION = [VOCABULARY.index(token) for token in (".", ",", "?")]


def tokenizer_of(vocabulary, decoder):
    backend = Tokenizer(models.WordLevel({token: number for number, token in enumerate(vocabulary)}, "[UNK]"))
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.Whitespace(), decoder
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="[UNK]", sep_token="!")


@pytest.mark.parametrize(
    ("decoder", "marked", "plain"),
    [
        (
            decoders.WordPiece(),
            ["?", "##,", "...", "##…", "€", "→", "##", "###"],
            ["cat", "##s", "c.", "##3", "²", "ा"],
        ),
        # Ġ is a space, âĢĻ the three bytes of ’; the half of a character and spaces are nothing.
        (decoders.ByteLevel(), [",", "Ġ(", "âĢĻ", "##"], ["Ġcat", "Ġ", "âĢ", "3", "Ġa."]),
        (decoders.Metaspace(), ["▁(", "。", "▁..."], ["▁", "▁cat", "東", "a)"]),
    ],
    ids=["WordPiece", "bytes", "SentencePiece"],
)
def test_what_is_punctuation(decoder, marked, plain):
    vocabulary = ["[UNK]", "!", *marked, *plain]  # "!" is the separator here, and special
    tokenizer = tokenizer_of(vocabulary, decoder)
    assert [vocabulary[number] for number in sorted(punctuation_ids(tokenizer))] == marked


def test_the_tiny_vocabulary_has_three():
    assert sorted(punctuation_ids(make_tokenizer())) == sorted(PUNCTUATION)


def test_a_counted_table_has_no_punctuation_unless_asked():
    texts, tokenizer = ["the cat sat.", "a dog, a song"], make_tokenizer()
    whole = compute_idf(texts, tokenizer, punctuation=True, progress=False)
    found = compute_idf(texts, tokenizer, progress=False)
    assert whole[PUNCTUATION].min() > 0
    assert not found[PUNCTUATION].any()
    assert has_punctuation(whole, tokenizer) and not has_punctuation(found, tokenizer)
    others = np.setdiff1d(np.arange(len(whole)), PUNCTUATION)
    np.testing.assert_array_equal(found[others], whole[others])


@pytest.mark.parametrize(("flag", "kept"), [([], False), (["--punctuation"], True)])
def test_the_command_that_counts(tmp_path, mlm_folder, flag, kept):
    corpus, output = tmp_path / "corpus.txt", tmp_path / "idf.json"
    corpus.write_text("the cat sat.\na dog?\n")
    result = CliRunner().invoke(
        cli.app, ["idf", str(corpus), "--tokenizer", mlm_folder, "--output", str(output), *flag]
    )
    assert result.exit_code == 0, result.output
    assert has_punctuation(read_idf(output, make_tokenizer()), make_tokenizer()) == kept


@pytest.mark.parametrize("kept", [False, True])
def test_a_new_model_says_so_and_stock_scores_the_same(tiny_encoder, idf_weights, tmp_path, kept):
    model = tiny_encoder(punctuation=kept)
    expected = idf_weights[PUNCTUATION] if kept else np.zeros(3)
    np.testing.assert_array_equal(model.query_weights[PUNCTUATION], expected)
    model.save_pretrained(str(tmp_path))
    settings = json.loads((tmp_path / "config_sentence_transformers.json").read_text())
    assert settings["query_punctuation"] is kept

    queries, documents = ["cat? dog, the.", "?"], ["a cat sat.", "what? dogs"]
    stock = sentence_transformers.SparseEncoder(str(tmp_path), device="cpu")
    scores = stock.similarity(stock.encode_query(queries), stock.encode_document(documents))
    found = model.similarity(model.encode_query(queries), model.encode_document(documents))
    torch.testing.assert_close(found, scores, rtol=1e-4, atol=1e-5)
    assert bool((model.encode_query("?").to_dense() > 0).any()) == kept
    reloaded = SparseEncoder.from_pretrained(tmp_path, device="cpu")
    np.testing.assert_array_equal(reloaded.query_weights, model.query_weights)


def test_a_published_table_stays_as_it_is(tmp_path, mlm_folder, idf_weights):
    shutil.copytree(mlm_folder, tmp_path / "model")
    write_idf(tmp_path / "model" / "idf.json", idf_weights, make_tokenizer())
    model = SparseEncoder.from_pretrained(tmp_path / "model", device="cpu")
    np.testing.assert_array_equal(model.query_weights[PUNCTUATION], idf_weights[PUNCTUATION])


def test_an_export_takes_it_out(tiny_encoder, tmp_path, idf_weights):
    tiny_encoder(punctuation=True).save_pretrained(str(tmp_path / "model"))
    for name, options, kept in (("as it is", {}, True), ("without", {"punctuation": False}, False)):
        folder = export(tmp_path / "model", tmp_path / name, **options)
        model = SparseEncoder.from_pretrained(folder, device="cpu")
        assert has_punctuation(model.query_weights, model.tokenizer) == kept
        cat = VOCABULARY.index("cat")
        assert model.query_weights[cat] == idf_weights[cat]
    tiny_encoder(idf=None).save_pretrained(str(tmp_path / "siamese"))
    with pytest.raises(InputError, match="have no table: leave punctuation out"):
        export(tmp_path / "siamese", tmp_path / "none", punctuation=False)


@pytest.mark.parametrize(("given", "kept"), [({}, False), ({"punctuation": True}, True)])
def test_a_recipe_has_the_choice(mlm_folder, given, kept):
    recipe = SimpleNamespace(model=Model(base_model=mlm_folder, idf="binary", **given))
    weights = build_model(recipe).query_weights
    assert bool(weights[PUNCTUATION].any()) == kept


def test_a_recipe_refuses_the_choice_where_it_has_no_effect(mlm_folder, tiny_encoder, tmp_path):
    with pytest.raises(InputError, match="is of no use where queries is model"):
        Model(base_model=mlm_folder, queries="model", punctuation=True)
    tiny_encoder().save_pretrained(str(tmp_path))
    trained = SimpleNamespace(model=Model(base_model=str(tmp_path), punctuation=True))
    with pytest.raises(InputError, match=r"is a trained encoder: leave model\.punctuation out"):
        build_model(trained)
