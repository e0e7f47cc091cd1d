"""One length in all files of a checkpoint, and sizes that a checkpoint leaves open."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import sentence_transformers
from tokenizers import Tokenizer

from st_l0 import SparseEncoder
from st_l0.hub.exporting import export
from st_l0.training.mlm import train_mlm
from tiny_models import DOCUMENTS, VOCABULARY, assert_same_model, dense, make_tokenizer, save_model

LONG = "the cat and the dog on a mountain " * 30
DOCUMENT, TABLE = "document_0_Transformer", "query_0_SparseStaticEmbedding"


def edit(file, **changes):
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def load(folder, **options):
    return SparseEncoder.from_pretrained(folder, device="cpu", **options)


def lengths(folder):
    """All lengths that the files of a tokenizer state, and what another program makes of a long text."""
    config = json.loads((folder / "tokenizer_config.json").read_text())
    content = json.loads((folder / "tokenizer.json").read_text())
    assert content["padding"] is None
    tokens = Tokenizer.from_file(str(folder / "tokenizer.json")).encode(LONG)
    stated = {config[name] for name in ("model_max_length", "max_length") if name in config}
    return stated | {content["truncation"]["max_length"], len(tokens.ids)}


@pytest.fixture
def base(mlm_folder, tmp_path):
    """A base model whose files remember calls of other lengths, as many on the Hub do."""
    folder = tmp_path / "base"
    shutil.copytree(mlm_folder, folder)
    tokenizer = make_tokenizer()
    tokenizer.backend_tokenizer.enable_truncation(17)
    tokenizer.backend_tokenizer.enable_padding(length=17)
    tokenizer.save_pretrained(folder)
    edit(folder / "tokenizer_config.json", max_length=23, stride=0)
    return folder


def test_every_file_states_one_length(tiny_encoder, base, tmp_path):
    model = tiny_encoder(str(base), max_seq_length=100)
    model.encode_document([LONG, "cat"])
    folder = Path(save_model(model, tmp_path / "model"))
    assert (lengths(folder / DOCUMENT), lengths(folder / TABLE)) == ({100}, {130})
    stock = sentence_transformers.SparseEncoder(str(folder), device="cpu")
    assert_same_model(stock, model)
    cut = (dense(one.encode_document([LONG])) for one in (stock, model))
    np.testing.assert_allclose(*cut, atol=1e-5)

    again = load(folder)
    again.max_seq_length = 60
    folder = Path(save_model(again, tmp_path / "again"))
    assert (lengths(folder / DOCUMENT), lengths(folder / TABLE)) == ({60}, {130})
    exported = export(folder, tmp_path / "exported", max_seq_length=20)
    assert (lengths(exported), lengths(exported / TABLE)) == ({20}, {130})


def test_a_siamese_model_and_a_base_model_too(tiny_encoder, base, tmp_path):
    siamese = save_model(tiny_encoder(str(base), idf=None, max_seq_length=40), tmp_path / "siamese")
    assert lengths(Path(siamese)) == {40}
    assert lengths(train_mlm(base, DOCUMENTS, tmp_path / "mlm", steps=0)) == {130}


def test_a_length_of_the_older_file_is_the_one(tiny_encoder, tmp_path):
    folder = Path(save_model(tiny_encoder(), tmp_path / "model"))
    edit(folder / DOCUMENT / "sentence_bert_config.json", max_seq_length=50)
    model = load(folder)
    assert model.max_seq_length == 50
    assert lengths(Path(save_model(model, tmp_path / "again")) / DOCUMENT) == {50}


def test_queries_without_a_limit_stay_without(tiny_encoder, tmp_path):
    """As in stock: they run no model that could have too few positions."""
    folder = Path(save_model(tiny_encoder(), tmp_path / "model"))
    edit(folder / TABLE / "tokenizer_config.json", model_max_length=None)
    text = "the " * 2000 + "cat"
    model = load(folder)
    stock = sentence_transformers.SparseEncoder(str(folder), device="cpu")
    assert np.count_nonzero(dense(model.encode_query([text]))) == 2
    np.testing.assert_array_equal(dense(model.encode_query([text])), dense(stock.encode_query([text])))
    folder = Path(save_model(model, tmp_path / "again"))
    assert json.loads((folder / TABLE / "tokenizer.json").read_text())["truncation"] is None
    np.testing.assert_array_equal(dense(load(folder).encode_query([text])), dense(stock.encode_query([text])))


@pytest.mark.parametrize("length", [None, 512])
@pytest.mark.parametrize(("architecture", "positions"), [("bert", 130), ("roberta", 128)])
@pytest.mark.parametrize("file", ["tokenizer_config.json", "sentence_bert_config.json"])
@pytest.mark.parametrize("siamese", [False, True])
def test_no_text_is_longer_than_the_positions(
    tiny_encoder, mlm_folders, tmp_path, architecture, positions, length, file, siamese
):
    """A length that is open, or beyond what the model has, would end in an IndexError."""
    options = {"idf": None} if siamese else {}
    folder = Path(save_model(tiny_encoder(mlm_folders(architecture), **options), tmp_path / "model"))
    transformer = folder if siamese else folder / DOCUMENT
    edit(transformer / "tokenizer_config.json", model_max_length=length)
    if file == "sentence_bert_config.json":
        edit(transformer / file, max_seq_length=length)
    model = load(folder, inference_free=False)
    assert model.max_seq_length == positions
    assert model.encode_document([LONG, "cat"]).shape == (2, len(VOCABULARY))


@pytest.mark.parametrize("siamese", [False, True])
@pytest.mark.parametrize("size", [None, 5])
def test_the_number_of_dims_is_known_before_the_first_text(tiny_encoder, tmp_path, siamese, size):
    options = {"idf": None} if siamese else {}
    folder = Path(save_model(tiny_encoder(**options), tmp_path / "model"))
    edit(next(folder.glob("*_SpladePooling")) / "config.json", embedding_dimension=size)
    model = load(folder, inference_free=False)
    assert model.get_embedding_dimension() == len(VOCABULARY)
    pooling = next(Path(save_model(model, tmp_path / "again")).glob("*_SpladePooling"))
    assert json.loads((pooling / "config.json").read_text())["embedding_dimension"] == len(VOCABULARY)
