"""Documents one after the other, screened or not, in all the ways that training runs a model."""

import sys
import types

import pytest
import sentence_transformers
import torch
from sentence_transformers.base.modules import Transformer
from sentence_transformers.sparse_encoder import losses as stock_losses
from torch import nn
from torch.utils.checkpoint import checkpoint

from st_l0.head import max_logits as room
from st_l0.head import packing as segments
from st_l0.head.max_logits import flat_max_logits, without_padding
from st_l0.head.packing import PackedTokens
from st_l0.losses import FlopsLoss, InfoNCELoss
from tiny_models import ARCHITECTURES, DOCUMENTS, QUERIES, dense, stock_encode

LENGTHS = [5, 0, 1, 9, 4, 4, 0]
OFFSETS = torch.tensor([0, 5, 5, 6, 15, 19, 23, 23], dtype=torch.int32)


@pytest.fixture(params=[True, False], ids=["screened", "plain"])
def screened(request, monkeypatch):
    """With screening wherever it can be, and without."""

    def decide(hidden, *args):
        return request.param and hidden.dtype is torch.float32

    monkeypatch.setattr(room, "_few_candidates", decide)


@pytest.fixture(params=[(2048, 1 << 19), (8, 1)], ids=["one piece", "pieces"])
def pieces(request, monkeypatch):
    monkeypatch.setattr(segments, "_GROUP_TOKENS", request.param[0])
    monkeypatch.setattr(segments, "_SLICE_ELEMENTS", request.param[1])
    monkeypatch.setattr(room, "_EXACT_ELEMENTS", request.param[1])


def a_decoder(bias=True, vocabulary=300, size=16, dtype=torch.float32):
    torch.manual_seed(3)
    decoder = nn.Linear(size, vocabulary, bias=bias, dtype=dtype)
    with torch.no_grad():
        decoder.weight.normal_()
        if bias:
            decoder.bias.normal_().sub_(2)
    return decoder


def tokens(count=23, size=16, dtype=torch.float32):
    return torch.randn(count, size, dtype=dtype, generator=torch.Generator().manual_seed(1))


def naive(hidden, offsets, decoder):
    """Each document's logits in full."""
    parts = hidden.split(offsets.diff().tolist())
    return torch.stack([nn.functional.pad(decoder(part).relu(), (0, 0, 0, 1)).amax(0) for part in parts])


def gradients(function, hidden, offsets, decoder):
    hidden = hidden.clone().requires_grad_()
    values = function(hidden, offsets, decoder)
    upstream = torch.randn(values.shape, generator=torch.Generator().manual_seed(8)).to(values.dtype)
    return [values.detach(), *torch.autograd.grad((values * upstream).sum(), [hidden, *decoder.parameters()])]


def assert_same(ours, theirs, relative=1e-5, noise=0.0):
    for one, other in zip(ours, theirs, strict=True):
        assert one.dtype == other.dtype
        assert (one - other).norm() <= relative * other.norm() + noise


@pytest.mark.usefixtures("pieces", "screened")
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
def test_documents_of_all_lengths_in_values_and_gradients(bias):
    decoder, hidden = a_decoder(bias), tokens()
    ours, theirs = (gradients(one, hidden, OFFSETS, decoder) for one in (flat_max_logits, naive))
    assert 0.05 < (theirs[0] > 0).float().mean() < 0.9
    assert not ours[0][[1, 6]].any()
    assert torch.equal(ours[0] > 0, theirs[0] > 0)
    assert_same(ours, theirs)


@pytest.mark.usefixtures("pieces")
def test_float64_stays_exact():
    decoder, hidden = a_decoder(dtype=torch.float64), tokens(dtype=torch.float64)
    assert_same(*(gradients(one, hidden, OFFSETS, decoder) for one in (flat_max_logits, naive)), 1e-13)


def test_padding_of_any_shape_is_dropped():
    mask = torch.tensor([[0, 0, 1, 1], [1, 1, 1, 0], [0, 0, 0, 0], [1, 0, 1, 0]])
    hidden = tokens(16).view(4, 4, 16)
    rows, offsets = without_padding(hidden, mask)
    assert offsets.tolist() == [0, 2, 5, 5, 7]
    assert torch.equal(rows, torch.cat([hidden[0, 2:], hidden[1, :3], hidden[3, [0, 2]]]))
    whole, offsets = without_padding(hidden, torch.ones(4, 4))
    assert whole.data_ptr() == hidden.data_ptr(), "nothing to drop, nothing to copy"
    assert offsets.tolist() == [0, 4, 8, 12, 16]


@pytest.mark.usefixtures("screened")
def test_no_tokens_at_all_can_be_trained():
    decoder = a_decoder()
    values = flat_max_logits(tokens(0), torch.zeros(4, dtype=torch.int32), decoder)
    assert values.shape == (3, 300)
    values.sum().backward()
    assert not decoder.weight.grad.any()


@pytest.mark.usefixtures("screened")
def test_a_frozen_part_gets_no_gradient():
    for frozen in (["weight"], ["bias"], ["weight", "bias"], []):
        decoder, hidden = a_decoder(), tokens()
        _, *expected = gradients(naive, hidden, OFFSETS, decoder)
        for name in frozen:
            getattr(decoder, name).requires_grad_(False)
        trained = hidden.requires_grad_(bool(frozen))
        values = flat_max_logits(trained, OFFSETS, decoder)
        upstream = torch.randn(values.shape, generator=torch.Generator().manual_seed(8))
        (values * upstream).sum().backward()
        for one, whole in zip((trained, decoder.weight, decoder.bias), expected, strict=True):
            assert (one.grad is not None) == one.requires_grad
            if one.requires_grad:
                assert_same([one.grad], [whole])


@pytest.mark.usefixtures("screened")
def test_a_second_derivative_is_refused():
    hidden = tokens().requires_grad_()
    values = flat_max_logits(hidden, OFFSETS, a_decoder())
    (grad,) = torch.autograd.grad(values.square().sum(), hidden, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        grad.sum().backward()


@pytest.mark.usefixtures("screened")
def test_gradients_add_up_over_batches_and_under_checkpoints():
    decoder, hidden = a_decoder(), tokens()
    whole = gradients(flat_max_logits, hidden, OFFSETS, decoder)
    upstream = torch.randn(7, 300, generator=torch.Generator().manual_seed(8))
    for cut in (3, 5):
        rows = hidden.clone().requires_grad_()
        decoder.zero_grad()
        for part, grad in ((slice(0, cut), upstream[:cut]), (slice(cut, 7), upstream[cut:])):
            offsets = OFFSETS[part.start : part.stop + 1]
            inside = rows[offsets[0] : offsets[-1]]
            values = checkpoint(flat_max_logits, inside, offsets - offsets[0], decoder, use_reentrant=False)
            values.backward(grad)
        assert_same([rows.grad, decoder.weight.grad, decoder.bias.grad], whole[1:])


@pytest.mark.usefixtures("screened")
def test_no_winners_are_looked_for_without_gradients(monkeypatch):
    seen = []
    inner = room._largest
    monkeypatch.setattr(room, "_largest", lambda *args: seen.append(args[-1]) or inner(*args))
    decoder, hidden = a_decoder(), tokens()
    with torch.inference_mode():
        still = flat_max_logits(hidden, OFFSETS, decoder)
    with torch.no_grad():
        flat_max_logits(hidden, OFFSETS, decoder)
    trained = flat_max_logits(hidden, OFFSETS, decoder)
    assert seen == [False, False, True]
    assert torch.equal(still, trained)


def test_groups_hold_whole_documents(monkeypatch):
    monkeypatch.setattr(segments, "_GROUP_TOKENS", 10)
    cut = PackedTokens([4, 6, 1, 30, 9, 2])
    assert [group.lengths for group in cut.groups] == [[4, 6], [1], [30], [9], [2]]
    assert [group.tokens for group in cut.groups] == [
        slice(0, 10),
        slice(10, 11),
        slice(11, 41),
        slice(41, 50),
        slice(50, 52),
    ]
    assert [(group.documents.start, group.documents.stop) for group in cut.groups][-1] == (5, 6)
    covered = [entry for part in cut.vocabulary_slices(1000) for entry in range(1000)[part]]
    assert covered == list(range(1000))


class Kernels(types.ModuleType):
    """Stands for the GPU kernels, with their interface."""

    def __init__(self):
        super().__init__("st_l0.head.triton_kernels")
        self.calls = []

    @staticmethod
    def supports(hidden):
        return True

    def forward(self, hidden, weight, bias, offsets, *, needs_winners):
        assert hidden.is_contiguous()
        assert offsets.dtype is torch.int32
        self.calls.append("forward" if needs_winners else "forward alone")
        logits = torch.nn.functional.linear(hidden, weight, bias)
        found = [part.max(0) for part in logits.split(offsets.diff().tolist())]
        values = torch.stack([one.values for one in found]).relu()
        winners = torch.stack([one.indices for one in found]).int() + offsets[:-1, None]
        return values, winners if needs_winners else None

    def backward(self, grad, values, winners, hidden, weight, offsets, needs_bias):
        self.calls.append("backward")
        scale = grad.float() * (values > 0)
        picked = torch.zeros(len(weight), len(hidden)).scatter_add_(1, winners.long().T, scale.T)
        of_bias = scale.sum(0) if needs_bias else None
        return picked.T @ weight.float(), picked @ hidden.float(), of_bias


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
def test_kernels_take_over_where_there_are_any(bias, monkeypatch):
    kernels = Kernels()
    monkeypatch.setattr(room, "_kernels", lambda hidden: kernels)
    decoder, hidden = a_decoder(bias), tokens()
    offsets = OFFSETS[[0, 2, 3, 4, 5, 6]]  # those without tokens left out
    assert_same(*(gradients(one, hidden, offsets, decoder) for one in (flat_max_logits, naive)))
    with torch.no_grad():
        flat_max_logits(hidden, offsets, decoder)
    assert kernels.calls == ["forward", "backward", "forward alone"]


def test_kernels_are_for_gpus_with_triton(monkeypatch):
    kernels = Kernels()
    monkeypatch.setitem(sys.modules, "st_l0.head.triton_kernels", kernels)
    monkeypatch.setattr("st_l0.head.triton_kernels", kernels, raising=False)
    on_gpu = types.SimpleNamespace(is_cuda=True)
    monkeypatch.setattr(room, "find_spec", lambda name: object())
    assert room._kernels(on_gpu) is kernels
    assert room._kernels(tokens()) is None
    monkeypatch.setattr(room, "find_spec", lambda name: None)
    assert room._kernels(on_gpu) is None


def flattened(model, texts):
    """Features as flash attention takes them: texts one after the other, as one, and where each begins."""
    transformer = model[0].sub_modules["document"][0]
    rows = [transformer.tokenizer(text)["input_ids"] for text in texts]
    ends = torch.tensor([0, *map(len, rows)]).cumsum(0).int()
    longest = max(map(len, rows))
    offset = transformer._infer_flatten_position_offset()
    return {
        "input_ids": torch.tensor([[token for row in rows for token in row]]),
        "position_ids": torch.cat([torch.arange(len(row)) for row in rows]).unsqueeze(0) + offset,
        "cu_seq_lens_q": ends,
        "cu_seq_lens_k": ends,
        "max_length_q": longest,
        "max_length_k": longest,
        "modality": "text",
    }


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_flattened_texts_take_the_fused_head(architecture, tiny_encoder, mlm_folders, monkeypatch):
    model = tiny_encoder(mlm_folders(architecture), activation="log1p_relu")
    texts = [text for text in DOCUMENTS if text]
    # Without flash attention texts see each other, but on both ways alike.
    stock = sentence_transformers.SparseEncoder(modules=list(model.children()), device="cpu")
    with torch.inference_mode():
        expected = stock(flattened(model, texts), task="document")["sentence_embedding"]
        alone = flattened(model, texts[:1])
        monkeypatch.setattr(Transformer, "forward", None)
        ours = model(flattened(model, texts), task="document")["sentence_embedding"]
        first = model(alone, task="document")["sentence_embedding"]
    assert (expected > 0).float().mean() > 0.05
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(
        first[0], torch.from_numpy(dense(model.encode_document(texts[:1]))[0]), rtol=1e-5, atol=1e-5
    )


def columns(model):
    texts = [["the cat", "snow", "a red ship", "good milk"], DOCUMENTS[:4], DOCUMENTS[3:7]]
    return [model.preprocess(column, task="document" if i else "query") for i, column in enumerate(texts)]


def loss_and_gradients(model, loss):
    model.zero_grad()
    total = sum(loss(columns(model), None).values())
    total.backward()
    return [total.detach().reshape(1)] + [p.grad.clone() for p in model.parameters() if p.grad is not None]


@pytest.mark.parametrize("cached", [True, False], ids=["gradient cache", "at once"])
@pytest.mark.usefixtures("screened")
def test_stock_losses_get_the_same_gradients(cached, tiny_encoder):
    model = tiny_encoder().train()
    stock = sentence_transformers.SparseEncoder(modules=list(model.children()), device="cpu").train()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0

    def build(of):
        kind = stock_losses.CachedSpladeLoss if cached else stock_losses.SpladeLoss
        more = {"mini_batch_size": 2} if cached else {}
        return kind(of, InfoNCELoss(), 0.01, document_regularizer=FlopsLoss(), **more)

    ours, theirs = loss_and_gradients(model, build(model)), loss_and_gradients(stock, build(stock))
    assert_same([torch.cat([one.flatten() for one in ours])], [torch.cat([one.flatten() for one in theirs])])


@pytest.mark.usefixtures("screened")
def test_gradient_checkpointing_of_the_model(tiny_encoder):
    model = tiny_encoder()
    loss = stock_losses.SpladeLoss(model, InfoNCELoss(), 0.01, document_regularizer=FlopsLoss())
    expected = loss_and_gradients(model, loss)
    model[0].sub_modules["document"][0].model.gradient_checkpointing_enable({"use_reentrant": False})
    model.train()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    assert_same(loss_and_gradients(model, loss), expected)


@pytest.mark.usefixtures("screened")
def test_a_compiled_model(tiny_encoder):
    model = tiny_encoder()
    loss = stock_losses.SpladeLoss(model, InfoNCELoss(), 0.01, document_regularizer=FlopsLoss())
    expected = loss_and_gradients(model, loss)
    documents = dense(stock_encode(model, DOCUMENTS, "document"))
    torch._dynamo.reset()
    model.compile(backend="aot_eager")
    # The biases of attention's keys have no gradient but rounding errors.
    assert_same(loss_and_gradients(model, loss), expected, noise=2e-6)
    torch.testing.assert_close(dense(model.encode_document(DOCUMENTS)), documents, rtol=1e-5, atol=1e-5)
    assert dense(model.encode_query(QUERIES)).any()
    torch._dynamo.reset()
