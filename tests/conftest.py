"""Tiny deterministic models, built once a run in a temporary folder; nothing is downloaded."""

import os

# Before transformers, huggingface_hub and torch are imported by any test.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_OFFLINE"] = "1"
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import numpy as np
import pytest

WORDS = (
    "the a of in on and is to cat cats dog dogs bird fish tree river mountain sun moon star rain snow wind "
    "red green blue black white big small old new good bad fast slow man woman child house street city road "
    "car train ship bread milk water fire stone gold paper book song word run eat sleep read write play ing"
).split()
# No q, x and z: a word with one of them is unknown.
LETTERS = "abcdefghijklmnoprstuvwy0123"
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
VOCABULARY = [
    *SPECIAL,
    *dict.fromkeys([*WORDS, *LETTERS]),
    *(f"##{piece}" for piece in [*LETTERS, "ing", "ed", "s2"]),
    ".",
    ",",
    "?",
]
ARCHITECTURES = ("bert", "distilbert", "roberta", "xlm-roberta", "mpnet", "modernbert")


def make_tokenizer():
    """A WordPiece tokenizer of ``VOCABULARY``, lower-casing, with BERT's pre-tokenizer."""
    from transformers import BertTokenizerFast

    return BertTokenizerFast(vocab={token: i for i, token in enumerate(VOCABULARY)}, model_max_length=512)


def make_mlm(architecture, vocabulary=None, *, seed=0, scale=0.3, bias=True):
    """A random masked language model of 2 layers; about half of the logits are above zero."""
    import torch
    import transformers as tf

    size = len(VOCABULARY) if vocabulary is None else vocabulary
    common = {"vocab_size": size, "pad_token_id": 0, "initializer_range": scale}
    shape = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 48,
        "max_position_embeddings": 130,
    }
    torch.manual_seed(seed)
    if architecture == "bert":
        model = tf.BertForMaskedLM(tf.BertConfig(**common, **shape))
    elif architecture == "distilbert":
        config = tf.DistilBertConfig(
            **common, dim=32, n_layers=2, n_heads=2, hidden_dim=48, max_position_embeddings=130
        )
        model = tf.DistilBertForMaskedLM(config)
    elif architecture == "roberta":
        model = tf.RobertaForMaskedLM(tf.RobertaConfig(**common, **shape))
    elif architecture == "xlm-roberta":
        model = tf.XLMRobertaForMaskedLM(tf.XLMRobertaConfig(**common, **shape))
    elif architecture == "mpnet":
        model = tf.MPNetForMaskedLM(tf.MPNetConfig(**common, **shape))
    elif architecture == "modernbert":
        config = tf.ModernBertConfig(
            **common,
            **shape,
            bos_token_id=2,
            eos_token_id=3,
            cls_token_id=2,
            sep_token_id=3,
            decoder_bias=bias,
            attn_implementation="sdpa",
        )
        model = tf.ModernBertForMaskedLM(config)
    else:
        raise ValueError(architecture)
    decoder = model.get_output_embeddings()
    with torch.no_grad():
        # transformers initializes some parts with its own constants: make them random throughout.
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(torch.randn_like(parameter) * 0.2)
        if decoder.bias is not None:
            decoder.bias.copy_(torch.randn_like(decoder.bias) - 1.0)
    return model.eval()


@pytest.fixture(scope="session")
def tokenizer_folder(tmp_path_factory):
    """Folder of the saved tokenizer."""
    folder = tmp_path_factory.mktemp("tokenizer")
    make_tokenizer().save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def mlm_folders(tmp_path_factory):
    """Function: architecture (and vocabulary of the model) to the folder of a saved model and tokenizer."""
    built = {}

    def folder_of(architecture, vocabulary=None, **options):
        key = (architecture, vocabulary, *sorted(options.items()))
        if key not in built:
            folder = tmp_path_factory.mktemp(architecture)
            make_mlm(architecture, vocabulary, **options).save_pretrained(folder)
            make_tokenizer().save_pretrained(folder)
            built[key] = str(folder)
        return built[key]

    return folder_of


@pytest.fixture(scope="session")
def mlm_folder(mlm_folders):
    """Folder of a saved tiny `BertForMaskedLM` and its tokenizer."""
    return mlm_folders("bert")


@pytest.fixture(scope="session")
def idf_weights():
    """A positive weight for each token, float32, `(vocabulary,)`."""
    return np.random.default_rng(5).uniform(0.5, 8.0, len(VOCABULARY)).astype(np.float32)


@pytest.fixture
def tiny_encoder(mlm_folder, idf_weights):
    """Function that builds a fresh `st_l0.SparseEncoder` on the CPU; takes what `from_mlm` takes."""

    def build(base_model=mlm_folder, **options):
        from st_l0 import SparseEncoder

        return SparseEncoder.from_mlm(base_model, **{"idf": idf_weights, "device": "cpu", **options})

    return build


@pytest.fixture(autouse=True)
def one_thread():
    """Same numbers on every machine, and no fight for the cores."""
    import sys

    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
