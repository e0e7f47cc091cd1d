"""The layout that every tool reads: stock, transformers, the torch-free query side and st_l0 agree."""

import json
import stat
from pathlib import Path

import numpy as np
import pytest
import sentence_transformers
from tokenizers import Tokenizer

from st_l0 import QueryEncoder, SparseEncoder
from st_l0.encoder.idf import read_idf
from st_l0.errors import InputError
from st_l0.hub.exporting import export
from tiny_models import DOCUMENTS, QUERIES, dense, reference_documents, save_model

LONG = "the cat and the dog on a mountain " * 30


@pytest.mark.parametrize("architecture", ["bert", "roberta", "modernbert"])
def test_every_tool_reads_it(tiny_encoder, mlm_folders, tmp_path, architecture, idf_weights):
    model = tiny_encoder(mlm_folders(architecture), max_seq_length=24)
    folder = tmp_path / "root"
    model.save(str(folder), layout="root")
    assert not list(folder.glob("document_0*"))
    texts = [*DOCUMENTS, LONG]
    stock = sentence_transformers.SparseEncoder(str(folder), device="cpu")
    ours = SparseEncoder.from_pretrained(folder, device="cpu")
    # Raw transformers, from the root: AutoTokenizer and AutoModelForMaskedLM.
    raw = reference_documents(folder, texts, max_length=24)
    for vectors in (dense(stock.encode_document(texts)), dense(ours.encode_document(texts)), raw):
        np.testing.assert_allclose(vectors, dense(model.encode_document(texts)), atol=1e-5)
    queries = dense(model.encode_query(QUERIES))
    for encoder in (stock, ours, QueryEncoder.from_pretrained(folder)):
        np.testing.assert_array_equal(dense(encoder.encode_query(QUERIES)), queries)
    assert ours.fingerprint() == model.fingerprint()
    plain = Tokenizer.from_file(str(folder / "tokenizer.json"))
    assert plain.truncation["max_length"] == len(plain.encode(LONG).ids) == model.max_seq_length == 24
    assert plain.padding is None
    assert json.loads((folder / "tokenizer_config.json").read_text())["model_max_length"] == 24
    np.testing.assert_allclose(
        read_idf(folder / "idf.json", ours.tokenizer), ours.query_weights, rtol=0, atol=1e-9
    )
    table = json.loads((folder / "idf.json").read_text())
    assert table.keys() == ours.tokenizer.get_vocab().keys()
    assert min(table.values()) > 0  # OpenSearch takes 1 for a token that is left out, and refuses 0
    modes = {stat.S_IMODE(file.stat().st_mode) for file in folder.rglob("*") if file.is_file()}
    (probe := tmp_path / "probe").touch()
    assert modes == {stat.S_IMODE(probe.stat().st_mode)}


def test_both_ways(tiny_encoder, tmp_path):
    """Saved again, by either library, it becomes folders; an export makes a root of them."""
    first = tiny_encoder()
    first.save(str(tmp_path / "root"), layout="root")
    expected = dense(first.encode_document(DOCUMENTS))
    for number, kind in enumerate((SparseEncoder, sentence_transformers.SparseEncoder)):
        again = save_model(kind(str(tmp_path / "root"), device="cpu"), tmp_path / f"folders{number}")
        assert Path(again, "document_0_Transformer", "model.safetensors").exists()
        root = export(again, tmp_path / f"root{number}", half=False)
        folders = export(root, tmp_path / f"back{number}", half=False, layout="folders")
        assert (root / "config.json").exists()
        assert not (folders / "config.json").exists()
        for folder in (again, root, folders):
            loaded = SparseEncoder.from_pretrained(folder, device="cpu")
            np.testing.assert_allclose(dense(loaded.encode_document(DOCUMENTS)), expected, atol=1e-6)
    with pytest.raises(InputError, match="layout is 'flat'; give root or folders"):
        export(tmp_path / "root", tmp_path / "flat", layout="flat")
    first.save(str(tmp_path / "root"), layout="root")  # over what is there
    assert SparseEncoder.from_pretrained(tmp_path / "root", device="cpu").fingerprint() == first.fingerprint()


def test_a_siamese_model_is_at_the_root_anyway(tiny_encoder, tmp_path):
    tiny_encoder(idf=None).save(str(tmp_path / "root"), layout="root")
    assert (tmp_path / "root" / "config.json").exists()
    assert not (tmp_path / "root" / "idf.json").exists()


def test_an_export_says_nothing_of_this_machine(tiny_encoder, tmp_path):
    folder = export(save_model(tiny_encoder(), tmp_path / "model"), tmp_path / "export")
    for file in folder.rglob("*.json"):
        text = file.read_text()
        assert str(tmp_path) not in text
        for name in ("is_local", "local_files_only", "name_or_path"):
            assert name not in text
