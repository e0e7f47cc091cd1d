"""The fused head against the computation it replaces: full logits, mask, relu, max."""

import pytest
import torch
import transformers as tf
from torch import nn

from st_l0.head import packing as segments
from st_l0.head.mlm_head import activate, max_logits, read_head
from tiny_models import ARCHITECTURES, VOCABULARY, make_mlm

DTYPES = (torch.float32, torch.float64)


def naive_max(hidden, mask, decoder):
    """Each logit of each token, padding at zero, then the largest."""
    logits = decoder(hidden).relu()
    return logits.masked_fill(~mask.bool().unsqueeze(-1), 0).amax(1)


def masks(left):
    """Six documents of 7 positions: lengths 7, 3, 1, 5, 2, 4, padded on one side."""
    lengths = torch.tensor([7, 3, 1, 5, 2, 4]).unsqueeze(1)
    positions = torch.arange(7).flip(0) if left else torch.arange(7)
    return (positions.unsqueeze(0) < lengths).long()


def a_decoder(size=6, vocabulary=150, bias=True, dtype=torch.float32):
    torch.manual_seed(3)
    decoder = nn.Linear(size, vocabulary, bias=bias).to(dtype)
    with torch.no_grad():
        decoder.weight.normal_()
    return decoder


def gradients(function, hidden, mask, decoder, upstream):
    hidden = hidden.clone().requires_grad_()
    parameters = [hidden, *decoder.parameters()]
    values = function(hidden, mask, decoder)
    return values.detach(), torch.autograd.grad((values * upstream).sum(), parameters)


def assert_same(ours, theirs, dtype):
    bound = 1e-5 if dtype is torch.float32 else 1e-11
    for one, other in zip(ours, theirs, strict=True):
        assert one.dtype == other.dtype == dtype
        assert (one - other).abs().max() <= bound * other.abs().max()


@pytest.fixture(params=[1, 1 << 19], ids=["slices", "one slice"])
def slices(request, monkeypatch):
    monkeypatch.setattr(segments, "_SLICE_ELEMENTS", request.param)  # 150 tokens in slices of 64, or at once


@pytest.mark.usefixtures("slices")
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("left", [True, False], ids=["left padding", "right padding"])
def test_values_and_gradients_equal_the_full_logits(left, dtype, bias):
    decoder, mask = a_decoder(bias=bias, dtype=dtype), masks(left)
    generator = torch.Generator().manual_seed(1)
    hidden = torch.randn(6, 7, 6, dtype=dtype, generator=generator)
    upstream = torch.randn(6, 150, dtype=dtype, generator=generator)
    ours, our_grads = gradients(max_logits, hidden, mask, decoder, upstream)
    theirs, their_grads = gradients(naive_max, hidden, mask, decoder, upstream)
    assert (theirs > 0).float().mean() < 0.97, "the test needs inactive entries"
    assert_same([ours, *our_grads], [theirs, *their_grads], dtype)
    assert (our_grads[0][mask == 0] == 0).all()


@pytest.mark.parametrize("rubbish", [float("inf"), float("-inf"), float("nan"), 1e30])
@pytest.mark.parametrize("left", [True, False], ids=["left padding", "right padding"])
def test_what_stands_at_padding_has_no_effect(left, rubbish):
    decoder, mask = a_decoder(), masks(left)
    hidden = torch.randn(6, 7, 6, generator=torch.Generator().manual_seed(1))
    upstream = torch.ones(6, 150)
    clean = gradients(max_logits, hidden, mask, decoder, upstream)
    dirty = gradients(
        max_logits, hidden.masked_fill(mask.unsqueeze(-1) == 0, rubbish), mask, decoder, upstream
    )
    assert torch.equal(clean[0], dirty[0])
    for one, other in zip(clean[1], dirty[1], strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("content", [1.0, float("nan"), float("inf")])
def test_a_document_without_tokens_is_zero_and_passes_no_gradient(content):
    decoder, mask = a_decoder(), masks(left=False)
    mask[2] = 0
    hidden = torch.randn(6, 7, 6, generator=torch.Generator().manual_seed(1))
    hidden[2] = content
    values, (grad_hidden, grad_weight, grad_bias) = gradients(
        max_logits, hidden, mask, decoder, torch.ones(6, 150)
    )
    assert (values[2] == 0).all()
    assert (values[[0, 1, 3, 4, 5]].sum(1) > 0).all()
    assert (grad_hidden[2] == 0).all()
    others = [0, 1, 3, 4, 5]
    _, (_, weight, bias) = gradients(
        max_logits, hidden[others], mask[others], decoder, torch.ones(len(others), 150)
    )
    torch.testing.assert_close(grad_weight, weight)
    torch.testing.assert_close(grad_bias, bias)


def test_no_positions_at_all():
    values = max_logits(torch.zeros(3, 0, 6), torch.zeros(3, 0, dtype=torch.long), a_decoder())
    assert torch.equal(values, torch.zeros(3, 150))
    assert max_logits(torch.zeros(0, 4, 6), torch.zeros(0, 4, dtype=torch.long), a_decoder()).shape == (
        0,
        150,
    )


@pytest.mark.usefixtures("slices")
def test_gradcheck_in_float64():
    decoder, mask = a_decoder(size=4, vocabulary=80, dtype=torch.float64), masks(left=True)[:4]
    hidden = torch.randn(4, 7, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2))

    def run(hidden, weight, bias):
        layer = nn.Linear(4, 80)
        layer.weight, layer.bias = nn.Parameter(weight), nn.Parameter(bias)
        del layer.weight, layer.bias
        layer.weight, layer.bias = weight, bias
        return max_logits(hidden, mask, layer)

    inputs = (hidden, decoder.weight.detach().clone(), decoder.bias.detach().clone())
    assert torch.autograd.gradcheck(run, [one.requires_grad_() for one in inputs], eps=1e-7, atol=1e-6)


def test_at_a_tie_the_first_token_takes_the_gradient():
    decoder = a_decoder()
    hidden = torch.randn(1, 1, 6, generator=torch.Generator().manual_seed(1)).repeat(1, 4, 1)
    for mask, winner in (([1, 1, 1, 1], 0), ([0, 1, 1, 1], 1), ([0, 0, 1, 0], 2)):
        values, (grad, *_) = gradients(max_logits, hidden, torch.tensor([mask]), decoder, torch.ones(1, 150))
        active = values[0] > 0
        expected = torch.zeros(4, 6)
        expected[winner] = decoder.weight.detach()[active].sum(0)
        torch.testing.assert_close(grad[0], expected)


def test_the_same_numbers_by_hand():
    decoder = nn.Linear(2, 3)
    with torch.no_grad():
        decoder.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, -1.0]]))
        decoder.bias.copy_(torch.tensor([0.5, -2.0, 0.0]))
    hidden = torch.tensor([[[1.0, 2.0], [3.0, 1.0], [9.0, 9.0]]], requires_grad=True)
    values = max_logits(hidden, torch.tensor([[1, 1, 0]]), decoder)
    # Token 0: (1.5, 0, -3), token 1: (3.5, -1, -4); the third is padding. 0 is not active.
    assert values.tolist() == [[3.5, 0.0, 0.0]]
    values.backward(torch.tensor([[2.0, 5.0, 7.0]]))
    assert hidden.grad.tolist() == [[[0.0, 0.0], [2.0, 0.0], [0.0, 0.0]]]
    assert decoder.weight.grad.tolist() == [[6.0, 2.0], [0.0, 0.0], [0.0, 0.0]]
    assert decoder.bias.grad.tolist() == [2.0, 0.0, 0.0]


@pytest.mark.parametrize("extra", [0, 1, 2, 3])
def test_activation_is_log1p_and_extra_logs(extra):
    values = torch.tensor([0.0, 0.5, 3.0, 1e4], dtype=torch.float64, requires_grad=True)
    expected = values
    for _ in range(extra + 1):
        expected = torch.log(1 + expected)
    ours = activate(values, extra)
    torch.testing.assert_close(ours, expected)
    assert ours[0] == 0
    grad, other = (torch.autograd.grad(one.sum(), values)[0] for one in (ours, expected))
    torch.testing.assert_close(grad, other)
    assert grad[0] == 1


def a_batch(left, seed=0):
    generator = torch.Generator().manual_seed(seed)
    mask = masks(left)
    ids = torch.randint(5, len(VOCABULARY), mask.shape, generator=generator)
    return ids.masked_fill(mask == 0, 0), mask


@pytest.mark.parametrize("extra", [0, 2])
@pytest.mark.parametrize("left", [True, False], ids=["left padding", "right padding"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_whole_model_gives_the_same_values_and_gradients(architecture, left, extra):
    model = make_mlm(architecture, seed=4).double()
    ids, mask = a_batch(left)
    upstream = torch.randn(
        6, len(VOCABULARY), dtype=torch.float64, generator=torch.Generator().manual_seed(9)
    )

    def run(fused):
        model.zero_grad()
        if fused:
            head = read_head(model)
            hidden = model.base_model(input_ids=ids, attention_mask=mask).last_hidden_state
            values = activate(max_logits(head.transform(hidden), mask, head.decoder), extra)
        else:
            logits = model(input_ids=ids, attention_mask=mask).logits.relu()
            for _ in range(extra + 1):
                logits = torch.log(1 + logits)
            values = logits.masked_fill(mask.unsqueeze(-1) == 0, 0).amax(1)
        (values * upstream).sum().backward()
        return values.detach(), {
            name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None
        }

    values, grads = run(fused=True)
    expected, expected_grads = run(fused=False)
    assert 0 < (expected > 0).float().mean() < 0.9
    assert_same([values], [expected], torch.float64)
    assert grads.keys() == expected_grads.keys()
    embeddings = model.get_input_embeddings().weight
    assert embeddings is model.get_output_embeddings().weight, "the decoder is meant to be tied"
    assert embeddings.grad is not None
    for name, grad in grads.items():
        torch.testing.assert_close(
            grad, expected_grads[name], rtol=1e-8, atol=1e-8, msg=lambda text, name=name: f"{name}: {text}"
        )


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_read_head_finds_the_parts(architecture):
    model = make_mlm(architecture)
    head = read_head(model)
    assert head.decoder is model.get_output_embeddings()
    assert isinstance(head.dense, nn.Linear)
    assert isinstance(head.norm, nn.LayerNorm)
    hidden = torch.randn(2, 3, 32, generator=torch.Generator().manual_seed(1))
    activation = getattr(model, "activation", nn.functional.gelu)
    torch.testing.assert_close(head.transform(hidden), head.norm(activation(head.dense(hidden))))


def small(config, **more):
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    return config(vocab_size=40, pad_token_id=0, max_position_embeddings=40, **shape, **more)


@pytest.mark.parametrize(
    "model",
    [
        pytest.param(lambda: tf.ElectraForMaskedLM(small(tf.ElectraConfig, embedding_size=16)), id="electra"),
        pytest.param(lambda: tf.AlbertForMaskedLM(small(tf.AlbertConfig, embedding_size=8)), id="albert"),
        # Looks like RoBERTa, but adds the bias outside of its decoder.
        pytest.param(lambda: tf.EsmForMaskedLM(small(tf.EsmConfig, mask_token_id=4)), id="esm"),
        # Looks like BERT, but its decoder is only a part of the last layer.
        pytest.param(
            lambda: tf.MobileBertForMaskedLM(
                small(tf.MobileBertConfig, embedding_size=8, intra_bottleneck_size=16)
            ),
            id="mobilebert",
        ),
        pytest.param(lambda: tf.BertModel(small(tf.BertConfig)), id="no head"),
        pytest.param(lambda: nn.Linear(2, 2), id="no transformer"),
    ],
)
def test_unknown_heads_are_left_alone(model):
    assert read_head(model()) is None


def test_bfloat16_autocast_is_close():
    decoder, mask = a_decoder(size=32), masks(left=False)
    generator = torch.Generator().manual_seed(1)
    hidden = torch.randn(6, 7, 32, generator=generator)
    upstream = torch.rand(6, 150, generator=generator)
    exact, exact_grads = gradients(naive_max, hidden, mask, decoder, upstream)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ours, our_grads = gradients(max_logits, hidden, mask, decoder, upstream)
        stock, stock_grads = gradients(naive_max, hidden, mask, decoder, upstream)
    assert ours.dtype is stock.dtype is torch.bfloat16
    large = exact > 2  # below, what cancels in the sum weighs more than what is left
    assert ((ours.float() - exact).abs() / exact)[large].max() < 0.02
    assert (ours.float() - exact).norm() < 0.02 * exact.norm()
    # A gradient may go to another token where two are nearly equal, as in stock: no more often than there.
    for one, other, true in zip(our_grads, stock_grads, exact_grads, strict=True):
        assert one.dtype is torch.float32
        assert (one - true).norm() < 1.2 * (other - true).norm() + 1e-3 * true.norm()


def test_half_precision_parameters_get_gradients_of_their_own_kind():
    decoder, mask = a_decoder(dtype=torch.bfloat16), masks(left=False)
    hidden = torch.randn(6, 7, 6, generator=torch.Generator().manual_seed(1)).bfloat16()
    values, grads = gradients(max_logits, hidden, mask, decoder, torch.ones(6, 150, dtype=torch.bfloat16))
    assert values.dtype is torch.bfloat16
    assert all(grad.dtype is torch.bfloat16 and bool(grad.isfinite().all()) for grad in grads)
