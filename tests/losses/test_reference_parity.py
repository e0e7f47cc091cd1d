"""The same numbers as the reference implementation, stock sentence-transformers, and other ways to put it."""

import random

import pytest
import torch
from independent import random_batch, random_rows
from sentence_transformers.sparse_encoder import losses as stock

from st_l0.errors import InputError
from st_l0.losses import (
    FlopsLoss,
    InfoNCELoss,
    KLDivergenceLoss,
    MarginMSELoss,
    convert_weight,
    inverse,
)

# Two queries with a positive and a negative each; positives come first.
POSITIVES = [[3.0, 0.0, 1.0], [1.0, 0.0, 1.0]]
NEGATIVES = [[0.0, 4.0, 1.0], [0.0, 2.0, 1.0]]


def value(loss, rows, dtype=torch.float64):
    return loss.compute_loss_from_embeddings(torch.as_tensor(rows, dtype=dtype)).item()


def test_the_reference_sums_over_positions_where_stock_pools():
    documents = [*POSITIVES, *NEGATIVES]
    # Means of the positives 2, 0, 1 and of the negatives 0, 3, 1.
    assert value(FlopsLoss(positions=2), documents) == (4 + 0 + 1) + (0 + 9 + 1) == 15
    # Means of all four documents 1, 1.5, 1.
    assert value(FlopsLoss(), documents) == 1 + 2.25 + 1 == 4.25
    assert value(stock.FlopsLoss(None), documents) == 4.25


def test_the_reference_masks_within_each_position():
    # Active dims 2, 2 | 2, 2, but with a first negative of one: it is free and counts in its position's mean.
    documents = [*POSITIVES, [0.0, 0.0, 1.0], NEGATIVES[1]]
    assert value(FlopsLoss(threshold=1, positions=2), documents) == (4 + 0 + 1) + (0 + 1 + 0.25)
    assert value(FlopsLoss(threshold=1), documents) == 1 + 0.25 + 0.75**2


@pytest.mark.parametrize("threshold", [None, 0, 3, 5, 8])
def test_pooled_is_stock_on_one_process(threshold):
    rows = torch.tensor(random_rows(random.Random(4), 12, 10), dtype=torch.float64)
    gradients = []
    for loss in (FlopsLoss(threshold=threshold), stock.FlopsLoss(None, threshold)):
        embeddings = rows.clone().requires_grad_()
        loss.compute_loss_from_embeddings(embeddings).backward()
        gradients.append(embeddings.grad)
    assert value(FlopsLoss(threshold=threshold), rows) == pytest.approx(
        value(stock.FlopsLoss(None, threshold), rows), rel=1e-14
    )
    # Where a weight is 0, ours is 0 too; stock leaves that to the model's relu.
    torch.testing.assert_close(gradients[0], gradients[1] * (rows != 0), rtol=1e-14, atol=0)


def test_stock_depends_on_the_number_of_devices_that_share_a_batch():
    """What the sum over devices is for: the mean of the halves' penalties is larger than the whole's."""
    rows = [*POSITIVES, *NEGATIVES]
    halves = (value(stock.FlopsLoss(None), POSITIVES) + value(stock.FlopsLoss(None), NEGATIVES)) / 2
    assert halves == (5 + 10) / 2
    assert value(stock.FlopsLoss(None), rows) == 4.25


@pytest.mark.parametrize("positions", [1, 2, 4])
def test_a_weight_converts_between_the_two_forms(positions):
    """Exact where the positions have equal means, whatever their documents."""
    swapped = [POSITIVES[1], POSITIVES[0]]
    documents = [row for position in range(positions) for row in (swapped if position % 2 else POSITIVES)]
    per_position, pooled = value(FlopsLoss(positions=positions), documents), value(FlopsLoss(), documents)
    published = 0.04
    pooled_weight = convert_weight(published, positions, to="pooled")
    assert pooled_weight == 0.04 * positions
    assert pooled_weight * pooled == pytest.approx(published * per_position, rel=1e-14)
    assert convert_weight(0.04, positions, to="per_position") == 0.04 / positions
    assert convert_weight(pooled_weight, positions, to="per_position") == pytest.approx(0.04, rel=1e-15)


@pytest.mark.parametrize(("positions", "to"), [(2, "elsewhere"), (0, "pooled"), (-1, "per_position")])
def test_no_other_conversion(positions, to):
    with pytest.raises(InputError) as refused:
        convert_weight(1.0, positions, to=to)
    assert str(refused.value) == (
        f"convert to 'pooled' or 'per_position' and 1 or more positions, not '{to}', {positions}"
    )


def test_the_inverse_of_a_zero_is_zero():
    assert inverse(torch.tensor([0.0, 4.0, 0.5])).tolist() == [0.0, 0.25, 2.0]
    assert inverse(torch.tensor([0.0, 1e-30])).isfinite().all()


@pytest.mark.parametrize("positions", [1, 2])
@pytest.mark.parametrize("threshold", [None, 3])
def test_idf_aware_penalty_is_flops_of_the_document_weights(threshold, positions):
    """IDF queries x w with plain FLOPS, or binary queries x (idf * w) with FLOPS of u / idf.

    Scores, penalty and both gradients, down to the logits of the documents, are equal; a token of IDF 0 can
    have a document weight in neither.
    """
    draw = random.Random(5)
    idf = torch.tensor([draw.uniform(0.2, 8) for _ in range(9)], dtype=torch.float64)
    idf[[2, 6]] = 0.0
    used = (idf > 0).double()
    binary = torch.tensor(random_rows(draw, 3, 9, low=1.0, high=1.0), dtype=torch.float64)
    logits = torch.randn(6, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(6))
    ranking = InfoNCELoss(5.0)
    found = []
    for effective in (False, True):
        start = logits.clone().requires_grad_()
        weights = start.relu().log1p() * used
        documents = weights * idf if effective else weights
        queries = binary if effective else binary * idf
        factors = inverse(idf) if effective else None
        penalty = FlopsLoss(
            threshold=threshold, token_weights=factors, positions=positions
        ).compute_loss_from_embeddings(documents)
        rank = ranking.compute_loss_from_embeddings([queries, documents[:3], documents[3:]])
        of_penalty = torch.autograd.grad(penalty, [start, weights], retain_graph=True)
        of_rank = torch.autograd.grad(rank, [start, weights])
        found.append([queries @ documents.T, penalty, rank, *of_penalty, *of_rank])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-15)
        assert one.abs().sum() > 0
    assert not found[1][3][:, [2, 6]].any()


@pytest.mark.parametrize("logs", [0, 1, 2, 3])
def test_decoupled_activation_penalises_more_logs_than_it_ranks_with(logs):
    columns, keys, _, _ = random_batch(7)
    weights = [torch.tensor(column, dtype=torch.float64) for column in columns]
    keys = [torch.tensor(column) for column in keys]
    documents = torch.cat(weights[1:]).requires_grad_()
    logged = documents
    for _ in range(logs):
        logged = torch.log(1 + logged)
    decoupled = FlopsLoss(threshold=3, extra_logs=logs).compute_loss_from_embeddings(documents)
    coupled = FlopsLoss(threshold=3).compute_loss_from_embeddings(logged)
    assert decoupled.item() == pytest.approx(coupled.item(), rel=1e-14)
    gradients = [torch.autograd.grad(loss, documents)[0] for loss in (decoupled, coupled)]
    torch.testing.assert_close(*gradients, rtol=1e-12, atol=1e-15)
    # The ranking loss is given w itself, of which the penalty leaves nothing changed.
    before = documents.detach().clone()
    FlopsLoss(threshold=3, extra_logs=logs).compute_loss_from_embeddings(documents)
    assert torch.equal(documents.detach(), before)
    ranked = InfoNCELoss().compute_loss_from_embeddings([weights[0], *documents.split(5)], keys=keys)
    alone = InfoNCELoss().compute_loss_from_embeddings(weights, keys=keys)
    assert ranked.item() == alone.item()


@pytest.mark.parametrize("positions", [2, 4])
def test_distillation_of_own_documents_is_stock(positions):
    """On one process, where stock has the same loss."""
    columns, _, own, _ = random_batch(8, positions=positions)
    embeddings = [torch.tensor(column, dtype=torch.float64) for column in columns]
    labels = torch.tensor(own, dtype=torch.float64)
    pairs = [(MarginMSELoss(), stock.SparseMarginMSELoss(None), 1.0)]
    for temperature in (1.0, 0.5):
        # Stock multiplies by the square of the temperature, the reference implementation does not.
        theirs = stock.SparseDistillKLDivLoss(None, temperature=temperature)
        pairs.append((KLDivergenceLoss(temperature), theirs, temperature**2))
    for ours, theirs, factor in pairs:
        expected = theirs.compute_loss_from_embeddings(embeddings, labels).item() / factor
        assert ours.compute_loss_from_embeddings(embeddings, labels).item() == pytest.approx(
            expected, rel=1e-12
        )
