"""Encoding: the same numbers as raw transformers and as the stock path, whatever way they are asked for."""

import copy
import pickle

import numpy as np
import pytest
import scipy.sparse as sp
import sentence_transformers
import torch
from sentence_transformers.base.modules import Transformer
from sentence_transformers.sparse_encoder.modules import SpladePooling

from st_l0 import SparseEncoder
from st_l0.encoder.modules import encoder_modules
from st_l0.errors import InputError
from tiny_models import (
    ARCHITECTURES,
    DOCUMENTS,
    QUERIES,
    VOCABULARY,
    dense,
    make_tokenizer,
    reference_documents,
    reference_queries,
    save_model,
    stock_encode,
)


@pytest.mark.parametrize("pooling", ["max", "sum"])
@pytest.mark.parametrize("activation", ["relu", "log1p_relu", 0, 1, 2, 3])
def test_from_mlm_gives_the_vectors_of_the_formula(
    tiny_encoder, mlm_folder, idf_weights, activation, pooling
):
    logs = {"relu": 0, "log1p_relu": 1}.get(activation, activation)
    if pooling == "sum" and logs > 1:
        # Nothing computes it: said in words rather than computed wrongly.
        with pytest.raises(InputError, match="log1p_log1p"):
            tiny_encoder(activation=activation, pooling=pooling)
        return
    model = tiny_encoder(activation=activation, pooling=pooling)
    assert isinstance(model, sentence_transformers.SparseEncoder)
    assert model.inference_free
    documents = dense(model.encode_document(DOCUMENTS))
    expected = reference_documents(mlm_folder, DOCUMENTS, extra_logs=logs, pooling=pooling)
    np.testing.assert_allclose(documents, expected, atol=1e-5)
    assert 0.05 < (documents > 0).mean() < 0.95
    np.testing.assert_array_equal(
        dense(model.encode_query(QUERIES)), reference_queries(mlm_folder, QUERIES, idf_weights)
    )


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_architecture_takes_the_fused_head(tiny_encoder, mlm_folders, architecture, monkeypatch):
    folder = mlm_folders(architecture)
    model = tiny_encoder(folder, activation="log1p_relu")
    stock = dense(stock_encode(model, DOCUMENTS, "document"))

    def refuse(*args, **kwargs):
        raise AssertionError("the full logits were computed")

    monkeypatch.setattr(Transformer, "forward", refuse)
    fused = dense(model.encode_document(DOCUMENTS))
    np.testing.assert_allclose(fused, stock, atol=1e-5)
    np.testing.assert_allclose(fused, reference_documents(folder, DOCUMENTS, extra_logs=1), atol=1e-5)


def test_an_unknown_head_takes_the_stock_path(tmp_path, tiny_encoder):
    from transformers import ElectraConfig, ElectraForMaskedLM

    torch.manual_seed(0)
    shape = {"hidden_size": 16, "embedding_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = ElectraConfig(vocab_size=len(VOCABULARY), intermediate_size=16, initializer_range=0.5, **shape)
    ElectraForMaskedLM(config).save_pretrained(tmp_path)
    make_tokenizer().save_pretrained(tmp_path)
    model = tiny_encoder(str(tmp_path), activation="log1p_relu")
    expected = reference_documents(tmp_path, DOCUMENTS, extra_logs=1)
    documents = dense(model.encode_document(DOCUMENTS))
    # [CLS] and the like may stay, because no query can match them.
    np.testing.assert_allclose(documents[:, 5:], expected[:, 5:], atol=1e-5)
    assert (documents[:, 5:] > 0).any()
    with pytest.raises(InputError, match="mlm_head"):
        tiny_encoder(str(tmp_path), activation=2)


@pytest.mark.parametrize("task", ["query", "document"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"prompts": {"query": "cat: ", "document": "dog "}},
        {"prompts": {"other": "snow "}, "default_prompt_name": "other"},
        {"max_active_dims": 3},
    ],
    ids=["plain", "prompts", "default prompt", "max_active_dims"],
)
def test_the_options_of_a_model_mean_what_they_mean_in_stock(tiny_encoder, task, options):
    plain = tiny_encoder()
    model = SparseEncoder(modules=list(plain.children()), device="cpu", **options)
    texts = QUERIES if task == "query" else DOCUMENTS
    ours = dense((model.encode_query if task == "query" else model.encode_document)(texts))
    np.testing.assert_allclose(ours, dense(stock_encode(plain, texts, task, **options)), atol=1e-5)
    unchanged = dense((plain.encode_query if task == "query" else plain.encode_document)(texts))
    # encode_query and encode_document have prompts of their own, which come before a default.
    assert np.array_equal(ours, unchanged) == (options == {} or "default_prompt_name" in options)
    if "default_prompt_name" in options:
        np.testing.assert_array_equal(
            dense(model.encode(["cat"])), dense(plain.encode_document(["snow cat"]))
        )


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"prompts": {"query": "cat: "}},
        {"prompts": {"other": "snow "}, "default_prompt_name": "other"},
        {"max_active_dims": 2},
    ],
    ids=["plain", "prompt", "default prompt", "max_active_dims"],
)
def test_a_single_query_is_that_of_a_list(tiny_encoder, tmp_path, options):
    """The short way of a text alone, and every case in which it must not be taken."""
    save_model(tiny_encoder(), tmp_path / "model")
    model = SparseEncoder.from_pretrained(tmp_path / "model", device="cpu", **options)
    stock = sentence_transformers.SparseEncoder(str(tmp_path / "model"), device="cpu", **options)
    for query in [*QUERIES, ""]:
        one, row = model.encode_query(query), model.encode_query([query])[0]
        theirs = stock.encode_query(query)
        assert (one.layout, one.dtype, one.shape) == (theirs.layout, theirs.dtype, theirs.shape)
        assert torch.equal(one.to_dense(), row.to_dense())
        matrix = model.encode_query(query, convert_to_scipy=True)
        assert (type(matrix), matrix.dtype, matrix.shape) == (sp.csr_matrix, np.float32, (1, *one.shape))
        np.testing.assert_array_equal(matrix.toarray()[0], one.to_dense().numpy())
        if query:
            assert torch.equal(one.to_dense(), theirs.to_dense())
    assert model.encode_query("cat", convert_to_sparse_tensor=False).layout is torch.strided


def test_prompts_of_a_call(tiny_encoder):
    model = tiny_encoder()
    model.prompts["mine"] = "moon "
    for encode in (model.encode_query, model.encode_document):
        expected = dense(encode(["moon cat"]))
        np.testing.assert_array_equal(dense(encode(["cat"], prompt="moon ")), expected)
        np.testing.assert_array_equal(dense(encode(["cat"], prompt_name="mine")), expected)
        assert not np.array_equal(dense(encode(["cat"])), expected)
        with pytest.raises(ValueError, match="not found"):
            encode(["cat"], prompt_name="nowhere")


@pytest.mark.parametrize("task", ["query", "document"])
def test_max_active_dims_of_a_call_keeps_the_largest(tiny_encoder, task):
    model = tiny_encoder()
    encode = model.encode_query if task == "query" else model.encode_document
    text = "the cat sleeps on a big red mountain, near the river"
    whole = dense(encode([text]))[0]
    few = dense(encode([text], max_active_dims=4))[0]
    kept = np.argsort(-whole)[:4]
    expected = np.zeros_like(whole)
    expected[kept] = whole[kept]
    np.testing.assert_array_equal(few, expected)
    assert (whole > 0).sum() > 4


def test_queries_run_no_model(tiny_encoder, mlm_folder, idf_weights, monkeypatch):
    model = tiny_encoder()

    def refuse(*args, **kwargs):
        raise AssertionError("a module ran")

    for module in model.modules():
        monkeypatch.setattr(module, "forward", refuse)
    np.testing.assert_array_equal(
        dense(model.encode_query(QUERIES)), reference_queries(mlm_folder, QUERIES, idf_weights)
    )
    with pytest.raises(AssertionError, match="a module ran"):
        model.encode_document("cat")


def test_queries_equal_the_stock_path(tiny_encoder):
    model = tiny_encoder()
    texts = [*QUERIES, "cat " * 400, " ".join(VOCABULARY)]
    np.testing.assert_array_equal(
        dense(model.encode_query(texts)), dense(stock_encode(model, texts, "query"))
    )


def test_max_seq_length_is_of_documents(tiny_encoder, tmp_path):
    model = tiny_encoder(max_seq_length=6)
    text = "cat dog bird fish tree river mountain sun moon star"
    before = dense(model.encode_query([text]))
    assert (before > 0).sum() == 10
    for limit in (3, 8, 12):
        model.max_seq_length = limit
        model.save(str(tmp_path / str(limit)))
        stock = sentence_transformers.SparseEncoder(str(tmp_path / str(limit)), device="cpu")
        for encoder in (model, SparseEncoder.from_pretrained(tmp_path / str(limit), device="cpu")):
            assert encoder.max_seq_length == limit
            np.testing.assert_array_equal(dense(encoder.encode_query([text])), before)
            cut = dense(stock.encode_document([text]))
            np.testing.assert_allclose(dense(encoder.encode_document([text])), cut, atol=1e-5)
        np.testing.assert_array_equal(dense(stock.encode_query([text])), before)
        words = " ".join(text.split()[: limit - 2])  # and [CLS] and [SEP]
        np.testing.assert_allclose(cut, dense(model.encode_document([words])), atol=1e-5)


def test_max_seq_length_of_queries_that_run_the_model(tiny_encoder):
    model = tiny_encoder(idf=None, max_seq_length=16)
    assert model.max_seq_length == 16
    model.max_seq_length = 4
    assert model.max_seq_length == model[0].max_seq_length == 4
    for encode in (model.encode_query, model.encode_document):
        np.testing.assert_allclose(dense(encode(["cat dog bird"])), dense(encode(["cat dog"])), atol=1e-5)


def test_documents_through_other_modules_are_left_to_stock(tiny_encoder):
    class Same(torch.nn.Module):
        def forward(self, features, **kwargs):
            return features

    model = tiny_encoder(max_seq_length=6)
    expected = dense(model.encode_document(["cat dog"]))
    model[0].sub_modules["document"].append(Same())
    assert not model.inference_free
    model.max_seq_length = 4  # [CLS] and [SEP] among them
    np.testing.assert_allclose(dense(model.encode_document(["cat dog bird"])), expected, atol=1e-5)
    with pytest.raises(InputError, match="documents go through no masked language model"):
        encoder_modules(model)


def test_queries_are_cut_where_the_positions_end(tiny_encoder):
    model = tiny_encoder(max_seq_length=6)
    long = "cat " * 129 + "dog fish"
    assert model.encode_query([long], convert_to_scipy=True).nnz == 2


def test_the_kinds_of_output(tiny_encoder):
    model = tiny_encoder()
    for encode in (model.encode_query, model.encode_document):
        texts = ["the cat", "", "red snow"]
        matrix = encode(texts, convert_to_scipy=True)
        assert isinstance(matrix, sp.csr_matrix)
        assert matrix.has_canonical_format
        assert matrix.dtype == np.float32
        values = matrix.toarray()
        sparse = encode(texts)
        assert sparse.layout is torch.sparse_coo
        assert sparse.is_coalesced()
        assert sparse.dtype is torch.float32
        np.testing.assert_array_equal(sparse.to_dense(), values)
        strided = encode(texts, convert_to_sparse_tensor=False)
        assert strided.layout is torch.strided
        np.testing.assert_array_equal(strided, values)
        for options in ({}, {"convert_to_sparse_tensor": False}):
            rows = encode(texts, convert_to_tensor=False, **options)
            assert isinstance(rows, list)
            assert [row.shape for row in rows] == [(len(VOCABULARY),)] * 3
            np.testing.assert_array_equal(np.stack([dense(row) for row in rows]), values)
        assert encode(texts, save_to_cpu=True).device.type == "cpu"
        assert encode(texts, device="cpu").device.type == "cpu"


def test_one_text_gives_one_vector(tiny_encoder):
    model = tiny_encoder()
    for encode in (model.encode_query, model.encode_document):
        whole = dense(encode(["the cat"]))
        one = encode("the cat")
        assert one.shape == (len(VOCABULARY),)
        assert one.layout is torch.sparse_coo
        assert one.is_coalesced()
        assert encode("the cat", prompt="").is_coalesced()
        np.testing.assert_array_equal(dense(one), whole[0])
        assert encode("the cat", convert_to_sparse_tensor=False).shape == (len(VOCABULARY),)
        assert encode("the cat", convert_to_tensor=False).shape == (len(VOCABULARY),)
        assert encode("the cat", convert_to_scipy=True).shape == (1, len(VOCABULARY))
        for texts in (("the cat",), np.array(["the cat"])):
            np.testing.assert_array_equal(dense(encode(texts)), whole)


def test_no_texts(tiny_encoder):
    model = tiny_encoder()
    for encode in (model.encode_query, model.encode_document):
        assert encode([]).shape[0] == 0
        assert encode([], convert_to_scipy=True).shape == (0, len(VOCABULARY))
        assert encode([], convert_to_tensor=False) == []
        assert encode([], convert_to_sparse_tensor=False).numel() == 0


def test_order_is_kept_whatever_the_batches(tiny_encoder):
    model = tiny_encoder()
    generator = np.random.default_rng(0)
    words = [word for word in VOCABULARY if word.isalpha()]
    texts = [" ".join(generator.choice(words, generator.integers(0, 40))) for _ in range(37)]
    alone = np.concatenate([dense(model.encode_document([text])) for text in texts])
    for batch_size in (1, 5, 37, 100):
        together = dense(model.encode_document(texts, batch_size=batch_size))
        np.testing.assert_allclose(together, alone, atol=1e-5)
    for size in (0, -1):
        with pytest.raises(ValueError, match="batch_size"):
            model.encode_document(texts, batch_size=size)


def test_a_very_long_text_is_cut(tiny_encoder):
    model = tiny_encoder(max_seq_length=64)
    long = "the cat and the dog " * 5000
    assert len(long) == 100_000
    np.testing.assert_allclose(
        dense(model.encode_document([long, "dog"])),
        dense(model.encode_document([long[:2000], "dog"])),
        atol=1e-5,
    )
    assert model.encode_query([long], convert_to_scipy=True).nnz == 4


def test_the_position_limit_of_the_base_model_holds(tiny_encoder):
    assert tiny_encoder(max_seq_length=256).max_seq_length == 130
    tiny_encoder().encode_document("cat " * 400)


@pytest.mark.parametrize("activation", ["gelu", 4, -1, True, None, 1.0])
def test_unknown_activations_are_refused(tiny_encoder, activation):
    with pytest.raises(InputError, match="activation must be"):
        tiny_encoder(activation=activation)


def test_unknown_pooling_is_refused(tiny_encoder):
    with pytest.raises(InputError, match="pooling must be 'max' or 'sum', not 'mean'"):
        tiny_encoder(pooling="mean")


@pytest.mark.parametrize("loaded", [True, False], ids=["loaded", "built"])
@pytest.mark.parametrize("first", [True, False], ids=["after a query", "before any query"])
def test_a_token_added_later_does_not_break_queries(tiny_encoder, tmp_path, first, loaded):
    model = tiny_encoder()
    if loaded:
        model = SparseEncoder.from_pretrained(save_model(model, tmp_path / "model"), device="cpu")
    before = dense(tiny_encoder().encode_query(["cat dog"]))
    if first:
        model.encode_query(["cat"])
    model.tokenizer.add_tokens(["newword"])
    queries = dense(model.encode_query(["cat newword dog"]))
    assert queries.shape == (1, len(VOCABULARY))
    np.testing.assert_array_equal(queries[0, before[0] > 0], before[0, before[0] > 0])


def test_a_model_that_is_not_inference_free_is_plain_stock(mlm_folder):
    def modules():
        return [Transformer(mlm_folder, transformer_task="fill-mask"), SpladePooling()]

    model = SparseEncoder(modules=modules(), device="cpu")
    stock = sentence_transformers.SparseEncoder(modules=modules(), device="cpu")
    assert not model.inference_free
    np.testing.assert_array_equal(dense(model.encode(DOCUMENTS)), dense(stock.encode(DOCUMENTS)))
    matrix = model.encode_query(QUERIES, convert_to_scipy=True)
    assert isinstance(matrix, sp.csr_matrix)
    np.testing.assert_array_equal(matrix.toarray(), dense(stock.encode_query(QUERIES)))
    for use in (lambda: model.query_weights, lambda: model.explain("cat", "cat")):
        with pytest.raises(InputError, match="not inference-free"):
            use()


def test_encode_without_a_task_encodes_documents(tiny_encoder):
    model = tiny_encoder()
    np.testing.assert_array_equal(dense(model.encode(DOCUMENTS)), dense(model.encode_document(DOCUMENTS)))


@pytest.mark.parametrize("through", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_copies_encode_the_same(tiny_encoder, through):
    model = tiny_encoder(activation=2)
    queries = dense(model.encode_query(QUERIES))
    other = through(model)
    np.testing.assert_array_equal(dense(other.encode_query(QUERIES)), queries)
    np.testing.assert_array_equal(
        dense(other.encode_document(DOCUMENTS)), dense(model.encode_document(DOCUMENTS))
    )


def test_what_only_stock_knows_goes_through_stock(tiny_encoder):
    model = tiny_encoder()
    shorter = [" ".join(make_tokenizer().tokenize(text)[:3]) for text in DOCUMENTS]
    cut = {"processing_kwargs": {"text": {"max_length": 5}}}  # [CLS] and [SEP] count
    np.testing.assert_allclose(
        dense(model.encode_document(DOCUMENTS[:4], **cut)),
        dense(model.encode_document(shorter[:4])),
        atol=1e-5,
    )
    matrix = model.encode_document(DOCUMENTS[:4], convert_to_scipy=True, convert_to_tensor=False, **cut)
    assert isinstance(matrix, sp.csr_matrix)
    with pytest.raises(ValueError, match="does not use"):
        model.encode_document(DOCUMENTS, nonsense=1)
