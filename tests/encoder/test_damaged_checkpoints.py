"""Damaged copies of checkpoints: each loads with the very same vectors, or is refused by name."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from test_checkpoint_layouts import token_table, write_published_layout

from st_l0 import QueryEncoder, SparseEncoder
from st_l0.encoder.hub_options import HubOptions
from st_l0.encoder.pretrained import has_mlm_head
from st_l0.encoder.query_tokenizer import NeedsModelError
from st_l0.errors import InputError
from tiny_models import ARCHITECTURES, VOCABULARY, make_mlm, save_model, write_json

TABLE, MODEL, POOLING = (
    "query_0_SparseStaticEmbedding",
    "document_0_Transformer",
    "document_1_SpladePooling",
)
POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 91000000\n"
DOCUMENTS = ["the cat sat on the big red mountain " * 5, "zzz dog"]
QUERIES = ["The cat on a mountain [SEP]", "cat dog bird fish " * 60, "zzz"]


@pytest.fixture
def checkpoint(tiny_encoder, tmp_path):
    """Folder of a tiny encoder that was saved."""
    return Path(save_model(tiny_encoder(activation=1, max_seq_length=20), tmp_path / "model"))


@pytest.fixture
def layouts(tiny_encoder, mlm_folder, idf_weights, tmp_path):
    """Function: name of a layout to the folder of a checkpoint in it."""

    def folder_of(name):
        folder = tmp_path / name
        if name == "published":
            options = {"transformer_id": "", "activation": "log1p_relu", "query": "idf.json"}
            write_published_layout(folder, mlm_folder, idf_weights, **options)
        elif name == "mlm-with-idf":
            shutil.copytree(mlm_folder, folder)
            write_json(folder / "idf.json", token_table(idf_weights))
        else:
            idf = None if name == "siamese" else idf_weights
            save_model(tiny_encoder(idf=idf, activation=1, max_seq_length=20), folder)
        return folder

    return folder_of


def vectors(folder):
    """Both sides by the whole encoder."""
    free = Path(folder).name != "siamese"
    model = SparseEncoder.from_pretrained(folder, device="cpu", inference_free=free)
    return model.encode_document(DOCUMENTS, convert_to_scipy=True), model.encode_query(
        QUERIES, convert_to_scipy=True
    )


def query_vectors(folder):
    return (QueryEncoder.from_pretrained(folder).encode_query(QUERIES),)


def damages(whole, is_json):
    """What is left of a file; ``None`` for nothing."""
    yield from (None, b"", whole[: len(whole) // 2], POINTER.encode())
    if is_json:
        yield from (b"[]", b"null", b"{}", b"[null]", bytes([whole[0] ^ 1]) + whole[1:])
    else:  # length, names, types and shapes in the header of safetensors
        for place in (0, 8, 20, 40, 60, 90):
            yield whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :]


@pytest.mark.parametrize("layout", ["ours", "siamese", "published", "mlm-with-idf"])
def test_each_damage_is_harmless_or_refused_by_name(layouts, layout):
    folder = layouts(layout)
    readers = [vectors] if layout == "siamese" else [vectors, query_vectors]
    expected = [reader(folder) for reader in readers]
    refused = 0
    for path in sorted(file for file in folder.rglob("*") if file.is_file()):
        whole = path.read_bytes()
        for left in damages(whole, path.suffix == ".json"):
            path.unlink(missing_ok=True)
            if left is not None:
                path.write_bytes(left)
            for reader, right in zip(readers, expected, strict=True):
                try:
                    found = reader(folder)
                except InputError as error:
                    assert str(folder) in str(error)
                    assert "\n" not in str(error)
                    refused += 1
                else:
                    for one, other in zip(found, right, strict=True):
                        assert one.shape == other.shape, (path, left)
                        assert (one != other).nnz == 0, (path, left)
        path.write_bytes(whole)
    assert refused > 60


def refusal(folder, load=SparseEncoder.from_pretrained, **options):
    with pytest.raises(InputError) as caught:
        load(folder, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def edit_json(path, **changes):
    write_json(path, json.loads(path.read_text()) | changes)


# Weights


def write_weights(path, tensors):
    save_file(tensors, path, metadata={"format": "pt"})


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_each_tensor_has_to_be_there(tiny_encoder, mlm_folders, tmp_path, architecture):
    folder = Path(save_model(tiny_encoder(mlm_folders(architecture)), tmp_path / "model"))
    path = folder / MODEL / "model.safetensors"
    whole = load_file(path)
    for name in list(whole)[::4] + [name for name in whole if "embeddings" in name or "head" in name]:
        write_weights(path, {other: tensor for other, tensor in whole.items() if other != name})
        assert refusal(folder).startswith(f"{path}: lacks {name} of the ")
    name, tensor = next((name, tensor) for name, tensor in whole.items() if tensor.dim() == 2)
    write_weights(path, {**whole, name: tensor[:-1].clone()})
    assert f"{path}: {name} has shape {[len(tensor) - 1, tensor.shape[1]]}" in refusal(folder)
    write_weights(path, {**whole, name: tensor.to(torch.int32)})
    assert f"{path}: {name} is of type I32, not float" in refusal(folder)
    write_weights(path, {**whole, "extra.weight": torch.ones(2)})
    assert f"{path}: holds extra.weight, which the model of config.json has no place for" in refusal(folder)
    for number in (float("nan"), float("-inf")):
        write_weights(path, {**whole, name: tensor.clone().index_fill_(0, torch.tensor([1]), number)})
        assert f"{path}: {name} holds numbers that are not finite" in refusal(folder)
    write_weights(path, {**whole, name: tensor.half()})  # exported by halves
    SparseEncoder.from_pretrained(folder, device="cpu")


@pytest.mark.parametrize("layers", [1, 3])
def test_as_many_layers_as_the_configuration_says(checkpoint, mlm_folder, tmp_path, layers):
    edit_json(checkpoint / MODEL / "config.json", num_hidden_layers=layers)
    assert f"bert.encoder.layer.{min(layers, 2) if layers == 3 else 1}." in refusal(checkpoint)
    bare = shutil.copytree(mlm_folder, tmp_path / "bare")
    edit_json(bare / "config.json", num_hidden_layers=layers)
    text = refusal(bare, SparseEncoder.from_mlm, idf="binary")
    assert f"{bare / 'model.safetensors'}: " in text
    assert f"bert.encoder.layer.{1 if layers == 1 else 2}." in text


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_head_is_what_the_weights_hold(mlm_folders, tmp_path, architecture):
    """The configuration names ...ForMaskedLM throughout."""
    folder = shutil.copytree(mlm_folders(architecture), tmp_path / "mlm")
    path = folder / "model.safetensors"
    whole, prefix = load_file(path), f"{make_mlm(architecture).base_model_prefix}."
    assert has_mlm_head(str(folder), HubOptions())
    others = {"pooler.dense.weight": torch.ones(2), "cls.seq_relationship.bias": torch.ones(2)}
    write_weights(path, whole | others)  # as models lie on the Hub
    assert has_mlm_head(str(folder), HubOptions())
    for cut in (0, len(prefix)):  # as one or another class saves them
        bare = {name[cut:]: tensor for name, tensor in whole.items() if name.startswith(prefix)}
        write_weights(path, bare)
        assert not has_mlm_head(str(folder), HubOptions())
        assert "has no MLM head: give texts to start one" in refusal(
            folder, SparseEncoder.from_mlm, idf="binary"
        )
    if architecture != "modernbert":  # whose head has no closed-form start
        texts = [" ".join(VOCABULARY[5:60])] * 3
        SparseEncoder.from_mlm(folder, idf="binary", warm_start=texts, device="cpu")
    last = next(name for name in whole if not name.startswith(prefix))
    write_weights(path, {name: tensor for name, tensor in whole.items() if name != last})
    assert f"lacks {last} of the " in refusal(folder, SparseEncoder.from_mlm, idf="binary")


def test_pickled_weights_are_read_and_checked(mlm_folder, tmp_path):
    folder = shutil.copytree(mlm_folder, tmp_path / "mlm")
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    path = folder / "pytorch_model.bin"
    torch.save(weights, path)
    SparseEncoder.from_mlm(folder, idf="binary", device="cpu")
    del weights["bert.encoder.layer.0.output.dense.bias"]
    torch.save(weights, path)
    text = refusal(folder, SparseEncoder.from_mlm, idf="binary")
    assert text.startswith(f"{folder}: lacks bert.encoder.layer.0.output.dense.bias")
    path.write_text(POINTER)
    assert f"{path}: only a pointer of git-lfs" in refusal(folder, SparseEncoder.from_mlm, idf="binary")


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_query_weights_are_finite(checkpoint, number):
    path = checkpoint / TABLE / "model.safetensors"
    table = load_file(path)["weight"]
    table[7] = number
    save_file({"weight": table}, path)
    for load in (SparseEncoder.from_pretrained, QueryEncoder.from_pretrained):
        assert refusal(checkpoint, load).startswith(f"{path}: weight of token 7 is {number}")


def test_query_weights_are_floats_for_both_readers(checkpoint):
    path = checkpoint / TABLE / "model.safetensors"
    save_file({"weight": torch.ones(len(VOCABULARY), dtype=torch.int32)}, path)
    for load in (SparseEncoder.from_pretrained, QueryEncoder.from_pretrained):
        assert f"{path}: the query weights are of type I32" in refusal(checkpoint, load)


# Tokenizers


def test_the_two_sides_have_one_vocabulary(checkpoint):
    path = checkpoint / TABLE / "tokenizer.json"
    content = json.loads(path.read_text())
    vocabulary = content["model"]["vocab"]
    vocabulary["cat"], vocabulary["dog"] = vocabulary["dog"], vocabulary["cat"]
    write_json(path, content)
    cat, dog = VOCABULARY.index("cat"), VOCABULARY.index("dog")
    text = refusal(checkpoint)
    assert text.startswith(f"{checkpoint}: token 'cat' is number {dog} of the queries' tokenizer, but")
    assert f"number {cat} of the documents'" in text


def test_a_vocabulary_much_smaller_than_the_head(checkpoint, tiny_encoder, mlm_folder, tmp_path):
    siamese = Path(save_model(tiny_encoder(idf=None), tmp_path / "siamese"))
    bare = shutil.copytree(mlm_folder, tmp_path / "bare")
    for folder, load in (
        (siamese, lambda folder: SparseEncoder.from_pretrained(folder, inference_free=False)),
        (bare, lambda folder: SparseEncoder.from_mlm(folder, idf="binary")),
    ):
        path = folder / "tokenizer.json"
        content = json.loads(path.read_text())
        content["model"]["vocab"] = dict(list(content["model"]["vocab"].items())[:20])
        write_json(path, content)
        text = refusal(folder, load)
        assert "has 20 tokens but the model's head" in text
        assert str(folder) in text


def test_a_tokenizer_of_no_class_is_left_to_transformers(mlm_folder, tmp_path):
    """It tells special tokens by the class, which only the model's type gives away."""
    folder = shutil.copytree(mlm_folder, tmp_path / "mlm")
    write_json(folder / "idf.json", {"cat": 2.0})
    write_json(folder / "tokenizer_config.json", {"model_max_length": 100})
    with pytest.raises(NeedsModelError, match="no tokenizer_class in tokenizer_config"):
        QueryEncoder.from_pretrained(folder)
    model = SparseEncoder.from_pretrained(folder, device="cpu")
    assert model.encode_query("[SEP] cat", convert_to_scipy=True).data.tolist() == [2.0]


@pytest.mark.parametrize("length", [0, -5, "abc", True])
def test_lengths_that_leave_nothing(checkpoint, length):
    path = checkpoint / TABLE / "tokenizer_config.json"
    whole = path.read_text()
    edit_json(path, model_max_length=length)
    text = refusal(checkpoint, QueryEncoder.from_pretrained)
    assert f"{TABLE}/tokenizer_config.json: model_max_length is {length!r}" in text
    assert f"{checkpoint}: the length of a query (model_max_length) is {length!r}" in refusal(checkpoint)
    path.write_text(whole)
    edit_json(checkpoint / MODEL / "sentence_bert_config.json", max_seq_length=length)
    text = refusal(checkpoint)
    assert f"{checkpoint}: the length of a document (max_seq_length or model_max_length)" in text
    assert f"is {length!r}; give a number of tokens, at least 3" in text


def test_a_start_with_no_length(mlm_folder):
    for length in (0, -1, 2):
        text = refusal(mlm_folder, SparseEncoder.from_mlm, idf="binary", max_seq_length=length)
        assert text == f"max_seq_length is {length}; give a number of tokens, at least 3"


# What the modules are


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"types": {}}, "has no type for the module"),
        ({"types": {TABLE: 5}}, "are malformed"),
        ({"structure": []}, "are malformed"),
        ({"structure": {"query": "table"}}, "are malformed"),
        ({"structure": {"query": [TABLE], "document": ["nowhere"]}}, "has no type for the module 'nowhere'"),
        ({"parameters": None}, "are malformed"),
    ],
    ids=str,
)
def test_a_malformed_router(checkpoint, changes, problem):
    path = checkpoint / "router_config.json"
    edit_json(path, **changes)
    for load in (SparseEncoder.from_pretrained, QueryEncoder.from_pretrained):
        text = refusal(checkpoint, load)
        assert text.startswith(f"{path}: ")
        assert problem in text


def test_classes_and_folders_that_are_not_there(checkpoint):
    path = checkpoint / "router_config.json"
    whole = path.read_text()
    path.write_text(whole.replace("splade_pooling.SpladePooling", "splade_pooling.Nothing"))
    assert f"{checkpoint}: its module '{POOLING}' is a sentence_transformers" in refusal(checkpoint)
    path.write_text(whole.replace("sentence_transformers.sparse_encoder.modules.splade_pooling", "elsewhere"))
    text = refusal(checkpoint)
    assert str(checkpoint) in text
    assert "trust_remote_code" in text
    path.write_text(whole)
    shutil.rmtree(checkpoint / POOLING)
    assert refusal(checkpoint) == f"{checkpoint}: no {POOLING}/config.json: restore the checkpoint"


def test_a_folder_in_place_of_a_file(checkpoint):
    path = checkpoint / MODEL / "config.json"
    path.unlink()
    path.mkdir()
    assert f"{path}: is a folder, where a file should be" in refusal(checkpoint)


@pytest.mark.parametrize(
    ("file", "changes", "problem"),
    [
        (f"{POOLING}/config.json", {"activation_function": "gelu"}, "activation must be"),
        (f"{POOLING}/config.json", {"pooling_strategy": "mean"}, "pooling must be 'max' or 'sum'"),
        (f"{MODEL}/config.json", {"hidden_act": "gelux"}, "gelux"),
        (f"{MODEL}/config.json", {"vocab_size": 50}, "has shape"),
        ("config_sentence_transformers.json", {"prompts": {"query": 5}}, "prompts must map names to texts"),
        ("config_sentence_transformers.json", {"max_active_dims": -3}, "max_active_dims is -3"),
        ("config_sentence_transformers.json", {"similarity_fn_name": "x"}, "x"),
        ("config_sentence_transformers.json", {"default_prompt_name": "x"}, "x"),
    ],
)
def test_settings_of_unknown_values(checkpoint, file, changes, problem):
    edit_json(checkpoint / file, **changes)
    text = refusal(checkpoint)
    assert str(checkpoint) in text
    assert problem in text


def test_what_the_machine_did_stays_as_it_is(checkpoint, monkeypatch):
    def fails(*args, **kwargs):
        raise error

    monkeypatch.setattr("transformers.AutoTokenizer.from_pretrained", fails)
    for error in (
        MemoryError("no memory"),
        OSError(28, "No space left on device"),
        PermissionError(13, "no"),
    ):
        with pytest.raises(type(error)) as caught:
            SparseEncoder.from_pretrained(checkpoint, device="cpu")
        assert caught.value is error


def test_checkpoints_may_name_classes_by_former_paths(checkpoint):
    expected = vectors(checkpoint)
    path = checkpoint / "router_config.json"
    whole = path.read_text()
    present = "sentence_transformers.base.modules.transformer.Transformer"
    assert present in whole
    weights = checkpoint / MODEL / "model.safetensors"
    tensors = load_file(weights)
    for former in (
        "sentence_transformers.models.Transformer",
        "sentence_transformers.base.modules.Transformer",
    ):
        path.write_text(whole.replace(present, former))
        write_weights(weights, tensors)
        for one, other in zip(vectors(checkpoint), expected, strict=True):
            np.testing.assert_array_equal(one.toarray(), other.toarray())
        write_weights(weights, {name: one for name, one in tensors.items() if "LayerNorm" not in name})
        assert "lacks" in refusal(checkpoint)


def test_two_tokens_of_one_id(checkpoint, mlm_folder, idf_weights, tmp_path):
    """Which one is kept changed from load to load, and the vectors with it."""

    def share(folder):
        path = folder / "tokenizer.json"
        tokenizer = json.loads(path.read_text())
        vocabulary = tokenizer["model"]["vocab"]
        vocabulary["cat"] = vocabulary["dog"]
        write_json(path, tokenizer)

    older = shutil.copytree(mlm_folder, tmp_path / "older")
    write_json(older / "idf.json", token_table(idf_weights))
    for folder in (checkpoint / TABLE, checkpoint / MODEL, older):
        share(folder)
    for folder in (checkpoint, older):
        for load in (SparseEncoder.from_pretrained, QueryEncoder.from_pretrained):
            text = refusal(folder, load)
            assert str(folder) in text
            assert f"'cat' and 'dog' of the tokenizer have the same id {VOCABULARY.index('dog')}" in text


@pytest.mark.parametrize(
    ("side", "changes"),
    [
        (TABLE, {"unk_token": None}),
        (MODEL, {"unk_token": None}),
        (MODEL, {"pad_token": None}),
        (MODEL, {"model_input_names": ["input_ids"]}),
    ],
)
def test_a_tokenizer_that_would_fail_at_some_text(checkpoint, side, changes):
    edit_json(checkpoint / side / "tokenizer_config.json", **changes)
    assert refusal(checkpoint).startswith(f"{checkpoint} cannot be loaded: ")


def test_no_unknown_token_without_transformers(checkpoint):
    path = checkpoint / TABLE / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    tokenizer["model"]["unk_token"] = "[NOPE]"
    write_json(path, tokenizer)
    assert refusal(checkpoint, QueryEncoder.from_pretrained).startswith(f"{path}: ")


def test_lengths_are_whole_numbers(checkpoint):
    edit_json(checkpoint / MODEL / "sentence_bert_config.json", max_seq_length=3.5)
    assert "is 3.5; give a number of tokens" in refusal(checkpoint)
    edit_json(checkpoint / MODEL / "sentence_bert_config.json", max_seq_length=20)
    edit_json(checkpoint / TABLE / "tokenizer_config.json", model_max_length=2.5)
    for load in (SparseEncoder.from_pretrained, QueryEncoder.from_pretrained):
        assert "is 2.5; give a number of tokens" in refusal(checkpoint, load)


def test_a_model_of_no_layers_over_weights_of_some(mlm_folder, tmp_path):
    folder = shutil.copytree(mlm_folder, tmp_path / "mlm")
    edit_json(folder / "config.json", num_hidden_layers=0)
    assert "holds bert.encoder.layer.0." in refusal(folder, SparseEncoder.from_mlm, idf="binary")
