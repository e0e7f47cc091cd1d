"""The GPU kernels of the head: in Triton's interpreter, on a GPU if there is one, and through the compiler.

The interpreter has to be chosen before triton is imported, so a process of its own runs the ``check_*``
functions of this file. Their numbers lie on a coarse grid: every sum is exact in float32, in any order, so
values must be equal to the bit and ties are real.
"""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch

pytest.importorskip("triton")

DEVICE = os.environ.get("ST_L0_TEST_KERNELS_ON", "cpu")
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
LENGTHS = (
    3,
    0,
    17,
    1,
    5,
)  # the interpreter's tiles hold 16 tokens, and 16 of 32 entries that are listed at once


@pytest.mark.parametrize(
    "device",
    ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"))],
)
def test_kernels(device):
    arguments = [sys.executable, "-m", "pytest", "-x", "-p", "no:cacheprovider", __file__]
    environment = {**os.environ, "ST_L0_TEST_KERNELS_ON": device, "OMP_NUM_THREADS": "1"}
    environment["TRITON_INTERPRET"] = "1" if device == "cpu" else "0"
    child = subprocess.run(
        [*arguments, "-o", "python_functions=check_*"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert child.returncode == 0, child.stdout[-5000:] + child.stderr[-2000:]
    assert " passed" in child.stdout


@pytest.fixture(autouse=True)
def dot_of_bfloat16(request, monkeypatch):
    """The interpreter keeps bfloat16 as bits in integers, and its dot multiplies those."""
    if not request.node.name.startswith("check_") or DEVICE != "cpu":
        return
    import triton.language as tl
    from triton.runtime import interpreter

    def widened(handle):
        if handle.dtype.scalar != tl.bfloat16:
            return handle
        bits = handle.data.astype(np.uint32) << 16
        return interpreter.TensorHandle(bits.view(np.float32), tl.float32)

    stock = interpreter.InterpreterBuilder.create_dot
    monkeypatch.setattr(
        interpreter.InterpreterBuilder,
        "create_dot",
        lambda self, a, b, *rest: stock(self, widened(a), widened(b), *rest),
    )


def grid(*shape, seed, scale=8):
    """Numbers of at most 6 bits, multiples of 1/scale."""
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(shape, generator=generator) * scale).round().clamp(-32, 32) / scale


def a_head(dtype, lengths=LENGTHS, size=20, vocabulary=24, bias=-6.0):
    """Hidden states, weight, bias and offsets."""
    hidden, weight = grid(sum(lengths), size, seed=0), grid(vocabulary, size, seed=1)
    level = None if bias is None else (grid(vocabulary, seed=2) + bias).to(DEVICE, dtype)
    offsets = torch.tensor([0, *np.cumsum(lengths)], dtype=torch.int32, device=DEVICE)
    return hidden.to(DEVICE, dtype), weight.to(DEVICE, dtype), level, offsets


def dense(hidden, weight, bias, offsets):
    """Values and winners out of all logits, in float64."""
    logits = hidden.double() @ weight.double().T
    if bias is not None:
        logits = logits + bias.double()
    values = logits.new_zeros(len(offsets) - 1, len(weight))
    winners = np.zeros(values.shape, dtype=np.int64)
    for document, (start, end) in enumerate(zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True)):
        if start < end:
            first = logits[start:end].detach().cpu().numpy().argmax(0)  # numpy gives the first of equals
            winners[document] = start + first
            values[document] = logits[start + torch.from_numpy(first), torch.arange(len(weight))].relu()
    return values, torch.from_numpy(winners)


def assert_equal(ours, theirs):
    # The interpreter cuts the last bits of a bfloat16 off, a GPU rounds.
    cut = DEVICE == "cpu" and theirs.dtype == torch.bfloat16
    torch.testing.assert_close(ours, theirs, rtol=2**-7 if cut else 0, atol=0)


def assert_forward(hidden, weight, bias, offsets):
    from st_l0.head.triton_kernels import forward

    values, winners = forward(hidden, weight, bias, offsets)
    theirs, their_winners = dense(hidden, weight, bias, offsets)
    assert winners.dtype == torch.int32
    assert_equal(values, theirs.to(hidden.dtype))
    active = theirs.cpu() > 0
    assert torch.equal(winners.cpu()[active].long(), their_winners[active])
    alone, none = forward(hidden, weight, bias, offsets, needs_winners=False)
    assert none is None and torch.equal(alone, values)
    return values, winners


def gradients(hidden, weight, bias, offsets, grad):
    """Of the dense computation, by autograd in float64."""
    leaves = [each.double().requires_grad_() for each in (hidden, weight, bias) if each is not None]
    values, _ = dense(*leaves, *([None] if bias is None else []), offsets)
    connected = sum(0 * leaf.sum() for leaf in leaves)  # without documents, nothing else is
    return torch.autograd.grad((values * grad.double()).sum() + connected, leaves)


def assert_backward(hidden, weight, bias, offsets):
    from st_l0.head.triton_kernels import backward

    values, winners = assert_forward(hidden, weight, bias, offsets)
    grad = grid(*reversed(values.shape), seed=3).to(DEVICE, hidden.dtype).T  # not contiguous
    ours = backward(grad, values, winners, hidden, weight, offsets, bias is not None)
    theirs = gradients(hidden, weight, bias, offsets, grad)
    assert (ours[2] is None) == (bias is None)
    for one, other, dtype in zip(ours, theirs, (hidden.dtype, weight.dtype, torch.float32), strict=False):
        assert_equal(one, other.to(dtype))
    return ours


@pytest.mark.parametrize("bias", [-6.0, None], ids=["bias", "no bias"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def check_values_winners_and_gradients(dtype, bias):
    hidden, weight, bias, offsets = a_head(dtype, bias=bias)
    assert_backward(hidden, weight, bias, offsets)
    share = (dense(hidden, weight, bias, offsets)[0] > 0).double().mean()
    assert 0.1 < share < 0.8, "the test needs active and inactive entries"


@pytest.mark.parametrize(("size", "vocabulary"), [(16, 32), (33, 15), (1, 1), (40, 33)])
def check_sizes_that_are_no_multiple_of_a_block(size, vocabulary):
    assert_backward(*a_head(torch.float32, (5, 18), size, vocabulary, bias=0.0))


def check_all_entries_active():
    values = assert_forward(*a_head(torch.float32, (3, 20, 1), 20, 70, bias=100.0))[0]
    assert (values > 0).all()
    assert_backward(*a_head(torch.float32, (3, 20, 1), 20, 70, bias=100.0))


def check_more_documents_than_share_a_group():
    assert_backward(*a_head(torch.float32, [1, 2] * 17, 8, 10, bias=-1.0))


def check_the_first_of_equal_tokens_wins_within_a_block_and_across_blocks():
    hidden, weight, bias, offsets = a_head(torch.float32, (24, 24), bias=None)
    hidden[4:24] = hidden[3]
    hidden[24:48] = hidden[24]
    _, winners = assert_forward(hidden, weight, bias, offsets)
    assert winners[0].max() <= 3
    assert (winners[1] == 24).all()


def check_equal_logits_give_the_gradient_to_one_token():
    hidden, weight, bias, offsets = a_head(torch.float32, (2,), bias=None)
    hidden[1] = hidden[0]
    grad_hidden = assert_backward(hidden, weight, bias, offsets)[0]
    assert (grad_hidden[0] != 0).any() and (grad_hidden[1] == 0).all()


def check_nothing_active():
    for grad in assert_backward(*a_head(torch.float32, bias=-1000.0)):
        assert (grad == 0).all()


@pytest.mark.parametrize("lengths", [(), (0, 0), (0, 3), (3, 0)], ids=str)
def check_documents_without_tokens(lengths):
    assert_backward(*a_head(torch.float32, lengths, bias=0.0))


def check_full_precision_in_float32():
    from st_l0.head.triton_kernels import forward

    generator = torch.Generator().manual_seed(5)
    hidden, weight = (torch.randn(rows, 40, generator=generator).to(DEVICE) for rows in (23, 16))
    offsets = torch.tensor([0, 20, 23], dtype=torch.int32, device=DEVICE)
    theirs, _ = dense(hidden, weight, None, offsets)
    torch.testing.assert_close(
        forward(hidden, weight, None, offsets)[0], theirs.float(), rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("place", [3, 19], ids=["first block", "second block"])
def check_nan_shows_in_values_and_gradients_of_its_document_alone(place):
    from st_l0.head.triton_kernels import backward, forward

    hidden, weight, bias, offsets = a_head(torch.float32, (3, 20, 5), bias=-3.0)
    hidden[place] = float("nan")
    values, winners = forward(hidden, weight, bias, offsets)
    assert values[1].isnan().all()
    assert not values[[0, 2]].isnan().any()
    assert ((winners[1] >= 3) & (winners[1] < 23)).all()
    grad_hidden, _, grad_bias = backward(values, values, winners, hidden, weight, offsets, True)
    assert grad_hidden[3:23].isnan().any()
    assert not grad_hidden[:3].isnan().any() and not grad_hidden[23:].isnan().any()
    assert grad_bias.isnan().all()
    alone, _ = forward(hidden, weight, bias, offsets, needs_winners=False)
    assert torch.equal(alone.isnan(), values.isnan())


def check_infinite_logits():
    hidden, weight, bias, offsets = a_head(torch.float32, (20,), bias=None)
    weight[:, 0] = torch.where(weight[:, 0] < 0, -1.0, 1.0)
    hidden[18, 0] = float("inf")
    values, winners = assert_forward(hidden, weight, bias, offsets)
    upper = weight[:, 0] > 0
    assert (values[0, upper] == float("inf")).all() and (winners[0, upper] == 18).all()
    assert values[0, ~upper].isfinite().all()


def check_other_dtypes_are_refused():
    from st_l0.head.triton_kernels import forward

    hidden, weight, _, offsets = a_head(torch.float32)
    for one, other in ((torch.float64, torch.float64), (torch.float16, torch.float32)):
        with pytest.raises(TypeError, match=f"{one} with weights of {other}"):
            forward(hidden.to(one), weight.to(other), None, offsets)


def check_the_same_bits_twice():
    from st_l0.head.triton_kernels import backward, forward

    generator = torch.Generator().manual_seed(6)
    hidden, weight = (torch.randn(rows, 40, generator=generator).to(DEVICE) for rows in (23, 16))
    offsets = torch.tensor([0, 20, 23], dtype=torch.int32, device=DEVICE)
    values, winners = forward(hidden, weight, None, offsets)
    once, twice = (backward(values, values, winners, hidden, weight, offsets, False)[:2] for _ in range(2))
    assert torch.equal(once[0], twice[0]) and torch.equal(once[1], twice[1])


POINTERS = (
    "hidden",
    "weight",
    "bias",
    "offsets",
    "values",
    "winners",
    "grad",
    "out",
)


def compiled(kernel, architecture, constants, types, warps, stages):
    """A kernel as a GPU of this architecture would get it; no GPU takes part."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    names = kernel.arg_names
    signature = {name: types.get(name, "constexpr") for name in names}
    aligned = {(i,): [["tt.divisibility", 16]] for i, name in enumerate(names) if name in POINTERS}
    source = ASTSource(kernel, signature, constants, aligned)
    options = {"num_warps": warps, "num_stages": stages}
    return triton.compile(source, target=GPUTarget("cuda", architecture, 32), options=options)


@pytest.fixture
def compiler(tmp_path, monkeypatch):
    """Triton's compiler with a cache of its own, where it has what NVIDIA GPUs need."""
    knobs = pytest.importorskip("triton.knobs")
    try:
        knobs.nvidia.ptxas.path  # noqa: B018
    except RuntimeError:
        pytest.skip("no assembler for NVIDIA GPUs")
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))


SHARED_MEMORY = {75: 64 << 10, 80: 163 << 10, 90: 227 << 10}


@pytest.mark.usefixtures("compiler")
@pytest.mark.parametrize("winners", [True, False])
@pytest.mark.parametrize(
    ("architecture", "dtype", "size", "tile"),
    [
        (90, "bf16", 384, 0),
        (90, "fp16", 312, 1),
        (80, "bf16", 768, 0),
        (80, "fp32", 384, 4),
        (75, "fp16", 384, 6),
        (75, "fp32", 128, 6),
    ],
)
def test_the_forward_kernel_compiles(architecture, dtype, size, tile, winners):
    from st_l0.head import triton_kernels as head_kernels

    v, t, k, warps, stages = head_kernels._TILES[tile]
    types = dict.fromkeys(("hidden", "weight", "bias", "values"), f"*{dtype}")
    types |= {"offsets": "*i32", "winners": "*i32" if winners else "constexpr"}
    types |= {"documents": "i32", "vocabulary": "i32", "typical_length": "i32"}
    constants = {"HIDDEN": size, "HAS_BIAS": True, "PRECISION": "ieee", "GROUP": 32, "HAS_WINNERS": winners}
    constants |= {"BLOCK_V": v, "BLOCK_T": t, "K_BYTES": k}
    kernel = compiled(head_kernels._largest_logits.fn, architecture, constants, types, warps, stages)
    assert kernel.metadata.shared <= SHARED_MEMORY[architecture]
    tensor_cores = "wgmma.mma_async" in kernel.asm["ptx"] or "mma.sync" in kernel.asm["ptx"]
    assert tensor_cores == (architecture >= 80 and dtype != "fp32")
    assert "tf32" not in kernel.asm["ptx"]
    # The interpreter keeps a NaN in any maximum, a GPU only if told to (before Ampere in other words).
    assert ("max.NaN.f32" in kernel.asm["ptx"]) == (architecture >= 80)


@pytest.mark.usefixtures("compiler")
@pytest.mark.parametrize(
    ("architecture", "dtype", "size", "bias"),
    [(90, "bf16", 384, True), (80, "fp16", 312, False), (80, "fp32", 768, True)],
)
def test_the_backward_kernels_compile(architecture, dtype, size, bias):
    from st_l0.head import triton_backward

    types = dict.fromkeys(("grad", "values", "hidden", "weight", "out"), f"*{dtype}")
    types["of_bias"] = "*fp32" if bias else "constexpr"
    types |= dict.fromkeys(("winners", "offsets", "listed", "counts", "owners"), "*i32")
    types |= dict.fromkeys(("documents", "vocabulary", "tokens"), "i32")
    constants = {"HIDDEN": size, "HAS_BIAS": bias, "SEGMENT": 4096}
    constants |= {"BLOCK_T": 16, "BLOCK_E": 32, "BLOCK_D": 16, "BLOCK_H": 128}
    for function, warps in (
        (triton_backward._list_active, 8),
        (triton_backward._sum_over_entries, 4),
        (triton_backward._sum_over_documents, 2),
    ):
        names = function.arg_names
        chosen = {name: value for name, value in constants.items() if name in names}
        chosen |= {name: None for name in names if types.get(name) == "constexpr"}
        kernel = compiled(function, architecture, chosen, types, warps, 3)
        assert kernel.metadata.shared <= SHARED_MEMORY[architecture]
        if function is triton_backward._sum_over_entries:
            assert ("mma" in kernel.asm["ptx"]) == (dtype != "fp32")
            assert "tf32" not in kernel.asm["ptx"]


def test_the_kernels_are_not_for_the_cpu():
    from st_l0.head.triton_kernels import supports

    assert not supports(torch.zeros(2, 3))
