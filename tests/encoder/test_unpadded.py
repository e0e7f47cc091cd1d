"""Batches without padding outside of the attention: the vectors and gradients of the padded batch."""

import numpy as np
import pytest
import torch
import transformers as tf

from st_l0.encoder import documents, unpadded
from st_l0.encoder.modules import encoder_modules
from st_l0.encoder.unpadded import can_drop_padding, states_without_padding
from tiny_models import ARCHITECTURES, DOCUMENTS, WORDS, dense

KNOWN = tuple(name for name in ARCHITECTURES if name != "mpnet")


def texts_of(lengths, seed=1):
    generator = np.random.default_rng(seed)
    return [" ".join(generator.choice(WORDS, length)) for length in lengths]


MIXED = texts_of([3, 60, 1, 0, 17, 40, 2, 5, 9, 28, 1, 1])


def trained(model):
    for module in model.train().modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return model


def run(model, features):
    """Vectors, gradients, and the numbers of places that linear layers of the transformer worked on."""
    sizes = set()
    transformer = encoder_modules(model).transformer.model.base_model
    hooks = [
        one.register_forward_hook(lambda layer, given, out: sizes.add(out[..., 0].numel()))
        for one in transformer.modules()
        if isinstance(one, torch.nn.Linear)
    ]
    model.zero_grad()
    vectors = model(dict(features), task="document")["sentence_embedding"]
    (vectors.mean(0) ** 2).sum().backward()
    for hook in hooks:
        hook.remove()
    gradients = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    return vectors.detach(), gradients, sizes


def assert_same(model, features, monkeypatch):
    """Without padding as with it; what the padded batch gives."""
    mask = features["attention_mask"]
    with monkeypatch.context() as patch:
        patch.setattr(documents, "_FULL", 0.0)
        whole, expected, sizes = run(model, features)
    assert sizes == {mask.numel()}
    vectors, gradients, sizes = run(model, features)
    assert sizes == {int(mask.sum())}
    torch.testing.assert_close(vectors, whole, rtol=1e-5, atol=1e-5)
    assert gradients.keys() == expected.keys() and (whole > 0).any()
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("architecture", KNOWN)
def test_a_batch_of_a_training_is_read_without_padding(
    tiny_encoder, mlm_folders, architecture, side, monkeypatch
):
    model = trained(tiny_encoder(mlm_folders(architecture)))
    encoder_modules(model).tokenizer.padding_side = side
    assert_same(model, model.preprocess(MIXED, task="document"), monkeypatch)


def test_electra_is_read_without_padding():
    config = tf.ElectraConfig(vocab_size=90, hidden_size=32, num_attention_heads=2, num_hidden_layers=2)
    assert_hidden(tf.ElectraForMaskedLM(config).eval())


def test_layers_with_a_window():
    """ModernBERT's local layers see what is near."""
    shape = {"vocab_size": 90, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2}
    shape |= {"intermediate_size": 48, "pad_token_id": 0, "attn_implementation": "sdpa"}
    near = tf.ModernBertForMaskedLM(tf.ModernBertConfig(**shape, local_attention=8)).eval()
    wide = tf.ModernBertForMaskedLM(tf.ModernBertConfig(**shape, local_attention=80)).eval()
    wide.load_state_dict(near.state_dict())
    assert not torch.allclose(assert_hidden(near), assert_hidden(wide), atol=1e-3)


def assert_hidden(model):
    """The states of a transformers model, without padding and with; with texts padded on either side."""
    torch.manual_seed(0)
    ids, mask = torch.randint(5, 90, (3, 30)), torch.ones(3, 30, dtype=torch.long)
    mask[1, 4:] = 0
    mask[2, :13] = 0
    inputs = {"input_ids": ids, "attention_mask": mask}
    with torch.no_grad():
        padded = model.base_model(**inputs).last_hidden_state[mask.bool()]
        hidden, offsets = states_without_padding(model, inputs)
    assert offsets.tolist() == [0, 30, 34, 51]
    torch.testing.assert_close(hidden, padded, rtol=1e-5, atol=1e-5)
    return hidden


def test_gradient_checkpointing(tiny_encoder, monkeypatch):
    """A layer that is run again has its places still."""
    model = trained(tiny_encoder())
    encoder_modules(model).transformer.model.gradient_checkpointing_enable()
    assert_same(model, model.preprocess(MIXED, task="document"), monkeypatch)


def test_a_text_without_tokens_gets_no_vector_and_spoils_no_gradient(tiny_encoder):
    model = trained(tiny_encoder())
    features = model.preprocess(MIXED, task="document")
    features["attention_mask"][4] = 0
    vectors, gradients, _ = run(model, features)
    assert (vectors[4] == 0).all() and (vectors[5] > 0).any()
    assert all(gradient.isfinite().all() for gradient in gradients.values())


@pytest.mark.parametrize("lengths", [[20, 19, 20], [30, 2, 5]], ids=["full", "mixed"])
def test_half_precision_is_trained_through_attention_in_float32(tiny_encoder, monkeypatch, lengths):
    """On a CPU, where attention's backward pass is slow in it; without gradients it stays as it is."""
    model = trained(tiny_encoder())
    features = model.preprocess(texts_of(lengths), task="document")
    expected, gradients, _ = run(model, features)
    attention, seen = unpadded.sdpa_attention_forward, []

    def watched(module, query, key, value, *args, **kwargs):
        found = attention(module, query, key, value, *args, **kwargs)
        seen.append([one.dtype for one in (query, key, value, found[0])])
        return found

    monkeypatch.setattr(unpadded, "sdpa_attention_forward", watched)
    with torch.autocast("cpu", torch.bfloat16):
        vectors, found, _ = run(model, features)
    assert seen == [[torch.float32] * 4] * 2  # layers
    assert torch.cosine_similarity(vectors.float(), expected).min() > 0.999
    whole, half = (torch.cat([one[name].flatten() for name in gradients]) for one in (gradients, found))
    assert torch.cosine_similarity(half, whole, dim=0) > 0.99
    seen.clear()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        model(dict(features), task="document")
    assert seen == [[torch.bfloat16] * 4] * 2


def test_what_is_encoded_and_saved_is_as_before(tiny_encoder, tmp_path):
    """The attention stays ours, and is SDPA for padded texts; the checkpoint does not name it."""
    model = tiny_encoder()
    before = dense(model.encode_document(DOCUMENTS))
    run(trained(model), model.preprocess(MIXED, task="document"))
    transformer = encoder_modules(model).transformer.model
    assert transformer.config._attn_implementation == "st_l0_unpadded"
    np.testing.assert_array_equal(dense(model.encode_document(DOCUMENTS)), before)
    model.save(str(tmp_path))
    assert not [path for path in tmp_path.rglob("*.json") if "st_l0" in path.read_text()]
    loaded = type(model)(str(tmp_path))
    assert encoder_modules(loaded).transformer.model.config._attn_implementation == "sdpa"


def test_which_models_and_batches_stay_padded(tiny_encoder, mlm_folders):
    assert not can_drop_padding(tiny_encoder(mlm_folders("mpnet")).transformers_model.base_model)
    model = trained(tiny_encoder())
    transformer = encoder_modules(model).transformer.model
    assert can_drop_padding(transformer)
    *_, sizes = run(model, model.preprocess(texts_of([20, 19, 20]), task="document"))  # hardly any padding
    assert sizes == {3 * 22}
    transformer.set_attn_implementation("eager")
    assert not can_drop_padding(transformer)
    *_, sizes = run(model, model.preprocess(MIXED, task="document"))
    assert sizes == {12 * 62}


def test_every_known_model_is_tried_here():
    assert {*KNOWN, "electra", "camembert"} == unpadded._MODELS  # CamemBERT is RoBERTa, line by line
