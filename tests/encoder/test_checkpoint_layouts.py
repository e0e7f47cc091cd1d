"""The layouts in which OpenSearch published its checkpoints, file by file, against raw transformers."""

import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from st_l0 import SparseEncoder
from st_l0.errors import InputError
from tiny_models import (
    DOCUMENTS,
    QUERIES,
    VOCABULARY,
    assert_same_model,
    dense,
    make_tokenizer,
    reference_documents,
    reference_queries,
    through_stock,
    write_json,
)


def token_table(weights, special=1.0):
    table = {token: float(weight) for token, weight in zip(VOCABULARY, weights, strict=True)}
    return table | dict.fromkeys(VOCABULARY[:5], special)


def assert_published_numbers(model, folder, weights, extra_logs):
    """Both sides and the score against raw transformers and the formula."""
    documents = reference_documents(folder, DOCUMENTS, extra_logs=extra_logs, max_length=130)
    queries = reference_queries(folder, QUERIES, weights)
    np.testing.assert_allclose(dense(model.encode_document(DOCUMENTS)), documents, atol=1e-5)
    np.testing.assert_array_equal(dense(model.encode_query(QUERIES)), queries)
    scores = model.similarity(model.encode_query(QUERIES), model.encode_document(DOCUMENTS))
    np.testing.assert_allclose(scores, queries @ documents.T, rtol=1e-4, atol=1e-4)
    assert scores.max() > 1
    assert (dense(model.encode_query("[SEP] [MASK] [CLS] zzz")) == 0).all()


@pytest.mark.parametrize("activation", [None, "relu", "log1p_relu"])
def test_opensearch_doc_v1(mlm_folder, idf_weights, tmp_path, activation):
    folder = tmp_path / "doc-v1"
    shutil.copytree(mlm_folder, folder)
    write_json(folder / "idf.json", token_table(idf_weights))
    options = {} if activation is None else {"activation": activation}
    model = SparseEncoder.from_pretrained(folder, device="cpu", **options)
    assert_published_numbers(model, folder, idf_weights, extra_logs=int(activation == "log1p_relu"))
    assert_same_model(model, through_stock(model, tmp_path / "new"))


OLD_NAMES = {
    "router": "sentence_transformers.models.Router",
    "query": "sentence_transformers.sparse_encoder.models.SparseStaticEmbedding",
    "transformer": "sentence_transformers.sparse_encoder.models.MLMTransformer",
    "pooling": "sentence_transformers.sparse_encoder.models.SpladePooling",
}


def write_published_layout(folder, mlm_folder, weights, *, transformer_id, activation, query):
    """The files of doc-v2 and doc-v3 as they lie on the Hub: a Router in the root, old class names."""
    folder.mkdir()
    write_json(folder / "modules.json", [{"idx": 0, "name": "0", "path": "", "type": OLD_NAMES["router"]}])
    write_json(
        folder / "config_sentence_transformers.json",
        {
            "model_type": "SparseEncoder",
            "__version__": {"sentence_transformers": "5.0.0", "transformers": "4.50.3", "pytorch": "2.6.0"},
            "prompts": {"query": "", "document": ""},
            "default_prompt_name": None,
            "similarity_fn_name": "dot",
        },
    )
    query_id, pooling_id = "query_0_SparseStaticEmbedding", "document_1_SpladePooling"
    write_json(
        folder / "router_config.json",
        {
            "types": {
                query_id: OLD_NAMES["query"],
                transformer_id: OLD_NAMES["transformer"],
                pooling_id: OLD_NAMES["pooling"],
            },
            "structure": {"query": [query_id], "document": [transformer_id, pooling_id]},
            "parameters": {"default_route": "document", "allow_empty_key": True},
        },
    )
    shutil.copytree(mlm_folder, folder / transformer_id, dirs_exist_ok=True)
    write_json(
        folder / transformer_id / "sentence_bert_config.json", {"max_seq_length": 128, "do_lower_case": False}
    )
    write_json(
        folder / pooling_id / "config.json",
        {
            "pooling_strategy": "max",
            "activation_function": activation,
            "word_embedding_dimension": len(VOCABULARY),
        },
    )
    make_tokenizer().save_pretrained(folder / query_id)
    if query == "weights":
        table = np.array(list(token_table(weights).values()), dtype=np.float32)
        save_file({"weight": torch.from_numpy(table)}, folder / query_id / "model.safetensors")
        write_json(folder / query_id / "config.json", {"frozen": False})
    else:
        write_json(folder / "idf.json", token_table(weights))
        write_json(folder / query_id / "config.json", {"frozen": False, "path": query})


def test_opensearch_doc_v2(mlm_folders, idf_weights, tmp_path):
    source, folder = mlm_folders("distilbert"), tmp_path / "doc-v2"
    write_published_layout(
        folder,
        source,
        idf_weights,
        transformer_id="document_0_MLMTransformer",
        activation="relu",
        query="weights",
    )
    model = SparseEncoder.from_pretrained(folder, device="cpu")
    assert_published_numbers(model, source, idf_weights, extra_logs=0)
    assert_same_model(model, through_stock(model, tmp_path / "new"))


@pytest.mark.parametrize("architecture", ["distilbert", "modernbert"])
@pytest.mark.parametrize("query", ["weights", "idf.json"])
def test_opensearch_doc_v3(mlm_folders, idf_weights, tmp_path, architecture, query):
    source, folder = mlm_folders(architecture), tmp_path / "doc-v3"
    write_published_layout(
        folder, source, idf_weights, transformer_id="", activation="log1p_relu", query=query
    )
    model = SparseEncoder.from_pretrained(folder, device="cpu")
    assert_published_numbers(model, source, idf_weights, extra_logs=1)
    assert_same_model(model, through_stock(model, tmp_path / "new"))


def test_a_table_as_json_is_read_strictly(mlm_folders, idf_weights, tmp_path):
    source, folder = mlm_folders("bert"), tmp_path / "strict"
    write_published_layout(
        folder, source, idf_weights, transformer_id="", activation="relu", query="idf.json"
    )
    table = token_table(idf_weights)
    missing = next(token for token in reversed(table) if token.isalpha())
    write_json(folder / "idf.json", {token: value for token, value in table.items() if token != missing})
    model = SparseEncoder.from_pretrained(folder, device="cpu")
    assert model.query_weights[model.tokenizer.convert_tokens_to_ids(missing)] == 1.0
    write_json(folder / "idf.json", {**table, "no-such-token": 9.0})
    with pytest.raises(InputError, match="no-such-token"):
        SparseEncoder.from_pretrained(folder, device="cpu")
    (folder / "idf.json").unlink()
    with pytest.raises(InputError, match=r"idf\.json, which is missing"):
        SparseEncoder.from_pretrained(folder, device="cpu")
