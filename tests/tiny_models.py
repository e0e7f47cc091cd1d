"""Tiny random models and the formulas of both sides, in raw transformers."""

import json

import numpy as np
import sentence_transformers
import torch
import transformers as tf

_TEXT = """
the a of in on and is to cat cats dog dogs bird fish tree river mountain sun moon star rain snow wind
red green blue black white big small old new good bad fast slow man woman child house street city road
car train ship bread milk water fire stone gold paper book song word run eat sleep read write play ing
"""
WORDS = _TEXT.split()
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
DOCUMENTS = [
    "The cat sat on the big red mountain.",
    "dog",
    "",
    "A man and a woman read a song book in the old house, near the river and the street of the city",
    "zzz [SEP] [MASK] bread",
    "snow rain wind snow",
    "good milk?",
]
QUERIES = ["the cat on a mountain", "[SEP] [MASK] bread", "zzz qqq", "", "Snow snow sleeping", "日本 fish"]


def make_tokenizer():
    """A WordPiece tokenizer of ``VOCABULARY``, lower-casing, with BERT's pre-tokenizer."""
    return tf.BertTokenizerFast(vocab={token: i for i, token in enumerate(VOCABULARY)}, model_max_length=512)


def make_mlm(architecture, vocabulary=None, *, seed=0, scale=0.3, bias=True, tied=True):
    """A random masked language model of 2 layers; about half of the logits are above zero."""
    size = len(VOCABULARY) if vocabulary is None else vocabulary
    common = {"vocab_size": size, "pad_token_id": 0, "initializer_range": scale, "tie_word_embeddings": tied}
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
        decoder.weight[0].normal_(std=scale)  # zero for [PAD], which makes every token of a document tie
        if decoder.bias is not None:
            decoder.bias.copy_(torch.randn_like(decoder.bias) - 1.0)
    return model.eval()


def reference_documents(folder, texts, *, extra_logs=0, pooling="max", max_length=256):
    """Document vectors by the formula, one text at a time: raw transformers, no sentence-transformers."""
    tokenizer = tf.AutoTokenizer.from_pretrained(folder)
    model = tf.AutoModelForMaskedLM.from_pretrained(folder).eval()
    rows = []
    for text in texts:
        features = tokenizer(text, truncation=True, max_length=max_length, return_tensors="pt")
        with torch.inference_mode():
            weights = model(**features).logits[0].double().clamp(min=0)
        for _ in range(1 + extra_logs):
            weights = torch.log(1 + weights)
        row = weights.max(0).values if pooling == "max" else weights.sum(0)
        row[tokenizer.all_special_ids] = 0
        rows.append(row[: len(tokenizer)].numpy())
    return np.stack(rows)


def reference_queries(folder, texts, table):
    """Query vectors by the formula: the weight of each distinct token that is not special."""
    tokenizer = tf.AutoTokenizer.from_pretrained(folder)
    rows = np.zeros((len(texts), len(tokenizer)), dtype=np.float32)
    for row, text in zip(rows, texts, strict=True):
        ids = set(tokenizer.convert_tokens_to_ids(tokenizer.tokenize(text))) - set(tokenizer.all_special_ids)
        row[sorted(ids)] = table[sorted(ids)]
    return rows


def dense(vectors):
    return vectors.to_dense().numpy() if isinstance(vectors, torch.Tensor) else vectors.toarray()


def stock_encode(model, texts, task, **options):
    """What stock's `encode` gives on the same modules: its own loop, forward pass and query lookup."""
    stock = sentence_transformers.SparseEncoder(modules=list(model.children()), device="cpu", **options)
    return (stock.encode_query if task == "query" else stock.encode_document)(texts)


def save_model(model, folder):
    model.save(str(folder), create_model_card=False)
    return str(folder)


def assert_same_model(one, other):
    np.testing.assert_allclose(
        dense(one.encode_document(DOCUMENTS)), dense(other.encode_document(DOCUMENTS)), atol=1e-5
    )
    np.testing.assert_array_equal(dense(one.encode_query(QUERIES)), dense(other.encode_query(QUERIES)))
    scores = [
        model.similarity(model.encode_query(QUERIES), model.encode_document(DOCUMENTS))
        for model in (one, other)
    ]
    torch.testing.assert_close(*scores, rtol=1e-5, atol=1e-4)
    assert scores[0].max() > 1


def write_json(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


def through_stock(model, folder):
    """Save a model and load it in plain sentence-transformers, without remote code."""
    return sentence_transformers.SparseEncoder(
        save_model(model, folder), device="cpu", trust_remote_code=False
    )
