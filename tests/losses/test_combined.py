"""Ranking and sparsity in one loss: its terms, the ramp, and what the log is told."""

import math

import pytest
import torch
from given import POSITIVES, QUERIES, Given, batch, column
from independent import infonce, kl, margin_mse, random_batch, regularizer
from torch import nn

from st_l0.errors import InputError
from st_l0.losses import (
    FlopsLoss,
    InfoNCELoss,
    KLDivergenceLoss,
    L1Loss,
    MarginMSELoss,
    SparseRetrievalLoss,
    WeightedRankingLoss,
)


def build(weight=1.0, *, threshold=None, positions=1, **options):
    return SparseRetrievalLoss(
        Given(), InfoNCELoss(), FlopsLoss(threshold=threshold, positions=positions), weight, **options
    )


# Scores 1, 0, 1, 1 and 0, 2, 2, 2.
CONTRASTIVE = (math.log(3 + math.exp(-1)) + math.log(3 + math.exp(-2))) / 2


def numbers(terms):
    return {name: term.item() for name, term in terms.items()}


def test_parts_by_hand():
    # Sums 3, 3, 4 over four documents; queries take no part.
    assert numbers(build(0.5)(batch())) == {
        "ranking_loss": pytest.approx(CONTRASTIVE, rel=1e-14),
        "document_regularizer_loss": 0.5 * (9 + 9 + 16) / 16,
    }


def test_positions_are_the_document_columns():
    # Positives 1, 1, 3 and negatives 2, 2, 1 over two documents each.
    terms = build(2.0, positions=2)(batch())
    assert terms["document_regularizer_loss"].item() == 2 * ((1 + 1 + 9) + (4 + 4 + 1)) / 4


def test_queries_have_a_penalty_of_their_own():
    # Means 1/2, 1, 0 over two queries.
    for regularizer_, expected in ((L1Loss(), 1.5), (FlopsLoss(), 0.25 + 1)):
        loss = build(0.5, query_regularizer=regularizer_, query_regularizer_weight=3.0)
        terms = numbers(loss(batch()))
        assert terms.pop("query_regularizer_loss") == 3 * expected
        assert terms == numbers(build(0.5)(batch()))
    # At weight 0 it is there, to be seen in the log, and counts nothing.
    assert build(0.5, query_regularizer=L1Loss())(batch())["query_regularizer_loss"].item() == 0


def test_parts_of_several_ranking_losses_by_hand():
    ranking = WeightedRankingLoss({"margin": (MarginMSELoss(), 0.5), "nce": (InfoNCELoss(), 2.0)})
    loss = SparseRetrievalLoss(Given(), ranking, FlopsLoss(), 0.0)
    # Margins 1 - 1 and 2 - 2 where 3 and 1 are wanted.
    assert numbers(loss(batch(), torch.tensor([[4.0, 1.0], [1.0, 0.0]]))) == {
        "margin_loss": 0.5 * (9 + 1) / 2,
        "nce_loss": pytest.approx(2 * CONTRASTIVE, rel=1e-14),
        "document_regularizer_loss": 0.0,
    }


def test_equal_texts_are_found_by_their_tokens():
    assert build()(batch((3, 3), (3, 3)))["ranking_loss"].item() == 0.0
    # The first negative reads like the first positive, the second like the second.
    expected = (math.log(2 + math.exp(-1)) + math.log(2 + math.exp(-2))) / 2
    assert build()(batch((3, 4), (3, 4)))["ranking_loss"].item() == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize("seed", range(4))
def test_equals_independent_implementations(seed):
    columns, keys, own, complete = random_batch(seed)
    documents = columns[1] + columns[2]
    ranking = WeightedRankingLoss(
        {
            "kl": (KLDivergenceLoss(0.5, in_batch_negatives=True), 2.0),
            "margin": (MarginMSELoss(in_batch_negatives=True), 0.1),
            "nce": (InfoNCELoss(2.0), 1.0),
        }
    )
    loss = SparseRetrievalLoss(
        Given(),
        ranking,
        FlopsLoss(threshold=3, extra_logs=1, positions=2),
        0.4,
        query_regularizer=L1Loss(top_k=1),
        query_regularizer_weight=0.3,
    )
    features = [column(vectors, texts) for vectors, texts in zip(columns, keys, strict=True)]
    for labels in (own, complete):
        expected = {
            "kl_loss": 2 * kl(columns, labels, keys, 0.5, True),
            "margin_loss": 0.1 * margin_mse(columns, labels, keys, True),
            "nce_loss": infonce(columns, keys, 2.0),
            "document_regularizer_loss": 0.4
            * regularizer(documents, 2, threshold=3, extra_logs=1, positions=2),
            "query_regularizer_loss": 0.3 * regularizer(columns[0], 1, top_k=1),
        }
        found = numbers(loss(features, torch.tensor(labels, dtype=torch.float64)))
        assert found == pytest.approx(expected, rel=1e-12)


def test_the_gradient_is_that_of_the_formula():
    columns, keys, own, _ = random_batch(9, queries=3, size=4)
    ranking = WeightedRankingLoss(
        {"kl": (KLDivergenceLoss(in_batch_negatives=True), 1.0), "margin": (MarginMSELoss(), 0.2)}
    )
    options = {"query_regularizer": FlopsLoss(), "query_regularizer_weight": 0.3}
    loss = SparseRetrievalLoss(Given(), ranking, FlopsLoss(threshold=1, positions=2), 0.4, **options)
    vectors = [torch.tensor(rows, dtype=torch.float64).clamp(min=0.01) for rows in columns]

    def total(*given):
        features = [column(rows, texts) for rows, texts in zip(given, keys, strict=True)]
        return sum(loss(features, torch.tensor(own, dtype=torch.float64)).values())

    assert torch.autograd.gradcheck(total, [rows.requires_grad_() for rows in vectors])


def test_the_ramp_is_quadratic():
    loss = build(8.0, ramp_steps=4, query_regularizer=L1Loss(), query_regularizer_weight=16.0)
    weights = [loss.weights]  # before the first step, as in the first step
    for step in range(7):
        loss.set_step(step)
        weights.append(loss.weights)
    assert [w["document_regularizer_weight"] for w in weights] == [0.5, 0.5, 2.0, 4.5, 8.0, 8.0, 8.0, 8.0]
    assert [w["query_regularizer_weight"] for w in weights] == [1, 1, 4, 9, 16, 16, 16, 16]
    loss.set_step(0)  # a resumed run sets any step
    assert loss.weights == {"document_regularizer_weight": 0.5, "query_regularizer_weight": 1.0}


@pytest.mark.parametrize("steps", [1, 3, 10_000])
def test_the_ramp_ends_at_the_peak(steps):
    loss = build(0.04, ramp_steps=steps)
    loss.set_step(steps - 1)
    assert loss.weights["document_regularizer_weight"] == 0.04


def test_no_ramp_is_the_peak_at_once():
    loss = build(8.0)
    loss.set_step(0)
    assert loss.weights["document_regularizer_weight"] == 8.0


def test_the_ramp_weighs_loss_and_gradient_of_both_sides():
    values, gradients = [], []
    loss = build(8.0, ramp_steps=4, query_regularizer=L1Loss(), query_regularizer_weight=16.0)
    for step in (0, 3):
        loss.set_step(step)
        vectors = [torch.tensor(rows, requires_grad=True) for rows in (QUERIES, POSITIVES)]
        terms = loss([column(rows, texts) for rows, texts in zip(vectors, ([1, 2], [3, 4]), strict=True)])
        penalties = [terms["document_regularizer_loss"], terms["query_regularizer_loss"]]
        sum(penalties).backward()
        values.append([penalty.item() for penalty in penalties])
        gradients.append([rows.grad for rows in vectors])
    assert values[1] == [16 * value for value in values[0]]
    assert min(values[0]) > 0
    for first, last in zip(*gradients, strict=True):
        assert torch.equal(last, 16 * first)
        assert first.any()


def test_with_an_encoder(tiny_encoder):
    model = tiny_encoder().eval()
    texts = ["snow", "old ship"], ["the snow in the city", "a ship on the river"], ["a red dog", "bird ."]
    features = [
        model.preprocess(list(part), task="query" if index == 0 else "document")
        for index, part in enumerate(texts)
    ]
    loss = SparseRetrievalLoss(model, InfoNCELoss(5.0), FlopsLoss(threshold=3), 0.1)
    terms = loss(features)
    sum(terms.values()).backward()
    documents = model.encode_document([*texts[1], *texts[2]]).to_dense()
    queries = model.encode_query(list(texts[0])).to_dense()
    penalty = FlopsLoss(threshold=3).compute_loss_from_embeddings(documents).item()
    scores = queries @ documents.T / 5
    ranking = nn.functional.cross_entropy(scores, torch.arange(2)).item()
    assert terms["document_regularizer_loss"].item() == pytest.approx(0.1 * penalty, rel=1e-5)
    assert terms["ranking_loss"].item() == pytest.approx(ranking, rel=1e-4)
    active = (documents != 0).sum(1).float().mean().item()
    assert loss.pop_statistics()["document_active_dims"] == pytest.approx(active, abs=1e-4)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in trained)


@pytest.mark.parametrize("weight", [-0.1, math.nan])
def test_refuses_a_weight_that_makes_no_sense(weight):
    with pytest.raises(InputError) as refused:
        build(weight)
    assert str(refused.value) == f"document_regularizer_weight must be 0 or more, not {weight}"
    with pytest.raises(InputError) as refused:
        build(query_regularizer=L1Loss(), query_regularizer_weight=weight)
    assert str(refused.value) == f"query_regularizer_weight must be 0 or more, not {weight}"


def test_refuses_a_query_weight_without_a_regularizer():
    with pytest.raises(InputError) as refused:
        build(query_regularizer_weight=0.1)
    assert str(refused.value) == "query_regularizer_weight needs a query_regularizer"


def test_refuses_a_negative_ramp():
    with pytest.raises(InputError) as refused:
        build(ramp_steps=-1)
    assert str(refused.value) == "ramp_steps must be 0 or more, not -1"


def test_says_what_it_is():
    loss = build(0.04, threshold=200, ramp_steps=10)
    assert loss.get_config_dict() == {
        "ranking": loss.ranking,
        "document_regularizer": loss.document_regularizer,
        "document_regularizer_weight": 0.04,  # the peak, wherever the ramp stands
        "ramp_steps": 10,
    }
    siamese = build(0.04, query_regularizer=L1Loss(), query_regularizer_weight=0.01, ramp_steps=10)
    config = siamese.get_config_dict()
    assert config["query_regularizer"] is siamese.query_regularizer
    assert config["query_regularizer_weight"] == 0.01
    assert "1807.03748" in loss.citation
    assert "2504.14839" in loss.citation
