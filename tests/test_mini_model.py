"""The model that comes with the repository."""

import json
import re
from pathlib import Path

import pytest
import sentence_transformers
import torch
from huggingface_hub import ModelCard
from safetensors import safe_open
from transformers import AutoModelForMaskedLM, AutoTokenizer
from typer.testing import CliRunner

from st_l0 import SparseEncoder, cli

FOLDER = Path(__file__).parent.parent / "models" / "st-l0-mini"
DOCUMENTS = {
    "rain": "It rains in the mountains, and rivers rise.",
    "index": "An inverted index keeps, for each word, the list of documents that contain it.",
    "heart": "A myocardial infarction happens when blood flow to a part of the heart stops.",
    "car": "The automobile industry sold fewer vehicles this year.",
}


@pytest.fixture(scope="module")
def model():
    return SparseEncoder.from_pretrained(FOLDER, device="cpu")


def test_stock_computes_the_same(model):
    stock = sentence_transformers.SparseEncoder(str(FOLDER), device="cpu")
    texts = [*DOCUMENTS.values(), "", "word " * 400]
    expected = stock.encode_document(texts).to_dense()
    torch.testing.assert_close(model.encode_document(texts).to_dense(), expected, rtol=1e-4, atol=1e-5)
    assert model.max_seq_length == 256
    queries = ["what is the weather like?", "heart attack", "the " * 150 + "weather"]
    found = model.encode_query(queries)
    assert torch.equal(found.to_dense(), stock.encode_query(queries).to_dense())
    assert (found.to_dense()[2] > 0).sum() == 2


def test_it_is_sparse_and_small(model):
    dims = (model.encode_document(list(DOCUMENTS.values())).to_dense() != 0).sum(1)
    assert dims.min() > 10 and dims.max() < 200
    file = FOLDER / "model.safetensors"
    with safe_open(file, "pt") as weights:
        kinds = {weights.get_slice(name).get_dtype() for name in weights.keys()}  # noqa: SIM118
    assert kinds == {"F16"} and file.stat().st_size < 48e6


@pytest.mark.parametrize(
    ("query", "best"), [("weather", "rain"), ("car sales", "car"), ("heart attack", "heart")]
)
def test_a_search_finds_other_words(tmp_path, query, best):
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text("".join(json.dumps({"id": id, "text": text}) + "\n" for id, text in DOCUMENTS.items()))
    result = CliRunner().invoke(cli.app, ["search", str(corpus), query, "--model", str(FOLDER)])
    assert result.exit_code == 0
    assert result.stdout.split()[2] == best


def test_the_card_says_what_a_user_must_know():
    card = (FOLDER / "README.md").read_text()
    for word in ("license: apache-2.0", "CC BY-SA", "NFCorpus", "all-MiniLM-L6-v2", "make mini SCALE=cpu"):
        assert word in card
    assert "@" not in card.replace("nDCG@10", "").replace("@inproceedings", "")
    results = ModelCard(card).data.eval_results
    assert {one.dataset_name for one in results} == {"cranfield", "med", "nfcorpus", "npl", "wikiqa"}


def test_the_examples_of_the_card_run(tmp_path, monkeypatch):
    card = (FOLDER / "README.md").read_text()
    ours, stock, _ = re.findall(r"^```python\n(.*?)^```", card, re.DOTALL | re.MULTILINE)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").symlink_to(FOLDER.parent)
    for code in (ours, stock):
        exec(code, {})


def test_transformers_reads_it(model):
    """The layout that every tool reads: a masked language model at the root."""
    raw = AutoModelForMaskedLM.from_pretrained(FOLDER).eval()
    tokenizer = AutoTokenizer.from_pretrained(FOLDER)
    text = DOCUMENTS["index"]
    with torch.inference_mode():
        logits = raw(**tokenizer(text, return_tensors="pt")).logits[0]
    expected = logits.amax(0).relu().log1p()
    torch.testing.assert_close(model.encode_document(text).to_dense(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("part", ["", "query_0_SparseStaticEmbedding"])
def test_its_files_state_one_length(model, part):
    length = model.tokenizer.model_max_length if part else model.max_seq_length
    config = json.loads((FOLDER / part / "tokenizer_config.json").read_text())
    content = json.loads((FOLDER / part / "tokenizer.json").read_text())
    assert {config["model_max_length"], config["max_length"], content["truncation"]["max_length"]} == {length}
    assert content["padding"] is None
