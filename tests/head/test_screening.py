"""Screening against exact arithmetic: no entry that is active may ever be ruled out."""

import pytest
import torch

from st_l0.head import max_logits as room
from st_l0.head import screening
from st_l0.head.max_logits import flat_max_logits
from st_l0.head.packing import PackedTokens
from st_l0.head.screening import upper_bounds

LENGTHS = (7, 1, 30, 2)
SIZE = 48


@pytest.fixture
def screened(monkeypatch):
    """Screening wherever it can be, on any CPU: torch multiplies integers everywhere, if slowly."""
    monkeypatch.setattr(room, "_few_candidates", lambda *args: True)


def random(*shape, seed=0, scale=1.0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * scale


def a_decoder(weight, bias=None):
    decoder = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    with torch.no_grad():
        decoder.weight.copy_(weight)
        if bias is not None:
            decoder.bias.copy_(bias)
    return decoder


def offsets(lengths):
    return torch.tensor([0, *lengths]).cumsum(0)


def exact(hidden, lengths, weight, bias):
    """Largest logits in float64."""
    logits = hidden.double() @ weight.double().T + (0 if bias is None else bias.double())
    return torch.stack([part.amax(0) for part in logits.split(list(lengths))])


def bounds_of(hidden, lengths, weight, bias):
    out = torch.empty(len(lengths), len(weight))
    return upper_bounds(hidden, PackedTokens(lengths), weight, bias, out)


def heavy_tailed(*shape, seed):
    return random(*shape, seed=seed) ** 5


def few_large(*shape, seed):
    values = random(*shape, seed=seed)
    values[:, 3] *= 1000
    return values


def few_values(*shape, seed):
    # Half way between two 8-bit steps, where the rounding is largest.
    values = (torch.randint(-126, 126, shape, generator=torch.Generator().manual_seed(seed)) + 0.5) / 127
    values[:, 0] = 1
    return values


@pytest.mark.parametrize("bias", ["none", "usual", "large"])
@pytest.mark.parametrize("scale", [1e-45, 1e-38, 1e-20, 1e-3, 1.0, 1e4, 1e15])
@pytest.mark.parametrize("kind", [random, heavy_tailed, few_large, few_values])
def test_the_bound_is_a_bound(kind, scale, bias):
    hidden, weight = kind(sum(LENGTHS), SIZE, seed=1) * scale, kind(300, SIZE, seed=2)
    given = {"none": None, "usual": random(300), "large": random(300, scale=1e4)}[bias]
    for one, other in ((hidden, weight), (kind(sum(LENGTHS), SIZE, seed=3), kind(300, SIZE, seed=4) * scale)):
        true, bounds = exact(one, LENGTHS, other, given), bounds_of(one, LENGTHS, other, given)
        assert (bounds.double() >= true).all()
        decoder = a_decoder(other, given)
        in_float32 = torch.stack([part.amax(0) for part in decoder(one).split(list(LENGTHS))])
        assert (bounds >= in_float32).all()


@pytest.mark.parametrize("where", ["hidden", "weight"])
def test_the_bound_holds_where_nothing_is_to_spare(where):
    # 127 sets the scale to 1, and 0.49 is lost in every other place; the other side is exact and lies in the
    # direction of what is lost, so that the inequality of Cauchy and Schwarz is an equality.
    coarse = torch.full((1, 400), 0.49)
    coarse[0, 0] = 127
    exact_side = torch.ones(1, 400)
    exact_side[0, 0] = 0
    hidden, weight = (coarse, exact_side) if where == "hidden" else (exact_side, coarse)
    hidden = torch.cat([hidden, torch.full((1, 400), 0.0), hidden])  # a token that loses nothing between them
    bounds = bounds_of(hidden, [3], weight, None)
    assert 0.49 * 399 <= bounds.item() < 0.5 * 399


def test_the_bound_covers_the_rounding_of_float32_sums():
    generator = torch.Generator().manual_seed(1)
    for seed in range(20):
        # Multiples of a scale: 8 bits lose next to nothing, but the products and their sums are rounded.
        multiples = torch.randint(-127, 128, (2, 200, 64), generator=generator).float()
        multiples[..., 0] = 127
        hidden, weight = multiples[0] * (0.1 + 0.01 * seed), multiples[1] * 0.3
        bounds = bounds_of(hidden, [1] * 200, weight, None)
        assert (bounds >= hidden @ weight.T).all()
        assert (bounds >= exact(hidden, [1] * 200, weight, None)).all()


def test_the_bound_is_tight_enough_to_be_of_use():
    hidden, weight = random(sum(LENGTHS), 384, seed=1), random(300, 384, seed=2)
    true, bounds = exact(hidden, LENGTHS, weight, None), bounds_of(hidden, LENGTHS, weight, None)
    # The products are about 20 each way; rounding to 8 bits loses under a hundredth of each vector's length.
    assert (bounds - true).max() < 0.02 * 20 * 22


def test_a_document_of_two_tokens_worked_out():
    # Scales 127 / 127 = 1 and 254 / 127 = 2: all is a multiple of them and nothing is lost.
    hidden, weight = torch.tensor([[127.0, 3.0], [-127.0, 5.0]]), torch.tensor([[254.0, -2.0]])
    bounds = bounds_of(hidden, [2], weight, torch.tensor([-30000.0]))
    assert bounds.item() == pytest.approx(127 * 254 - 6 - 30000, abs=1)
    assert bounds.item() >= 127 * 254 - 6 - 30000


@pytest.mark.usefixtures("screened")
@pytest.mark.parametrize("distance", [1e-4, 1e-5, 1e-6])
def test_logits_just_above_and_below_zero(distance):
    hidden, weight = random(sum(LENGTHS), SIZE, seed=1), random(400, SIZE, seed=2, scale=0.1)
    largest = exact(hidden, LENGTHS, weight, None)
    signs = torch.ones(400, dtype=torch.float64)
    signs[::2] = -1
    for document in range(len(LENGTHS)):
        # The bias puts each entry of this document at that distance from zero, in turns above and below.
        bias = (signs * distance - largest[document]).float()
        values = flat_max_logits(hidden, offsets(LENGTHS), a_decoder(weight, bias))
        expected = exact(hidden, LENGTHS, weight, bias)
        assert torch.equal(values[document] > 0, signs > 0)
        clear = expected.abs() > 3e-7  # nearer to zero float32 may be on either side
        assert torch.equal((values > 0)[clear], (expected > 0)[clear])
        torch.testing.assert_close(values.double(), expected.clamp(min=0), rtol=0, atol=2e-6)


@pytest.mark.usefixtures("screened")
@pytest.mark.parametrize("scale", [1e-42, 1e-30, 1.0, 1e12, 1e25])
@pytest.mark.parametrize("bias", [None, -2.0, -1e4])
def test_values_are_those_of_the_plain_way(scale, bias, monkeypatch):
    hidden, weight = random(sum(LENGTHS), SIZE, seed=1) * scale, random(400, SIZE, seed=2)
    decoder = a_decoder(weight, None if bias is None else torch.full((400,), bias) + random(400, seed=3))
    values = flat_max_logits(hidden, offsets(LENGTHS), decoder)
    monkeypatch.setattr(room, "_few_candidates", lambda *args: False)
    plain = flat_max_logits(hidden, offsets(LENGTHS), decoder)
    assert torch.equal(values > 0, plain > 0)
    torch.testing.assert_close(values, plain, rtol=1e-5, atol=1e-6 * plain.max().item())


@pytest.mark.usefixtures("screened")
@pytest.mark.parametrize("rubbish", [float("nan"), float("inf"), float("-inf"), 3e38])
@pytest.mark.parametrize("where", ["hidden", "weight", "bias"])
def test_what_is_not_finite_comes_to_light(where, rubbish):
    hidden, weight = random(sum(LENGTHS), SIZE, seed=1), random(400, SIZE, seed=2)
    bias = random(400, seed=3) - 5
    place = {"hidden": hidden[10], "weight": weight[10], "bias": bias[10:11]}[where]
    place[0] = rubbish
    decoder = a_decoder(weight, bias)
    values = flat_max_logits(hidden, offsets(LENGTHS), decoder)
    logits = decoder(hidden).relu()
    expected = torch.stack([part.amax(0) for part in logits.split(list(LENGTHS))])
    assert torch.equal(values.isfinite(), expected.isfinite())
    assert torch.equal(values.isnan(), expected.isnan())
    torch.testing.assert_close(values, expected, equal_nan=True)


@pytest.mark.usefixtures("screened")
def test_not_a_number_reaches_the_gradients():
    hidden = random(sum(LENGTHS), SIZE, seed=1)
    hidden[[10, -1]] = float("nan")
    decoder = a_decoder(random(400, SIZE, seed=2), random(400, seed=3) - 5)
    values = flat_max_logits(hidden.requires_grad_(), offsets(LENGTHS), decoder)
    winners = values.grad_fn.saved_tensors[-1]
    assert winners.max() < len(hidden)
    values.square().sum().backward()
    assert decoder.weight.grad.isnan().any()


@pytest.mark.usefixtures("screened")
def test_all_zeros():
    decoder = a_decoder(torch.zeros(400, SIZE), torch.zeros(400))
    assert not flat_max_logits(torch.zeros(40, SIZE), offsets(LENGTHS), decoder).any()


def sparse_case(active):
    """A batch and a decoder with about so many active entries of 4,096 a document."""
    hidden, weight = random(256, 384, seed=1), random(4096, 384, seed=2)
    largest = exact(hidden, [64] * 4, weight, None)
    level = largest.flatten().kthvalue(largest.numel() - 4 * active).values
    return hidden, a_decoder(weight, torch.full((4096,), -level.item()))


@pytest.mark.parametrize(("active", "expected"), [(50, True), (3000, False)])
def test_screening_is_taken_where_documents_are_sparse(active, expected, monkeypatch):
    monkeypatch.setattr(screening, "available", lambda: True)
    hidden, decoder = sparse_case(active)
    assert room._few_candidates(hidden, PackedTokens([64] * 4), decoder.weight, decoder.bias) is expected
    values = flat_max_logits(hidden, torch.arange(0, 257, 64), decoder)
    assert (values > 0).sum() == pytest.approx(4 * active, abs=2)


def test_screening_is_only_for_large_float32_on_a_cpu_that_can(monkeypatch):
    hidden, decoder = sparse_case(50)
    documents = PackedTokens([64] * 4)

    def taken(hidden=hidden, weight=decoder.weight, segments=documents):
        return room._few_candidates(hidden, segments, weight, decoder.bias)

    monkeypatch.setattr(screening, "available", lambda: True)
    assert taken()
    assert not taken(hidden.double(), decoder.weight.double())
    assert not taken(hidden[:64], segments=PackedTokens([64]))
    assert not taken(weight=decoder.weight[:1024])
    monkeypatch.setattr(screening, "available", lambda: False)
    assert not taken()


@pytest.mark.parametrize("abilities", [{}, {"avx512_vnni": False, "amx_int8": False}])
def test_not_available_on_other_processors(abilities, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: abilities)
    screening.available.cache_clear()
    assert not screening.available()
    screening.available.cache_clear()


def test_not_available_where_products_overflow(monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_vnni": True})
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    screening.available.cache_clear()
    assert screening.available()
    right = torch._int_mm
    monkeypatch.setattr(torch, "_int_mm", lambda a, b: right(a, b).clamp(-(2**15), 2**15 - 1))
    screening.available.cache_clear()
    assert not screening.available()
    screening.available.cache_clear()
