"""The transformer below the head in bfloat16 and in 8-bit integers."""

import numpy as np
import pytest
import torch

import st_l0.encoder.precision
from st_l0 import SparseEncoder
from st_l0.encoder.precision import _Int8Linear, encoder_precision
from st_l0.errors import InputError
from st_l0.head.screening import available
from tiny_models import ARCHITECTURES, DOCUMENTS

INT8 = pytest.mark.skipif(not available(), reason="this processor has no 8-bit products")


def dense(vectors):
    return vectors.to_dense().numpy()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_only_the_transformer_below_the_head_takes_bfloat16(tiny_encoder, mlm_folders, architecture):
    model = tiny_encoder(mlm_folders(architecture))
    transformer, head = model._encoder_modules.transformer.model.base_model, model._encoder_modules.fused_head
    seen = {}
    inside = next(m for m in transformer.modules() if isinstance(m, torch.nn.Linear))
    handles = [
        module.register_forward_hook(
            lambda module, given, result, name=name: seen.update({name: result.dtype})
        )
        for name, module in (("inside", inside), ("head", head.dense))
    ]
    exact = dense(model.encode_document(DOCUMENTS))
    assert seen == {"inside": torch.float32, "head": torch.float32}
    with encoder_precision(model, "bfloat16"):
        rounded = dense(model.encode_document(DOCUMENTS))
    assert seen == {"inside": torch.bfloat16, "head": torch.float32}
    for handle in handles:
        handle.remove()
    assert 1e-5 < np.abs(rounded - exact).max() < 0.2
    assert "forward" not in vars(transformer)
    np.testing.assert_array_equal(dense(model.encode_document(DOCUMENTS)), exact)


def test_it_ends_with_an_error_too(tiny_encoder):
    model = tiny_encoder()
    transformer = model._encoder_modules.transformer.model.base_model
    transformer.forward = mine = transformer.forward
    with pytest.raises(KeyboardInterrupt), encoder_precision(model, "bfloat16"):
        assert transformer.forward is not mine
        raise KeyboardInterrupt
    assert transformer.forward is mine
    with (
        pytest.raises(InputError, match="masked language model"),
        encoder_precision(torch.nn.Sequential(), "bfloat16"),
    ):
        pass


@INT8
def test_an_8_bit_layer_by_hand():
    """Scales 1.27 / 127 and 2.54 / 127: all numbers are whole multiples, so nothing is rounded."""
    linear = torch.nn.Linear(3, 2)
    with torch.no_grad():
        linear.weight.copy_(torch.tensor([[1.27, -0.01, 0.5], [0.02, 2.54, -1.0]]))
        linear.bias.copy_(torch.tensor([1.0, -2.0]))
    given = torch.tensor([[[1.27, 0.0, -0.3], [0.0, 0.0, 0.0]]])
    # 1.27 * 1.27 - 0.3 * 0.5 + 1, 1.27 * 0.02 + 0.3 - 2; the biases
    expected = torch.tensor([[[2.4629, -1.6746], [1.0, -2.0]]])
    torch.testing.assert_close(_Int8Linear(linear)(given), expected, rtol=1e-5, atol=1e-5)


@INT8
def test_an_8_bit_layer_rounds_by_half_a_step_at_most():
    torch.manual_seed(0)
    linear, given = torch.nn.Linear(96, 40, bias=False), torch.randn(5, 7, 96)
    given[0, 0, 3] = 30.0  # of one token alone
    found = _Int8Linear(linear)(given)
    weight = linear.weight.detach().double()
    steps = given.double().abs().amax(-1, keepdim=True) / 254, weight.abs().amax(1) / 254
    most = steps[0] * weight.abs().sum(1) + steps[1] * given.double().abs().sum(-1, keepdim=True)
    most = most + 96 * steps[0] * steps[1]
    away = (found.double() - given.double() @ weight.T).abs()
    assert (away <= most + 1e-5).all() and away.max() > 1e-3


@INT8
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_8_bit_layers_below_the_head_are_close_and_leave_the_model_as_it_was(
    tiny_encoder, mlm_folders, architecture
):
    model = tiny_encoder(mlm_folders(architecture))
    exact = dense(model.encode_document(DOCUMENTS))
    with encoder_precision(model, "int8"):
        rounded = dense(model.encode_document(DOCUMENTS))
    assert 1e-5 < np.abs(rounded - exact).max() < 0.3
    assert not any("forward" in vars(module) for module in model.modules())
    np.testing.assert_array_equal(dense(model.encode_document(DOCUMENTS)), exact)


def test_precisions_that_are_none_or_cannot_be_had_are_refused(tiny_encoder, monkeypatch):
    model = tiny_encoder()
    with encoder_precision(model, "float32"):
        assert not any("forward" in vars(module) for module in model.modules())
    with pytest.raises(InputError, match="one of float32, bfloat16, int8"), encoder_precision(model, "int4"):
        pass
    monkeypatch.setattr(st_l0.encoder.precision, "has_fast_int8", lambda: False)
    with pytest.raises(InputError, match="8-bit products"), encoder_precision(model, "int8"):
        pass


def test_a_checkpoint_in_bfloat16_says_so_once(tiny_encoder, tmp_path, caplog):
    tiny_encoder().save_pretrained(str(tmp_path / "whole"))
    tiny_encoder().bfloat16().save_pretrained(str(tmp_path / "rounded"))
    for name in ("whole", "rounded", "rounded"):
        SparseEncoder.from_pretrained(str(tmp_path / name), device="cpu")
    (record,) = (one for one in caplog.records if "bfloat16" in one.getMessage())
    assert str(tmp_path / "rounded") in record.getMessage()
