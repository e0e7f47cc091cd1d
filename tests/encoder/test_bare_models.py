"""Siamese SPLADE as it was published first: a masked language model of transformers and no more."""

import json
import shutil

import numpy as np
import pytest
import sentence_transformers
import torch
from typer.testing import CliRunner

from st_l0 import QueryEncoder, SparseEncoder, cli
from st_l0.errors import InputError
from st_l0.teachers import load_teacher
from tiny_models import DOCUMENTS, QUERIES, dense, reference_documents, write_json


def siamese(folder, **options):
    return SparseEncoder.from_pretrained(folder, device="cpu", inference_free=False, **options)


@pytest.mark.parametrize("architecture", ["bert", "distilbert", "roberta"])
def test_it_computes_what_stock_does(mlm_folders, architecture):
    folder = mlm_folders(architecture)
    model, stock = siamese(folder), sentence_transformers.SparseEncoder(folder, device="cpu")
    assert not model.inference_free
    np.testing.assert_allclose(
        dense(model.encode_document(DOCUMENTS)), dense(stock.encode_document(DOCUMENTS)), atol=1e-5
    )
    np.testing.assert_allclose(
        dense(model.encode_query(QUERIES)), dense(stock.encode_query(QUERIES)), atol=1e-5
    )
    assert model.max_seq_length == (128 if architecture == "roberta" else 130)


def test_the_activation_can_be_said(mlm_folder):
    found = dense(siamese(mlm_folder, activation="log1p_relu").encode_document(DOCUMENTS))
    expected = reference_documents(mlm_folder, DOCUMENTS, extra_logs=1)
    np.testing.assert_allclose(found[:, 5:], expected[:, 5:], atol=1e-5)  # special tokens stay, as in stock


def test_where_it_cannot_be_the_error_says_what_to_do(mlm_folder):
    uses = (SparseEncoder.from_pretrained, QueryEncoder.from_pretrained)
    for use in uses:
        with pytest.raises(InputError) as caught:
            use(mlm_folder)
        for word in (mlm_folder, "from_mlm", "model.idf", "inference_free=False"):
            assert word in str(caught.value)


def test_what_is_no_masked_language_model_is_refused(mlm_folder, tmp_path):
    """Stock would put a random autoencoder on top."""
    shutil.copytree(mlm_folder, tmp_path / "bert")
    config = tmp_path / "bert" / "config.json"
    write_json(config, json.loads(config.read_text()) | {"architectures": ["BertModel"]})
    with pytest.raises(InputError, match="no SparseEncoder, no idf"):
        siamese(tmp_path / "bert")


def test_it_is_a_baseline_and_a_teacher(mlm_folder, tmp_path):
    teacher = load_teacher(f"sparse:{mlm_folder}", device="cpu")
    model = siamese(mlm_folder)
    expected = model.similarity(model.encode_query(["cat"]), model.encode_document(["the cat"]))
    torch.testing.assert_close(teacher.score_pairs(["cat"], ["the cat"]), expected[0], rtol=1e-4, atol=1e-4)

    write_json(tmp_path / "set" / "queries.jsonl", {"_id": "q", "text": "the cat"})
    (tmp_path / "set" / "corpus.jsonl").write_text(
        '{"_id": "a", "text": "the cat"}\n{"_id": "b", "text": "snow"}\n'
    )
    (tmp_path / "set" / "qrels").mkdir()
    (tmp_path / "set" / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq\ta\t1\n")
    report = tmp_path / "report.json"
    options = ["--data", tmp_path / "set", "--no-bm25", "--output", report]
    result = CliRunner().invoke(cli.app, ["evaluate", mlm_folder, *map(str, options)])
    assert result.exit_code == 0, result.output
    assert "nDCG@10" in result.stdout and report.exists()
