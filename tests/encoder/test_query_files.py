"""The query side read by numpy alone, against the whole encoder on the same files: bit by bit."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from test_checkpoint_layouts import token_table, write_published_layout
from test_word_cache import NASTY, random_texts
from transformers import AutoTokenizer

from st_l0 import QueryEncoder, SparseEncoder
from st_l0.encoder.query_tokenizer import NeedsModelError
from st_l0.errors import InputError
from tiny_models import ARCHITECTURES, QUERIES, VOCABULARY, save_model, write_json

MINI = Path(__file__).parents[2] / "models" / "st-l0-mini"
TABLE = "query_0_SparseStaticEmbedding"
TEXTS = [*QUERIES, *NASTY, *random_texts(200, seed=4), "cat dog bird fish tree river " * 100]


def assert_same_queries(folder, texts=TEXTS):
    ours, whole = QueryEncoder.from_pretrained(folder), SparseEncoder.from_pretrained(folder, device="cpu")
    expected = whole.encode_query(texts, convert_to_scipy=True)
    found = ours.encode_query(texts, convert_to_scipy=True)
    assert found.has_canonical_format
    assert found.dtype == np.float32
    assert found.shape == expected.shape == (len(texts), ours.vocabulary_size)
    for name in ("data", "indices", "indptr"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    assert found.nnz > len(texts)
    for text in texts[:20]:
        assert (ours.encode_query(text) != whole.encode_query(text, convert_to_scipy=True)).nnz == 0
    assert ours.query_fingerprint() == whole.query_fingerprint()
    names = [ours.tokenizer.convert_ids_to_tokens(token) for token in range(ours.vocabulary_size)]
    assert names == whole.tokenizer.convert_ids_to_tokens(range(ours.vocabulary_size))
    return ours


def edit_json(path, /, **changes):
    content = json.loads(path.read_text()) | changes
    write_json(path, {key: value for key, value in content.items() if value is not None})


@pytest.fixture
def checkpoint(tiny_encoder, tmp_path):
    """Folder of a tiny encoder that was saved."""
    return Path(save_model(tiny_encoder(), tmp_path / "model"))


def test_the_model_of_this_repository():
    assert_same_queries(MINI, ["how to read a file", "[SEP] sort a list", "", "größe 日本 zzzz", "x " * 600])


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_model_that_was_saved(tiny_encoder, mlm_folders, tmp_path, architecture):
    assert_same_queries(save_model(tiny_encoder(mlm_folders(architecture)), tmp_path / "model"))


@pytest.mark.parametrize("architecture", ["bert", "roberta"])
def test_a_masked_language_model_with_a_table(mlm_folders, idf_weights, tmp_path, architecture):
    folder = tmp_path / "doc-v1"
    shutil.copytree(mlm_folders(architecture), folder)
    table = token_table(idf_weights)
    del table["cat"]
    write_json(folder / "idf.json", table)
    ours = assert_same_queries(folder)
    assert ours.query_weights[VOCABULARY.index("cat")] == 1
    assert ours.query_weights[:5].tolist() == [0] * 5
    assert ours.tokenizer.model_max_length == (130 if architecture == "bert" else 128)


@pytest.mark.parametrize("query", ["weights", "idf.json"])
@pytest.mark.parametrize("transformer_id", ["", "document_0_MLMTransformer"])
def test_the_published_layouts(mlm_folder, idf_weights, tmp_path, query, transformer_id):
    folder = tmp_path / "doc-v3"
    write_published_layout(
        folder, mlm_folder, idf_weights, transformer_id=transformer_id, activation="relu", query=query
    )
    assert assert_same_queries(folder).query_weights[:5].tolist() == [0] * 5
    if query == "idf.json":  # the table may lie beside the tokenizer, too
        shutil.move(folder / "idf.json", folder / TABLE / "idf.json")
        assert_same_queries(folder)
    for name in ("query_table", "query"):  # and the folder have another name
        router = (folder / "router_config.json").read_text().replace(TABLE, name)
        (folder / "router_config.json").write_text(router)
        shutil.copytree(folder / TABLE, folder / name)
        assert_same_queries(folder)
        (folder / "router_config.json").write_text(router.replace(f'"{name}"', f'"{TABLE}"'))


@pytest.mark.parametrize(
    "changes",
    [
        {"model_max_length": 3},
        {"model_max_length": 3, "truncation_side": "left"},
        {"model_max_length": None},
        {"model_max_length": 1000000000000000019884624838656},
        {"do_lower_case": False},
        {"strip_accents": False},
        {"tokenize_chinese_chars": False},
        {"tokenizer_class": "PreTrainedTokenizerFast", "do_lower_case": False},
        {"extra_special_tokens": ["cat", "dog"]},
        {"additional_special_tokens": ["cat"]},
        {"animal_token": "fish"},
        {"extra_special_tokens": {"animal_token": "fish"}, "mask_token": None},
        {"extra_special_tokens": ["new"], "mask_token": {"__type": "AddedToken", "content": "sun"}},
    ],
    ids=str,
)
def test_what_the_tokenizers_configuration_says(checkpoint, changes):
    texts = ["The cat and a DOG, fish", "größe Émile 日本 cat"]
    before = QueryEncoder.from_pretrained(checkpoint).query_fingerprint()
    edit_json(checkpoint / TABLE / "tokenizer_config.json", **changes)
    after = assert_same_queries(checkpoint, [*texts, *TEXTS]).query_fingerprint()
    neutral = {"do_lower_case": False, "tokenizer_class": "PreTrainedTokenizerFast"}
    assert (before == after) == (changes == neutral)


def test_special_tokens_in_a_file_of_their_own(checkpoint):
    config = checkpoint / TABLE / "tokenizer_config.json"
    edit_json(config, mask_token=None, tokenizer_class="PreTrainedTokenizerFast")
    write_json(checkpoint / TABLE / "special_tokens_map.json", {"mask_token": {"content": "cat"}, "x": "y"})
    weights = {"weight": torch.ones(len(VOCABULARY))}
    save_file(weights, checkpoint / TABLE / "model.safetensors")
    assert assert_same_queries(checkpoint).query_weights[VOCABULARY.index("cat")] == 0


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_tables_of_other_precision_with_negative_weights(checkpoint, dtype):
    path = checkpoint / TABLE / "model.safetensors"
    table = load_file(path)["weight"]
    table[VOCABULARY.index("cat")], table[2] = -1, 3
    save_file({"weight": table.to(dtype)}, path)
    ours = assert_same_queries(checkpoint)
    assert ours.query_weights[[2, VOCABULARY.index("cat")]].tolist() == [0, 0]
    assert ours.query_weights.dtype == np.float32


def test_prompt_and_most_active_dims(checkpoint):
    config, texts = checkpoint / "config_sentence_transformers.json", ["the dog", "bird fish tree snow"]
    prints = {QueryEncoder.from_pretrained(checkpoint).query_fingerprint()}
    edit_json(config, prompts={"query": "cat ", "document": ""})
    prompted = assert_same_queries(checkpoint)
    assert prompted.encode_query(texts)[:, VOCABULARY.index("cat")].nnz == 2
    prints.add(prompted.query_fingerprint())
    edit_json(config, prompts={"document": "cat "}, default_prompt_name="document")
    assert assert_same_queries(checkpoint).query_fingerprint() in prints  # queries never take that one
    edit_json(config, max_active_dims=2, default_prompt_name=None)
    limited = assert_same_queries(checkpoint)
    assert np.diff(limited.encode_query(texts).indptr).tolist() == [2, 2]
    assert len({*prints, limited.query_fingerprint()}) == 3


def test_tensors_are_refused(checkpoint):
    with pytest.raises(InputError, match="scipy matrices only"):
        QueryEncoder.from_pretrained(checkpoint).encode_query("cat", convert_to_scipy=False)


def message(folder, kind=InputError):
    with pytest.raises(InputError) as caught:
        QueryEncoder.from_pretrained(folder)
    assert type(caught.value) is kind
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_no_model(tmp_path):
    assert "no model there, nor on the Hub" in message(tmp_path)
    assert "no model there, nor on the Hub" in message("no/such-model")
    write_json(tmp_path / "config.json", {"model_type": "bert"})
    assert message(tmp_path).endswith("is no inference-free checkpoint: no SparseEncoder, no idf.json")


def test_a_siamese_model(tiny_encoder, tmp_path, checkpoint):
    folder = save_model(tiny_encoder(idf=None), tmp_path / "siamese")
    assert "is no inference-free checkpoint: its queries run a model" in message(folder)
    edit_json(checkpoint / "router_config.json", structure={"query": ["document_0_Transformer"]})
    assert "its queries run a model" in message(checkpoint)


def test_tables_that_do_not_fit(checkpoint):
    path = checkpoint / TABLE / "model.safetensors"
    size = len(VOCABULARY)
    for weights, problem in (
        ({"weight": torch.ones(size + 1)}, f"shape [{size + 1}], but the tokenizer knows {size} tokens"),
        ({"weight": torch.ones(size, 1)}, f"shape [{size}, 1]"),
        ({"weights": torch.ones(size)}, "holds ['weights'] instead of 'weight'"),
        ({"weight": torch.ones(size, dtype=torch.int8)}, "of type I8, not float"),
    ):
        save_file(weights, path)
        text = message(checkpoint)
        assert text.startswith(f"{path}: ")
        assert problem in text


@pytest.mark.parametrize(
    "name", ["model.safetensors", "tokenizer.json", "tokenizer_config.json", "config.json"]
)
def test_damaged_files_are_named(checkpoint, name):
    path = checkpoint / TABLE / name
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert message(checkpoint).startswith(f"{path}: damaged (")
    path.write_text(f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize {len(whole)}\n")
    assert message(checkpoint) == (
        f"{path}: only a pointer of git-lfs: fetch the file itself with 'git lfs pull'"
    )


def test_a_table_as_json_that_is_missing_or_outside(mlm_folder, idf_weights, tmp_path):
    folder = tmp_path / "doc-v3"
    write_published_layout(
        folder, mlm_folder, idf_weights, transformer_id="", activation="relu", query="idf.json"
    )
    (folder / "idf.json").unlink()
    assert f"{TABLE}/config.json names idf.json, which is missing" in message(folder)
    for name in ("../idf.json", "..\\idf.json", "/idf.json"):
        edit_json(folder / TABLE / "config.json", path=name)
        assert "give a path inside of the checkpoint" in message(folder)


def test_what_only_the_whole_encoder_reads(checkpoint, mlm_folder, tmp_path):
    """Checkpoints that load as before, but not without transformers."""
    path = checkpoint / TABLE / "model.safetensors"
    torch.save(load_file(path), path.with_name("pytorch_model.bin"))
    path.unlink()
    assert "no query_0_SparseStaticEmbedding/model.safetensors" in message(checkpoint, NeedsModelError)
    SparseEncoder.from_pretrained(checkpoint, device="cpu")
    AutoTokenizer.from_pretrained(checkpoint / TABLE).backend_tokenizer.model.save(str(checkpoint / TABLE))
    (checkpoint / TABLE / "tokenizer.json").unlink()
    assert "no query_0_SparseStaticEmbedding/tokenizer.json" in message(checkpoint, NeedsModelError)
    shutil.copytree(mlm_folder, tmp_path / "mlm")
    write_json(tmp_path / "mlm" / "idf.json", {"cat": 2.0})
    edit_json(tmp_path / "mlm" / "config.json", max_position_embeddings=None)
    assert "how many positions" in message(tmp_path / "mlm", NeedsModelError)
