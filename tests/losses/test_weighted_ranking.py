"""Several ranking losses in one sum."""

import math

import pytest
import torch
from independent import infonce, kl, margin_mse, random_batch

from st_l0.errors import InputError
from st_l0.losses import InfoNCELoss, KLDivergenceLoss, MarginMSELoss, WeightedRankingLoss

QUERIES = [[1.0, 0.0], [0.0, 2.0]]
POSITIVES = [[1.0, 0.0], [0.0, 1.0]]
NEGATIVES = [[0.0, 1.0], [0.0, 2.0]]


def three():
    return WeightedRankingLoss(
        {
            "kl": (KLDivergenceLoss(0.7, in_batch_negatives=True), 2.0),
            "margin_mse": (MarginMSELoss(), 0.05),
            "contrastive": (InfoNCELoss(3.0), 0.5),
        }
    )


def test_numbers_by_hand():
    loss = WeightedRankingLoss(
        {"margin": (MarginMSELoss(), 0.5), "own": (InfoNCELoss(in_batch_negatives=False), 2.0)}
    )
    embeddings = [torch.tensor(column) for column in (QUERIES, POSITIVES, NEGATIVES)]
    terms = loss.compute_loss_from_embeddings(embeddings, torch.tensor([[5.0, 2.0], [1.0, 0.0]]))
    assert list(terms) == ["margin_loss", "own_loss"]
    # Scores 1, 0 and 2, 4: margins 1 and -2 where 3 and 1 are wanted.
    assert terms["margin_loss"].item() == 0.5 * (2**2 + 3**2) / 2
    expected = 2 * (math.log(1 + math.exp(-1)) + math.log(1 + math.exp(2))) / 2
    assert terms["own_loss"].item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("seed", range(4))
def test_equals_an_independent_implementation(seed):
    columns, keys, own, _ = random_batch(seed)
    terms = three().compute_loss_from_embeddings(
        [torch.tensor(column, dtype=torch.float64) for column in columns],
        torch.tensor(own, dtype=torch.float64),
        keys=[torch.tensor(column) for column in keys],
    )
    assert {name: term.item() for name, term in terms.items()} == pytest.approx(
        {
            "kl_loss": 2 * kl(columns, own, keys, 0.7, True),
            "margin_mse_loss": 0.05 * margin_mse(columns, own, keys),
            "contrastive_loss": 0.5 * infonce(columns, keys, 3.0),
        },
        rel=1e-12,
    )


def test_the_gradient_is_that_of_the_formula():
    columns, keys, own, _ = random_batch(5, queries=3, size=4)
    embeddings = [torch.tensor(column, dtype=torch.float64, requires_grad=True) for column in columns]
    labels, keys = torch.tensor(own, dtype=torch.float64), [torch.tensor(column) for column in keys]

    def total(*given):
        return sum(three().compute_loss_from_embeddings(given, labels, keys=keys).values())

    assert torch.autograd.gradcheck(total, embeddings)


def test_sums_may_be_nested():
    inner = WeightedRankingLoss({"a": (InfoNCELoss(), 2.0), "b": (MarginMSELoss(), 3.0)})
    columns, keys, own, _ = random_batch(6)
    terms = WeightedRankingLoss({"both": (inner, 0.5)}).compute_loss_from_embeddings(
        [torch.tensor(column, dtype=torch.float64) for column in columns],
        torch.tensor(own, dtype=torch.float64),
        keys=[torch.tensor(column) for column in keys],
    )
    expected = 0.5 * (2 * infonce(columns, keys) + 3 * margin_mse(columns, own))
    assert terms["both_loss"].item() == pytest.approx(expected, rel=1e-12)


def test_one_query_with_one_document():
    given = [torch.tensor([[1.0, 2.0]], requires_grad=True) for _ in range(2)]
    terms = three().compute_loss_from_embeddings(given, torch.tensor([[3.0]]))
    assert [term.item() for term in terms.values()] == [0, 0, 0]
    sum(terms.values()).backward()
    assert not any(column.grad.any() for column in given)


@pytest.mark.parametrize("weight", [0, -1.0, math.nan])
def test_refuses_a_weight_that_makes_no_sense(weight):
    with pytest.raises(InputError) as refused:
        WeightedRankingLoss({"kl": (KLDivergenceLoss(), weight)})
    assert str(refused.value) == f"the weight of ranking loss kl must be positive, not {weight}"


def test_refuses_no_terms():
    with pytest.raises(InputError) as refused:
        WeightedRankingLoss({})
    assert str(refused.value) == "give at least one ranking loss"


def test_says_what_it_is():
    assert three().get_config_dict() == {
        "kl": {"weight": 2.0, "temperature": 0.7, "in_batch_negatives": True},
        "margin_mse": {"weight": 0.05, "in_batch_negatives": False},
        "contrastive": {"weight": 0.5, "temperature": 3.0, "in_batch_negatives": True},
    }
    for source in ("1503.02531", "2010.02666", "1807.03748"):
        assert source in three().citation
