"""A halved checkpoint: its file, what it computes, and that stock loads it."""

import json

import numpy as np
import pytest
import sentence_transformers as st
import torch
from safetensors.torch import load_file, save_file

from st_l0 import SparseEncoder
from st_l0.errors import InputError
from st_l0.half import halve
from tiny_models import DOCUMENTS, QUERIES, save_model

WEIGHTS = "document_0_Transformer/model.safetensors"


def test_a_halved_checkpoint_computes_in_float32_on_rounded_weights(tiny_encoder, tmp_path):
    whole = save_model(tiny_encoder(), tmp_path / "whole")
    half = halve(whole, tmp_path / "half")
    assert {one.dtype for one in load_file(half / WEIGHTS).values()} == {torch.float16}
    assert (half / WEIGHTS).stat().st_size < 0.6 * (tmp_path / "whole" / WEIGHTS).stat().st_size
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
    assert json.loads((half / "document_0_Transformer" / "config.json").read_text())["dtype"] == "float32"


def test_what_cannot_be_halved_is_refused_and_nothing_is_left(tiny_encoder, tmp_path):
    with pytest.raises(InputError, match="no transformer"):
        halve(tmp_path, tmp_path / "half")
    whole = save_model(tiny_encoder(), tmp_path / "whole")
    weights = load_file(tmp_path / "whole" / WEIGHTS)
    name = next(iter(weights))
    weights[name][0] = 1e5
    save_file(weights, tmp_path / "whole" / WEIGHTS, metadata={"format": "pt"})
    with pytest.raises(InputError, match="too large for float16"):
        halve(whole, tmp_path / "half")
    assert not (tmp_path / "half").exists()
