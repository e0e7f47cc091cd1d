"""What we save, in plain sentence-transformers and in ours; heads that do not fit; what is refused."""

import json
from pathlib import Path

import numpy as np
import pytest
import sentence_transformers
import torch
from packaging.version import Version
from safetensors.torch import load_file
from sentence_transformers.base.modules import Router, Transformer
from sentence_transformers.base.modules.module import Module
from sentence_transformers.sparse_encoder.modules import SparseStaticEmbedding, SpladePooling
from sentence_transformers.util import fullname
from transformers import BertConfig, BertModel, RobertaConfig

from st_l0 import SparseEncoder
from st_l0.encoder.pretrained import position_limit
from st_l0.errors import InputError
from tiny_models import (
    ARCHITECTURES,
    DOCUMENTS,
    QUERIES,
    VOCABULARY,
    assert_same_model,
    dense,
    make_tokenizer,
    reference_documents,
    reference_queries,
    save_model,
    through_stock,
    write_json,
)


def assert_one_line(error, *parts):
    message = str(error.value)
    assert "\n" not in message
    for part in parts:
        assert part in message


def a_stock_model(mlm_folder, weights):
    query = SparseStaticEmbedding(make_tokenizer(), weight=torch.from_numpy(weights.copy()), frozen=True)
    document = [Transformer(mlm_folder, transformer_task="fill-mask"), SpladePooling()]
    router = Router.for_query_document(query_modules=[query], document_modules=document)
    return sentence_transformers.SparseEncoder(modules=[router], device="cpu")


# What we save


@pytest.mark.parametrize(
    ("architecture", "activation", "pooling"),
    [
        *[(architecture, "log1p_relu", "max") for architecture in ARCHITECTURES],
        ("bert", "relu", "max"),
        ("bert", "relu", "sum"),
        ("bert", "log1p_relu", "sum"),
    ],
)
def test_plain_sentence_transformers_loads_it_and_scores_the_same(
    tiny_encoder, mlm_folders, tmp_path, architecture, activation, pooling
):
    model = tiny_encoder(mlm_folders(architecture), activation=activation, pooling=pooling)
    folder = save_model(model, tmp_path / "model")
    plain = sentence_transformers.SparseEncoder(folder, device="cpu", trust_remote_code=False)
    assert type(plain) is sentence_transformers.SparseEncoder
    assert_same_model(model, plain)
    assert plain.similarity_fn_name == "dot"
    assert_same_model(model, SparseEncoder.from_pretrained(folder, device="cpu"))
    assert_same_model(model, SparseEncoder(folder, device="cpu"))


def test_a_checkpoint_names_stock_classes_only(tiny_encoder, tmp_path):
    for activation in (0, 3):
        folder = Path(save_model(tiny_encoder(activation=activation), tmp_path / str(activation)))
        types = [module["type"] for module in json.loads((folder / "modules.json").read_text())]
        router = json.loads((folder / "router_config.json").read_text())
        types += router["types"].values()
        assert len(types) == 4
        assert all(name.startswith("sentence_transformers.") for name in types)
        assert (
            json.loads((folder / "config_sentence_transformers.json").read_text())["model_type"]
            == "SparseEncoder"
        )
        assert list(router["structure"]) == ["query", "document"]
        assert not list(folder.rglob("*.py"))


def test_what_was_loaded_is_saved_as_stock_again(tiny_encoder, tmp_path):
    model = tiny_encoder(activation=1)
    once = save_model(model, tmp_path / "once")
    twice = save_model(SparseEncoder.from_pretrained(once, device="cpu"), tmp_path / "twice")
    for name in ("modules.json", "router_config.json"):
        assert (Path(once) / name).read_text() == (Path(twice) / name).read_text()
    assert_same_model(model, sentence_transformers.SparseEncoder(twice, device="cpu"))


@pytest.mark.parametrize("logs", [2, 3])
def test_more_logs_than_stock_knows_are_refused_by_it_and_kept_by_us(
    tiny_encoder, mlm_folder, tmp_path, logs
):
    folder = save_model(tiny_encoder(activation=logs), tmp_path / "model")
    with pytest.raises(ValueError, match="activation_function must be"):
        sentence_transformers.SparseEncoder(folder, device="cpu")
    loaded = SparseEncoder.from_pretrained(folder, device="cpu")
    np.testing.assert_allclose(
        dense(loaded.encode_document(DOCUMENTS)),
        reference_documents(mlm_folder, DOCUMENTS, extra_logs=logs),
        atol=1e-5,
    )
    again = SparseEncoder.from_pretrained(save_model(loaded, tmp_path / "again"), device="cpu")
    assert_same_model(loaded, again)


@pytest.mark.parametrize("logs", [1, 2])
def test_the_trainer_resumes(tiny_encoder, tmp_path, logs):
    model = tiny_encoder(activation=logs)
    checkpoint = save_model(model, tmp_path / "checkpoint-1")
    fresh = tiny_encoder(activation=logs, idf="binary")
    with torch.no_grad():
        for parameter in fresh.parameters():
            parameter.add_(0.1)
    # As the trainer does it, with the classes of the modules in memory.
    classes = {fullname(module): type(module) for module in fresh.modules() if isinstance(module, Module)}
    assert f"{SpladePooling.__module__}.SpladePooling" in classes
    loaded = type(fresh)._load_with_module_classes(checkpoint, classes, trust_remote_code=False)
    assert type(loaded) is SparseEncoder
    fresh.load_state_dict(loaded.state_dict())
    assert_same_model(model, fresh)


def test_settings_of_a_checkpoint_are_kept(tiny_encoder, tmp_path):
    model = SparseEncoder(
        modules=list(tiny_encoder().children()),
        device="cpu",
        prompts={"query": "cat ", "document": "dog "},
        max_active_dims=7,
        similarity_fn_name="cosine",
    )
    model.max_seq_length = 20
    folder = save_model(model, tmp_path / "model")
    loaded = SparseEncoder.from_pretrained(folder, device="cpu")
    plain = sentence_transformers.SparseEncoder(folder, device="cpu")
    assert loaded.max_seq_length == plain[0].sub_modules["document"][0].max_seq_length == 20
    for name in ("prompts", "similarity_fn_name"):
        assert getattr(loaded, name) == getattr(plain, name) == getattr(model, name), name
    # Saved by sentence-transformers 6.2, not yet by 6.0.
    saved = Version(sentence_transformers.__version__) >= Version("6.2")
    assert loaded.max_active_dims == plain.max_active_dims == (7 if saved else None)
    assert loaded.similarity_fn_name == "cosine"
    long = ["cat and dog in the house " * 10]
    np.testing.assert_array_equal(dense(loaded.encode_query(long)), dense(plain.encode_query(long)))
    np.testing.assert_allclose(
        dense(loaded.encode_document(long)), dense(plain.encode_document(long)), atol=1e-5
    )
    assert SparseEncoder(folder, device="cpu", similarity_fn_name="dot").similarity_fn_name == "dot"


def test_the_longest_input_is_what_the_model_has_positions_for():
    assert position_limit(BertConfig(max_position_embeddings=130)) == 130
    assert position_limit(BertConfig(max_position_embeddings=8192)) == 8192
    assert position_limit(RobertaConfig(max_position_embeddings=514)) == 512


# Heads and tokenizers that do not fit


@pytest.mark.parametrize("architecture", ["bert", "distilbert", "modernbert", "mpnet"])
def test_a_padded_head_is_cut(tiny_encoder, mlm_folders, tmp_path, architecture):
    folder = mlm_folders(architecture, len(VOCABULARY) + 9)
    model = tiny_encoder(folder, activation=1)
    documents = dense(model.encode_document(DOCUMENTS))
    assert documents.shape == (len(DOCUMENTS), len(VOCABULARY))
    np.testing.assert_allclose(documents, reference_documents(folder, DOCUMENTS, extra_logs=1), atol=1e-5)
    saved = save_model(model, tmp_path / "model")
    assert_same_model(model, sentence_transformers.SparseEncoder(saved, device="cpu"))
    assert_same_model(model, SparseEncoder.from_pretrained(saved, device="cpu"))


def test_a_padded_head_keeps_its_ties_and_what_is_trained(tiny_encoder, mlm_folders):
    model = tiny_encoder(mlm_folders("bert", len(VOCABULARY) + 9))
    mlm = model[0].sub_modules["document"][0].model
    assert mlm.get_output_embeddings().weight is mlm.get_input_embeddings().weight
    assert all(parameter.requires_grad for parameter in mlm.parameters())


def test_a_padded_head_without_bias_keeps_working(tiny_encoder, mlm_folders, tmp_path):
    folder = mlm_folders("modernbert", len(VOCABULARY) + 1, bias=False)
    model = tiny_encoder(folder)
    documents = dense(model.encode_document(DOCUMENTS))
    expected = reference_documents(folder, DOCUMENTS)
    np.testing.assert_allclose(documents[:, 5:], expected[:, 5:], atol=1e-5)
    assert_same_model(model, through_stock(model, tmp_path / "m"))


def test_a_stock_checkpoint_with_a_padded_head_is_mended(mlm_folders, idf_weights, tmp_path):
    folder = mlm_folders("bert", len(VOCABULARY) + 9)
    stock = a_stock_model(folder, idf_weights)
    saved = save_model(stock, tmp_path / "model")
    model = SparseEncoder.from_pretrained(saved, device="cpu")
    scores = model.similarity(model.encode_query(QUERIES), model.encode_document(DOCUMENTS)).numpy()
    expected = reference_queries(folder, QUERIES, idf_weights) @ reference_documents(folder, DOCUMENTS).T
    np.testing.assert_allclose(scores, expected, rtol=1e-4, atol=1e-4)
    assert_same_model(model, through_stock(model, tmp_path / "b"))


def test_a_head_smaller_than_the_tokenizer_is_refused(tiny_encoder, mlm_folders):
    with pytest.raises(InputError) as error:
        tiny_encoder(mlm_folders("bert", len(VOCABULARY) - 3))
    assert_one_line(
        error, f"{len(VOCABULARY)} tokens", f"only {len(VOCABULARY) - 3}", "SparseEncoder.add_tokens"
    )


def test_a_special_token_added_later_does_not_break_saving(tiny_encoder, tmp_path):
    model = tiny_encoder()
    model.tokenizer.add_special_tokens({"additional_special_tokens": ["[Q]"]})
    model.encode_query(["cat [Q]"])
    model.save(str(tmp_path / "model"), create_model_card=False)
    assert (tmp_path / "model" / "router_config.json").exists()


def test_a_base_model_without_head_needs_texts_and_one_with_a_head_refuses_them(
    tiny_encoder, mlm_folder, tmp_path
):
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
    )
    BertModel(config).save_pretrained(tmp_path)
    make_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(InputError) as error:
        tiny_encoder(str(tmp_path))
    assert_one_line(error, "has no MLM head", "warm_start")
    with pytest.raises(InputError) as error:
        tiny_encoder(mlm_folder, warm_start=["cat"])
    assert_one_line(error, "MLM head of its own", "leave warm_start out")
    model = tiny_encoder(str(tmp_path), warm_start=[" ".join(VOCABULARY[5:60])] * 3)
    assert model.encode_document(["cat"]).shape == (1, len(VOCABULARY))


@pytest.mark.parametrize("name", ["no-such-owner/no-such-model", "no-such-model", "/no/such/folder", "tests"])
def test_a_missing_model_is_one_line(tiny_encoder, name):
    for use in (tiny_encoder, SparseEncoder.from_pretrained):
        with pytest.raises(InputError) as error:
            use(name)
        assert_one_line(error, name)


def test_folders_that_are_no_checkpoint_are_refused(mlm_folder, tmp_path):

    dense_model = tmp_path / "dense"
    write_json(dense_model / "modules.json", [])
    write_json(dense_model / "config_sentence_transformers.json", {"model_type": "SentenceTransformer"})
    unnamed = tmp_path / "unnamed"
    write_json(unnamed / "modules.json", [])
    for folder in (Path(mlm_folder), dense_model, unnamed):
        with pytest.raises(InputError) as error:
            SparseEncoder.from_pretrained(folder)
        assert_one_line(error, str(folder), "is no inference-free checkpoint")


def test_a_model_whose_queries_run_a_model_is_refused(mlm_folder, tmp_path):
    modules = [Transformer(mlm_folder, transformer_task="fill-mask"), SpladePooling()]
    folder = save_model(
        sentence_transformers.SparseEncoder(modules=modules, device="cpu"), tmp_path / "splade"
    )
    with pytest.raises(InputError) as error:
        SparseEncoder.from_pretrained(folder)
    assert_one_line(error, folder, "its queries run a model")


def test_an_activation_is_for_the_older_layout_only(tiny_encoder, tmp_path):
    folder = save_model(tiny_encoder(), tmp_path / "model")
    with pytest.raises(InputError) as error:
        SparseEncoder.from_pretrained(folder, activation="log1p_relu")
    assert_one_line(error, "states its activation itself")


def test_a_stock_table_is_mended_at_load(mlm_folder, idf_weights, tmp_path):
    weights = idf_weights.copy()
    weights[:5] = 1.0
    cat, dog = VOCABULARY.index("cat"), VOCABULARY.index("dog")
    weights[cat] = -2.5
    folder = save_model(a_stock_model(mlm_folder, weights), tmp_path / "model")
    assert dense(sentence_transformers.SparseEncoder(folder, device="cpu").encode_query("[SEP] zzz cat"))[
        [1, 3, cat]
    ].tolist() == [1, 1, -2.5], "stock is expected to get this wrong"
    model = SparseEncoder.from_pretrained(folder, device="cpu")
    assert model.encode_query("[SEP] [MASK] zzz cat dog", convert_to_scipy=True).indices.tolist() == [dog]
    assert model.query_weights[cat] == 0
    np.testing.assert_allclose(
        dense(model.encode_document(DOCUMENTS)), reference_documents(mlm_folder, DOCUMENTS), atol=1e-5
    )
    # And what is saved is right in stock too.
    plain = through_stock(model, tmp_path / "mended")
    assert_same_model(model, plain)
    assert dense(plain.encode_query("[SEP] [MASK] zzz cat")).sum() == 0


def test_the_saved_weights_hold_what_was_silenced(tiny_encoder, tmp_path):
    folder = Path(
        save_model(
            tiny_encoder(idf=np.ones(len(VOCABULARY), np.float32), punctuation=True), tmp_path / "model"
        )
    )
    tables = [load_file(path) for path in folder.rglob("*.safetensors")]
    (query,) = [table["weight"] for table in tables if "weight" in table]
    assert query.tolist() == [0] * 5 + [1] * (len(VOCABULARY) - 5)
