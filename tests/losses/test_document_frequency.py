"""The factors of DF-FLOPS, and when they are estimated."""

import io
import math
import random

import pytest
import torch
from independent import document_frequency_factor, document_frequency_factors, random_rows, regularizer

from st_l0.errors import InputError
from st_l0.losses import DocumentFrequencyWeights, FlopsLoss


def observe(weights, *rows):
    return weights.observe(torch.tensor(rows) != 0).tolist()


def test_factors_by_hand():
    # Shares 0, 1/4 and 1 of four documents; alpha is where the factor is 1/2.
    weights = DocumentFrequencyWeights(3, alpha=0.25)
    rows = [[0, 1, 1], [0, 0, 1], [0, 0, 1], [0, 0, 1]]
    assert observe(weights, *rows) == [0.0, pytest.approx(0.5, rel=1e-6), 1.0]


@pytest.mark.parametrize("beta", [1.0, 2.0, 10.0])
def test_the_factor_between_by_hand(beta):
    # log_{1/4} 2 = -1/2, so that x = 1/16 gives 1 / (1 + (4 - 1)^beta), and x = 4/9 gives 1 / (1 + .5^beta).
    weights = DocumentFrequencyWeights(2, alpha=0.25, beta=beta)
    rows = [[int(row < 9), int(row < 64)] for row in range(144)]
    expected = [1 / (1 + 3**beta), 1 / (1 + 0.5**beta)]
    assert observe(weights, *rows) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("alpha", [0.001, 0.1, 0.5, 0.9])
def test_factors_grow_with_the_share(alpha):
    weights = DocumentFrequencyWeights(101, alpha=alpha, beta=3)
    shares = [token / 100 for token in range(101)]
    found = observe(weights, *[[int(token > row) for token in range(101)] for row in range(100)])
    assert found == pytest.approx([document_frequency_factor(x, alpha, 3) for x in shares], rel=1e-6)
    assert found == sorted(found)
    assert (found[0], found[-1]) == (0, 1)


def test_estimates_at_the_first_batch_and_then_every_few():
    weights = DocumentFrequencyWeights(2, alpha=0.5, refresh_steps=3)
    # Batch 0 alone: shares 1/2 and 1.
    for _ in range(3):
        assert observe(weights, [1, 1], [0, 1]) == pytest.approx([0.5, 1.0], rel=1e-6)
    # Batches 1 to 3: the first token in 2 of 6 documents... exponent -1: x = 1/3 gives (3 - 1)^10.
    assert observe(weights, [0, 0], [0, 1]) == pytest.approx(
        [1 / (1 + 2**10), 1 / (1 + (6 / 5 - 1) ** 10)], rel=1e-6
    )
    # In force until batch 6; batches 4 to 6 never use the first token.
    for _ in range(2):
        assert observe(weights, [0, 1])[0] == pytest.approx(1 / 1025)
    assert observe(weights, [0, 1]) == [0.0, 1.0]


@pytest.mark.parametrize("refresh", [1, 2, 3, 100])
@pytest.mark.parametrize("positions", [1, 2])
def test_df_flops_equals_an_independent_implementation(refresh, positions):
    draw = random.Random(refresh)
    # Batches of different sizes: shares are over documents, not over batches.
    batches = [random_rows(draw, draw.choice([2, 4, 8]), 6, density=draw.random()) for _ in range(9)]
    weights = DocumentFrequencyWeights(6, alpha=0.3, beta=4, refresh_steps=refresh)
    loss = FlopsLoss(token_weights=weights, positions=positions)
    right = document_frequency_factors(batches, 0.3, 4, refresh)
    for rows, expected in zip(batches, right, strict=True):
        value = loss.compute_loss_from_embeddings(torch.tensor(rows, dtype=torch.float64)).item()
        assert weights.weights.tolist() == pytest.approx(expected, rel=1e-6)
        factors = weights.weights.tolist()
        assert value == pytest.approx(
            regularizer(rows, 2, factors=factors, positions=positions), rel=1e-12, abs=1e-300
        )


def test_factors_are_constants_of_the_gradient():
    rows = torch.tensor(random_rows(random.Random(1), 5, 6), dtype=torch.float64)
    loss = FlopsLoss(token_weights=DocumentFrequencyWeights(6, alpha=0.5))
    ours = rows.clone().requires_grad_()
    loss.compute_loss_from_embeddings(ours).backward()
    factors = loss.document_frequency.weights
    assert not factors.requires_grad
    factors = factors.double()
    torch.testing.assert_close(ours.grad, 2 / 5 * factors**2 * rows.mean(0) * (rows != 0))


def test_evaluation_counts_nothing():
    weights = DocumentFrequencyWeights(2, alpha=0.5, refresh_steps=1)
    loss = FlopsLoss(token_weights=weights)
    assert observe(weights, [1, 1], [0, 1]) == pytest.approx([0.5, 1.0])
    before = {name: torch.as_tensor(value).clone() for name, value in loss.state_dict().items()}
    loss.eval()
    for _ in range(3):
        assert observe(weights, [1, 0]) == pytest.approx([0.5, 1.0])
        loss.compute_loss_from_embeddings(torch.ones(1, 2))
    after = {name: torch.as_tensor(value) for name, value in loss.state_dict().items()}
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    loss.train()
    assert observe(weights, [1, 0]) == [1.0, 0.0]


def test_evaluation_before_training_penalises_nothing():
    loss = FlopsLoss(token_weights=DocumentFrequencyWeights(2)).eval()
    assert loss.compute_loss_from_embeddings(torch.ones(3, 2)).item() == 0


@pytest.mark.parametrize("stop", [1, 2, 3, 4, 5])
def test_a_saved_state_goes_on_as_if_nothing_had_happened(stop):
    draw = random.Random(stop)
    batches = [random_rows(draw, 4, 6) for _ in range(12)]

    def fresh():
        return FlopsLoss(token_weights=DocumentFrequencyWeights(6, alpha=0.4, refresh_steps=3))

    def run(loss, rows):
        return loss.compute_loss_from_embeddings(torch.tensor(rows, dtype=torch.float64)).item()

    unbroken = fresh()
    expected = [run(unbroken, rows) for rows in batches]
    first = fresh()
    found = [run(first, rows) for rows in batches[:stop]]
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    second = fresh()
    file.seek(0)
    second.load_state_dict(torch.load(file, weights_only=True))
    found += [run(second, rows) for rows in batches[stop:]]
    assert found == expected
    assert len(set(expected)) == len(expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        *(({"alpha": x}, f"alpha must be between 0 and 1, not {x}") for x in (0, 1, -0.1, 1.5, math.nan)),
        *(({"beta": x}, f"beta must be positive, not {x}") for x in (0, -1.0, math.nan)),
        *(({"refresh_steps": x}, f"refresh_steps must be 1 or more, not {x}") for x in (0, -5)),
    ],
)
def test_refuses_what_makes_no_sense(options, message):
    with pytest.raises(InputError) as refused:
        DocumentFrequencyWeights(3, **options)
    assert str(refused.value) == message


def test_refuses_another_vocabulary():
    with pytest.raises(InputError) as refused:
        observe(DocumentFrequencyWeights(3), [1, 0])
    assert str(refused.value) == "document frequencies of 3 tokens do not fit vectors of 2"


def test_says_what_it_is():
    weights = DocumentFrequencyWeights(3, alpha=0.2, beta=5, refresh_steps=7)
    assert str(weights) == "document frequency (alpha 0.2, beta 5, every 7 batches)"
