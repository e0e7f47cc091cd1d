"""The document encoder as an ONNX graph: what others compute with it is what torch computes."""

import contextlib
import io
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from st_l0 import SparseEncoder
from st_l0.encoder.modules import encoder_modules
from st_l0.errors import InputError
from st_l0.hub import onnx_graph, publish, publishing
from st_l0.hub.exporting import export
from st_l0.hub.onnx_graph import write_onnx
from tiny_models import ARCHITECTURES, DOCUMENTS, dense, save_model

DOCS = Path(__file__).parents[2] / "docs" / "onnx.md"

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


def run(file, tokenizer, texts, outputs=("weights",)):
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    features = tokenizer(list(texts), padding=True, truncation=True, return_tensors="np")
    names = [one.name for one in session.get_inputs()]
    return session.run(list(outputs), {name: features[name].astype(np.int64) for name in names})


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_its_weights_are_torchs(tiny_encoder, mlm_folders, tmp_path, architecture):
    model = tiny_encoder(mlm_folders(architecture), activation=1)
    facts = write_onnx(model, tmp_path / "onnx" / "model.onnx")
    assert facts.difference < 5e-5 and facts.texts > 20 and facts.opset == 20
    tokenizer = encoder_modules(model).transformer.tokenizer
    for texts in (DOCUMENTS, DOCUMENTS[:1], DOCUMENTS[2:3]):  # of any number and length
        (found,) = run(tmp_path / "onnx" / "model.onnx", tokenizer, texts)
        np.testing.assert_allclose(found, dense(model.encode_document(texts)), atol=5e-5)


@pytest.mark.parametrize(
    "options", [{"activation": 0}, {"activation": 3}, {"pooling": "sum"}, {"idf": None}], ids=str
)
def test_activations_poolings_and_siamese_encoders(tiny_encoder, tmp_path, options):
    model = tiny_encoder(**options)
    model.max_active_dims = 3  # which is no part of the graph
    write_onnx(model, tmp_path / "model.onnx")
    (found,) = run(tmp_path / "model.onnx", encoder_modules(model).transformer.tokenizer, DOCUMENTS)
    model.max_active_dims = None
    np.testing.assert_allclose(found, dense(model.encode_document(DOCUMENTS)), atol=5e-5)


def test_the_first_output_is_what_others_pool(tiny_encoder, tmp_path):
    """As FastEmbed does: relu, two logs, mask, maximum."""
    model = tiny_encoder(activation=1)
    write_onnx(model, tmp_path / "model.onnx")
    graph = onnx.load(tmp_path / "model.onnx")
    assert [one.name for one in graph.graph.output] == ["logits", "weights"]
    assert [one.version for one in graph.opset_import if one.domain == ""] == [20]
    tokenizer = encoder_modules(model).transformer.tokenizer
    logits, weights = run(tmp_path / "model.onnx", tokenizer, DOCUMENTS, ["logits", "weights"])
    mask = tokenizer(DOCUMENTS, padding=True, truncation=True, return_tensors="np")["attention_mask"]
    pooled = (np.log1p(np.log1p(np.maximum(logits, 0))) * mask[..., None]).max(1)
    np.testing.assert_allclose(pooled, weights, atol=1e-6)


def test_the_file_is_small_and_says_nothing_of_this_machine(tiny_encoder, tmp_path):
    model = tiny_encoder()
    write_onnx(model, tmp_path / "model.onnx")
    content = (tmp_path / "model.onnx").read_bytes()
    assert not re.search(rb"\.py\b|site-packages|/home/|/tmp/", content)
    parameters = sum(4 * one.numel() for one in encoder_modules(model).transformer.parameters())  # tied once
    assert len(content) < 1.05 * parameters + 100_000
    assert not list(tmp_path.glob("*.data"))


@pytest.fixture(scope="module")
def exported(mlm_folder, idf_weights, tmp_path_factory):
    """Folder of an export, of documents of 12 tokens with a prompt, and what was printed meanwhile."""
    folder, printed = tmp_path_factory.mktemp("exported"), io.StringIO()
    model = SparseEncoder.from_mlm(mlm_folder, idf=idf_weights, max_seq_length=12, device="cpu")
    model.prompts["document"] = "the "
    with contextlib.redirect_stdout(printed):
        export(save_model(model, folder / "model"), folder / "out", onnx=True)
    return folder / "out", printed.getvalue()


def test_an_export_has_it_beside_its_own_weights(exported):
    folder, printed = exported
    line = r"onnx/model\.onnx: opset 20, largest difference to torch \d\.\de-\d\d on \d+ texts"
    assert re.search(line, printed)
    copy = SparseEncoder.from_pretrained(folder, device="cpu")  # of float16 weights, as the graph
    tokenizer = encoder_modules(copy).transformer.tokenizer
    (found,) = run(folder / "onnx" / "model.onnx", tokenizer, [f"the {text}" for text in DOCUMENTS])
    np.testing.assert_allclose(found, dense(copy.encode_document(DOCUMENTS)), atol=5e-5)


def examples(text):
    return re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def test_the_examples_run(exported, monkeypatch):
    folder, _ = exported
    section = (folder / "README.md").read_text().partition("## ONNX\n")[2]
    assert "opset 20" in section and "Put `the ` before each text." in section
    (of_the_card,), (of_the_docs,) = examples(section), examples(DOCS.read_text(encoding="utf-8"))
    monkeypatch.chdir(folder.parent)
    model = SparseEncoder.from_pretrained(folder, device="cpu")
    for example in (of_the_card, of_the_docs.replace('"my-model"', f'"{folder.name}"')):
        assert len([line for line in example.splitlines() if line]) <= 20
        names = {}
        exec(example, names)
        found = names["encode_document"]([f"the {text}" for text in DOCUMENTS])
        for weights, vector in zip(found, model.encode_document(DOCUMENTS), strict=True):
            expected = {token: pytest.approx(weight, abs=5e-5) for token, weight in model.decode(vector)}
            assert weights == expected


def test_a_copy_without_one_does_not_speak_of_it(exported, tmp_path):
    copy = export(exported[0], tmp_path / "copy")
    assert not (copy / "onnx").exists()
    assert "ONNX" not in (copy / "README.md").read_text()


def test_a_published_export_has_one_too(exported, monkeypatch):
    monkeypatch.setattr(publishing, "check_upload", lambda *args: 0.0)
    found = publish(exported[0], "org/name", dry_run=True)
    assert "onnx/model.onnx" in found.files
    card = (found.folder / "README.md").read_text()
    assert card.count("## ONNX\n") == 1 and 'snapshot_download("org/name")' in card


def test_what_is_not_as_torch_has_it_is_not_kept(tiny_encoder, tmp_path, monkeypatch):
    source = save_model(tiny_encoder(), tmp_path / "model")
    monkeypatch.setattr(onnx_graph, "activate", lambda values, logs: values.log1p() * 1.001)
    with pytest.raises(InputError, match=r"BertForMaskedLM: its ONNX graph gives weights that are .* off"):
        export(source, tmp_path / "out", onnx=True)
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_written_is_refused(tiny_encoder, tmp_path, monkeypatch):
    source = save_model(tiny_encoder(), tmp_path / "model")
    with pytest.raises(InputError, match="give layout root"):
        export(source, tmp_path / "out", onnx=True, layout="folders")
    monkeypatch.setattr(onnx_graph, "_LARGEST", 10_000)
    with pytest.raises(InputError, match=r"an ONNX file holds 10,000: leave onnx out"):
        export(source, tmp_path / "out", onnx=True)
    monkeypatch.setattr(torch.onnx, "export", lambda *args, **options: 1 / 0)
    monkeypatch.setattr(onnx_graph, "_LARGEST", 1e9)
    with pytest.raises(InputError, match=r"torch cannot export it \(ZeroDivisionError: division by zero\)"):
        export(source, tmp_path / "out", onnx=True)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(InputError, match=r"ONNX needs onnxruntime: pip install 'st-l0\[onnx\]'"):
        export(source, tmp_path / "out", onnx=True)
    assert not (tmp_path / "out").exists()
