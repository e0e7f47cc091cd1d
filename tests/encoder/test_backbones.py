"""Every kind of base model: it works and equals stock, or one line says why it cannot."""

import logging
import re

import numpy as np
import pytest
import sentence_transformers
import torch
import transformers as tf

from st_l0 import SparseEncoder
from st_l0.encoder import modules
from st_l0.encoder.hub_options import HubOptions
from st_l0.encoder.modules import encoder_modules
from st_l0.encoder.pretrained import has_mlm_head
from st_l0.errors import InputError
from tiny_models import DOCUMENTS, VOCABULARY, dense, make_tokenizer, save_model

SHAPE = {
    "vocab_size": len(VOCABULARY),
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "max_position_embeddings": 130,
    "initializer_range": 0.3,
}
SPECIAL = {"bos_token_id": 2, "eos_token_id": 3, "cls_token_id": 2, "sep_token_id": 3, "mask_token_id": 4}
XLM = {"emb_dim": 32, "n_layers": 2, "n_heads": 2, "n_words": len(VOCABULARY), "max_position_embeddings": 130}
# Type of the configuration → what differs from BERT's, and whether the fused head knows it.
WORKS = {
    "albert": ({"embedding_size": 16}, False),
    "big_bird": ({}, True),
    "data2vec-text": ({}, True),
    "deberta": ({}, True),
    "deberta-v2": ({}, True),
    "electra": ({"embedding_size": 16}, False),
    "esm": ({"position_embedding_type": "absolute", "mask_token_id": 4}, False),
    "eurobert": ({**SPECIAL, "head_dim": 16}, False),
    "flaubert": (XLM, False),
    "ibert": ({}, True),
    "jina_embeddings_v3": ({}, True),
    "longformer": ({"attention_window": 16}, True),
    "mobilebert": ({"embedding_size": 32, "intra_bottleneck_size": 32, "true_hidden_size": 32}, True),
    "nomic_bert": ({"head_dim": 16}, False),
    "roberta-prelayernorm": ({}, True),
    "roformer": ({"embedding_size": 32}, True),
    "squeezebert": ({"embedding_size": 32}, True),
    "xlm": (XLM, False),
    "xlm-roberta-xl": ({}, True),
    "xmod": ({"languages": ["en_XX"], "default_language": "en_XX"}, True),
}
DEPENDENT = {
    "convbert": {"embedding_size": 32, "head_ratio": 1, "conv_kernel_size": 3},
    "fnet": {},
    "funnel": {
        "block_sizes": [1, 1],
        "num_decoder_layers": 1,
        "d_model": 32,
        "n_head": 2,
        "d_head": 16,
        "d_inner": 48,
    },
    "nystromformer": {},
    "yoso": {},
}
BART = {"d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48}
BART |= {"encoder_attention_heads": 2, "decoder_attention_heads": 2}


def save_base(folder, kind, options, *, architecture="MaskedLM", pad_token_id=0):
    """A random base model of some kind, with the tokenizer of the tiny ones."""
    torch.manual_seed(0)
    shape = {key: value for key, value in SHAPE.items() if kind != "funnel" or key != "num_hidden_layers"}
    config = tf.AutoConfig.for_model(kind, **shape | {"pad_token_id": pad_token_id} | options)
    model = getattr(tf, f"AutoModelFor{architecture}").from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(torch.randn_like(parameter) * 0.2)
    model.save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize("kind", WORKS)
def test_it_works_and_equals_stock(kind, tmp_path):
    options, fused = WORKS[kind]
    base = save_base(tmp_path / "base", kind, options)
    model = SparseEncoder.from_mlm(base, idf="binary", device="cpu")
    assert (encoder_modules(model).fused_head is not None) == fused
    texts = [*DOCUMENTS, "the cat sat on a mountain " * 60]  # beyond its positions
    found = dense(model.encode_document(texts))
    assert np.isfinite(found).all() and (found > 0).any(axis=1)[0]
    folder = save_model(model, tmp_path / "saved")
    stock = sentence_transformers.SparseEncoder(folder, device="cpu")
    np.testing.assert_allclose(found, dense(stock.encode_document(texts)), atol=1e-5)
    loaded = SparseEncoder.from_pretrained(folder, device="cpu")
    np.testing.assert_array_equal(found, dense(loaded.encode_document(texts)))


@pytest.mark.parametrize("kind", DEPENDENT)
def test_where_neighbours_in_a_batch_count_it_is_refused(kind, tmp_path):
    base = save_base(tmp_path / "base", kind, DEPENDENT[kind])
    with pytest.raises(InputError, match=r"depends on the length of its neighbours in a batch \(by [\d.]+ "):
        SparseEncoder.from_mlm(base, idf="binary", device="cpu")


@pytest.mark.parametrize(
    ("kind", "architecture", "options", "said"),
    [
        ("gpt2", "CausalLM", {}, "gpt2 has no masked language model"),
        ("qwen2", "CausalLM", {"num_key_value_heads": 2}, "qwen2 has no masked language model"),
        ("modernbert-decoder", "CausalLM", SPECIAL, "modernbert-decoder has no masked language model"),
        ("bart", "MaskedLM", BART, "bart is an encoder with a decoder behind it"),
        (
            "deberta-v2",
            "MaskedLM",
            {"legacy": False},
            # The second where transformers itself (5.18) cannot load such a head.
            "not one for each of 127 entries|no attribute `weight`",
        ),
        ("tapas", "MaskedLM", {}, "cannot read a plain text"),
    ],
)
def test_without_a_head_over_the_vocabulary_it_is_refused(kind, architecture, options, said, tmp_path):
    base = save_base(tmp_path / "base", kind, options, architecture=architecture)
    with pytest.raises(InputError, match=said) as caught:
        SparseEncoder.from_mlm(base, idf="binary", device="cpu")
    assert (
        base in str(caught.value)
        and re.search("give|restore", str(caught.value))
        and "\n" not in str(caught.value)
    )
    if architecture == "CausalLM":
        with pytest.raises(InputError, match=said):
            has_mlm_head(base, HubOptions())


@pytest.mark.parametrize("pad_token_id", [0, 1, 4])
def test_positions_that_begin_behind_the_padding(pad_token_id, tmp_path):
    base = save_base(tmp_path / "base", "longformer", {"attention_window": 16}, pad_token_id=pad_token_id)
    model = SparseEncoder.from_mlm(base, idf="binary", device="cpu")
    assert model.max_seq_length == 130 - 1 - max(1, pad_token_id)


def test_a_head_without_bias_is_said_once(tmp_path, caplog):
    base = save_base(tmp_path / "base", "eurobert", WORKS["eurobert"][0])
    modules._tell_no_bias.cache_clear()
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            save_model(SparseEncoder.from_mlm(base, idf="binary", device="cpu"), tmp_path / "saved")
    assert sum("has no bias" in record.message for record in caplog.records) == 1
