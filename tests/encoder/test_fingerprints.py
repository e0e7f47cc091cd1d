"""A fingerprint is another one exactly where the vectors are."""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from st_l0 import SparseEncoder
from tiny_models import DOCUMENTS, QUERIES, dense, save_model

TRANSFORMER, POOLING = "document_0_Transformer", "document_1_SpladePooling"
TABLE, SETTINGS = "query_0_SparseStaticEmbedding", "config_sentence_transformers.json"
LONG = ["the red cat and the old dog sat on a mountain " * 12, *DOCUMENTS]


@pytest.fixture
def folder(tiny_encoder, tmp_path):
    return Path(save_model(tiny_encoder(max_seq_length=100), tmp_path / "model"))


def edit(file, **changes):
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def load(folder, **options):
    return SparseEncoder.from_pretrained(folder, device="cpu", **options)


def vectors(model):
    return np.concatenate(
        [dense(model.encode_document(LONG)), dense(model.encode_query([*QUERIES, "Cat and Dog", LONG[0]]))]
    )


def edit_tokenizer(folder, change):
    content = json.loads((folder / "tokenizer.json").read_text())
    change(content)
    (folder / "tokenizer.json").write_text(json.dumps(content))


def swap_two_words(content):
    vocabulary = content["model"]["vocab"]
    vocabulary["cat"], vocabulary["dog"] = vocabulary["dog"], vocabulary["cat"]


CHANGES = {
    "hidden_act": lambda folder: edit(folder / TRANSFORMER / "config.json", hidden_act="relu"),
    "attention heads": lambda folder: edit(folder / TRANSFORMER / "config.json", num_attention_heads=4),
    "layer_norm_eps": lambda folder: edit(folder / TRANSFORMER / "config.json", layer_norm_eps=0.1),
    "activation": lambda folder: edit(folder / POOLING / "config.json", activation_function="log1p_relu"),
    "pooling": lambda folder: edit(folder / POOLING / "config.json", pooling_strategy="sum"),
    "length": lambda folder: edit(folder / TRANSFORMER / "tokenizer_config.json", model_max_length=20),
    "length of queries": lambda folder: edit(folder / TABLE / "tokenizer_config.json", model_max_length=3),
    "other end": lambda folder: edit(
        folder / TRANSFORMER / "tokenizer_config.json", truncation_side="left", model_max_length=20
    ),
    "casing": lambda folder: edit(folder / TRANSFORMER / "tokenizer_config.json", do_lower_case=False),
    "casing of queries": lambda folder: edit(folder / TABLE / "tokenizer_config.json", do_lower_case=False),
    "vocabulary": lambda folder: [
        edit_tokenizer(folder / side, swap_two_words) for side in (TRANSFORMER, TABLE)
    ],
    "document prompt": lambda folder: edit(folder / SETTINGS, prompts={"document": "moon "}),
    "query prompt": lambda folder: edit(folder / SETTINGS, prompts={"query": "moon "}),
    "active dims": lambda folder: edit(folder / SETTINGS, max_active_dims=5),
}
SAME = {
    "names": lambda folder: edit(folder / TRANSFORMER / "config.json", _name_or_path="x", name="y"),
    "dropout": lambda folder: edit(folder / TRANSFORMER / "config.json", hidden_dropout_prob=0.4),
    "unknown setting": lambda folder: edit(folder / TRANSFORMER / "config.json", of_no_class=True),
    "stated default": lambda folder: edit(folder / TRANSFORMER / "config.json", hidden_act="gelu"),
    "other prompts": lambda folder: edit(folder / SETTINGS, prompts={"classification": "moon "}),
    "versions": lambda folder: edit(folder / SETTINGS, __version__={}, similarity_fn_name="dot"),
    "frozen": lambda folder: edit(folder / TABLE / "config.json", frozen=False),
    "card": lambda folder: (folder / "README.md").write_text("# Another card"),
    "the last call": lambda folder: edit_tokenizer(
        folder / TRANSFORMER, lambda content: content.update(truncation=None, padding=None, decoder=None)
    ),
}


@pytest.mark.parametrize("name", [*CHANGES, *SAME])
def test_it_changes_where_the_vectors_do(folder, name):
    before = load(folder)
    (CHANGES | SAME)[name](folder)
    after = load(folder)
    moved = not np.array_equal(vectors(before), vectors(after))
    assert moved is (name in CHANGES)
    assert (after.fingerprint() != before.fingerprint()) is moved


def test_a_copy_under_another_name_has_the_same(folder, tmp_path):
    other = tmp_path / "elsewhere" / "copy"
    shutil.copytree(folder, other)
    model = load(other)
    assert model.fingerprint() == load(folder).fingerprint()
    assert load(save_model(model, tmp_path / "again")).fingerprint() == model.fingerprint()


def test_it_follows_a_model_in_memory(tiny_encoder, tmp_path):
    model = tiny_encoder(max_seq_length=100)
    before = model.fingerprint()
    assert load(save_model(model, tmp_path / "model")).fingerprint() == before
    model.encode_document(LONG)  # which sets truncation and padding of the tokenizer
    assert model.fingerprint() == before
    model.max_seq_length = 20
    shorter = model.fingerprint()
    with torch.no_grad():
        next(model.transformers_model.parameters())[0] += 1e-6
    moved = model.fingerprint()
    model.to(torch.float16)
    assert len({before, shorter, moved, model.fingerprint()}) == 4


@pytest.mark.parametrize("prompt", ["query", "document"])
def test_a_siamese_one_follows_both_prompts(tiny_encoder, tmp_path, prompt):
    model = tiny_encoder(idf=None)
    before = model.fingerprint()
    folder = save_model(model, tmp_path / "siamese")
    assert load(folder, inference_free=False).fingerprint() == before
    assert load(folder, inference_free=False, prompts={prompt: "moon "}).fingerprint() != before


def test_fingerprints_of_former_versions_still_count(folder):
    """They were the digest of the pooling's settings and of all weights."""
    model = load(folder)
    digest = hashlib.sha256(b"max relu")
    for parameter in model.parameters():
        digest.update(parameter.detach().numpy().tobytes())
    assert model.has_fingerprint(digest.hexdigest())
    assert model.has_fingerprint(model.fingerprint())
    assert model.fingerprint() != digest.hexdigest()
    other = load(folder)
    with torch.no_grad():
        next(other.transformers_model.parameters())[0] += 1e-6
    assert not other.has_fingerprint(digest.hexdigest())
    assert not other.has_fingerprint(model.fingerprint())


def test_tokens_in_the_order_of_the_vocabulary(folder):
    """The file may list the same vocabulary in another order."""

    def turn(content):
        content["model"]["vocab"] = dict(reversed(content["model"]["vocab"].items()))

    before = load(folder).fingerprint()
    edit_tokenizer(folder / TRANSFORMER, turn)
    assert load(folder).fingerprint() == before
