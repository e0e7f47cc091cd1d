"""An exported checkpoint: its file, what it computes, and that stock loads it."""

import json

import numpy as np
import pytest
import sentence_transformers as st
import torch
from safetensors.torch import load_file, save_file
from sentence_transformers.base.modules import Transformer
from sentence_transformers.sparse_encoder.modules import SpladePooling

from st_l0 import SparseEncoder
from st_l0.errors import InputError
from st_l0.hub.exporting import export
from tiny_models import DOCUMENTS, QUERIES, WORDS, save_model

WEIGHTS, IN_A_FOLDER = "model.safetensors", "document_0_Transformer/model.safetensors"
LONG = " ".join(WORDS * 3)


def test_a_halved_checkpoint_computes_in_float32_on_rounded_weights(tiny_encoder, tmp_path):
    whole = save_model(tiny_encoder(), tmp_path / "whole")
    half = export(whole, tmp_path / "half")
    assert {one.dtype for one in load_file(half / WEIGHTS).values()} == {torch.float16}
    assert (half / WEIGHTS).stat().st_size < 0.6 * (tmp_path / "whole" / IN_A_FOLDER).stat().st_size
    rounded = SparseEncoder.from_pretrained(whole, device="cpu")
    transformer = rounded[0].sub_modules["document"][0]
    transformer.load_state_dict({name: one.half().float() for name, one in transformer.state_dict().items()})
    expected = rounded.encode_document(DOCUMENTS, convert_to_scipy=True).toarray()
    for loaded in (
        SparseEncoder.from_pretrained(half, device="cpu"),
        st.SparseEncoder(str(half), device="cpu"),
    ):
        assert {one.dtype for one in loaded.parameters()} == {torch.float32}
        np.testing.assert_allclose(
            loaded.encode_document(DOCUMENTS).to_dense().numpy(), expected, rtol=1e-4, atol=1e-5
        )
        assert torch.equal(loaded.encode_query(QUERIES).to_dense(), rounded.encode_query(QUERIES).to_dense())
    assert json.loads((half / "config.json").read_text())["dtype"] == "float32"


def test_siamese_encoders_too(mlm_folder, tmp_path):
    modules = [Transformer(mlm_folder, transformer_task="fill-mask"), SpladePooling()]
    save_model(st.SparseEncoder(modules=modules, device="cpu"), tmp_path / "whole")
    half = export(tmp_path / "whole", tmp_path / "half")
    (file,) = half.glob("**/*.safetensors")
    assert {one.dtype for one in load_file(file).values()} == {torch.float16}
    found, expected = (
        st.SparseEncoder(str(folder), device="cpu").encode(DOCUMENTS).to_dense()
        for folder in (half, tmp_path / "whole")
    )
    torch.testing.assert_close(found, expected, rtol=0, atol=0.05)


def test_a_whole_copy_of_another_length(tiny_encoder, tmp_path):
    short = save_model(tiny_encoder(max_seq_length=16), tmp_path / "short")
    before = SparseEncoder.from_pretrained(short, device="cpu")
    after = SparseEncoder.from_pretrained(
        export(short, tmp_path / "long", half=False, max_seq_length=40), device="cpu"
    )
    for name, weight in before.state_dict().items():
        assert torch.equal(after.state_dict()[name], weight)
    cut, whole = (model.encode_document([LONG], convert_to_scipy=True) for model in (before, after))
    assert whole.nnz > cut.nnz
    before.max_seq_length = 40
    np.testing.assert_allclose(
        whole.toarray(), before.encode_document([LONG], convert_to_scipy=True).toarray(), rtol=1e-5
    )
    assert torch.equal(after.encode_query(LONG).to_dense(), before.encode_query(LONG).to_dense())


def test_what_cannot_be_exported_is_refused_and_nothing_is_left(tiny_encoder, tmp_path):
    whole = save_model(tiny_encoder(), tmp_path / "whole")
    with pytest.raises(InputError, match="takes 8 to"):
        export(whole, tmp_path / "half", max_seq_length=100_000)
    weights = load_file(tmp_path / "whole" / IN_A_FOLDER)
    name = next(name for name in weights if "layer.0" in name)
    weights[name][0] = 1e5
    save_file(weights, tmp_path / "whole" / IN_A_FOLDER, metadata={"format": "pt"})
    with pytest.raises(InputError, match="too large for float16"):
        export(whole, tmp_path / "half")
    assert not (tmp_path / "half").exists()


@pytest.mark.parametrize("output", ["thesis", "model", "."])
def test_nothing_that_existed_is_replaced(tiny_encoder, tmp_path, output):
    model = save_model(tiny_encoder(), tmp_path / "model")
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "thesis.tex").write_text("years of work")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(InputError, match="give a"):
        export(model, tmp_path / output)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_an_earlier_export_is_replaced_but_not_by_itself(tiny_encoder, tmp_path):
    model = save_model(tiny_encoder(), tmp_path / "model")
    half = export(model, tmp_path / "out")
    size = (half / WEIGHTS).stat().st_size
    export(model, tmp_path / "out", half=False)
    assert (half / WEIGHTS).stat().st_size > size
    with pytest.raises(InputError, match="is or holds what the output is made of"):
        export(half, half)
    assert (half / WEIGHTS).exists()


def test_an_export_has_a_card_of_notes_and_measurements(tiny_encoder, tmp_path):
    model = save_model(tiny_encoder(), tmp_path / "model")
    notes, measured = tmp_path / "notes.yaml", tmp_path / "evaluation.json"
    notes.write_text("license: mit\nname: Tiny\nbenchmarks: {toy: {dataset: org/toy, task: toy}}\n")
    measured.write_text(json.dumps({"collections": {"toy": {"model": {"ndcg@10": 0.25}}}, "average": {}}))
    folder = export(model, tmp_path / "out", card=notes, evaluation=[measured])
    card = (folder / "README.md").read_text()
    assert "# Tiny\n" in card
    assert "license: mit" in card
    assert "| toy | 0.250 |" in card
    assert f'SparseEncoder("{folder}")' in card
    assert (folder / ".eval_results" / "org__toy.yaml").exists()
    assert "By hand" in by_hand(model, tmp_path)


def by_hand(model, tmp_path):
    """The card of a copy of a model with a card of its own, about which nothing else is said."""
    (tmp_path / "model" / "README.md").write_text("# By hand\n")
    return (export(model, tmp_path / "copy") / "README.md").read_text()
