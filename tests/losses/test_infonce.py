"""Contrastive ranking: own positive against the other documents, of the batch or of the query."""

import math

import pytest
import torch
from independent import infonce, random_batch
from torch.nn import functional

from st_l0.errors import InputError
from st_l0.losses import InfoNCELoss

QUERIES = [[1.0, 0.0], [0.0, 2.0]]
POSITIVES = [[1.0, 0.0], [0.0, 1.0]]
NEGATIVES = [[1.0, 1.0], [1.0, 1.0]]


def loss(*columns, keys=None, temperature=1.0, **options):
    embeddings = [torch.tensor(column, dtype=torch.float64) for column in columns]
    keys = None if keys is None else [torch.tensor(column) for column in keys]
    return InfoNCELoss(temperature, **options).compute_loss_from_embeddings(embeddings, keys=keys).item()


def random_columns(columns, queries=6, size=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(columns, queries, size, dtype=torch.float64, generator=generator)


def test_numbers_by_hand():
    # Scores: 1 and 0 for the first query, 0 and 2 for the second.
    expected = (math.log(1 + math.exp(-1)) + math.log(1 + math.exp(-2))) / 2
    assert loss(QUERIES, POSITIVES) == pytest.approx(expected, rel=1e-14)


def test_the_temperature_divides_the_scores():
    expected = (math.log(1 + math.exp(-2)) + math.log(1 + math.exp(-4))) / 2
    assert loss(QUERIES, POSITIVES, temperature=0.5) == pytest.approx(expected, rel=1e-14)


def test_hard_negatives_are_candidates_of_every_query():
    # Scores 1, 0, 1, 1 and 0, 2, 2, 2.
    expected = (math.log(3 + math.exp(-1)) + math.log(3 + math.exp(-2))) / 2
    assert loss(QUERIES, POSITIVES, NEGATIVES) == pytest.approx(expected, rel=1e-14)
    # A second such column adds two more documents of the same score.
    expected = (math.log(5 + math.exp(-1)) + math.log(5 + math.exp(-2))) / 2
    assert loss(QUERIES, POSITIVES, NEGATIVES, NEGATIVES) == pytest.approx(expected, rel=1e-14)


def test_without_in_batch_negatives_by_hand():
    # Each query sees its own documents alone: scores 1, 1 and 2, 2; then 1, 0 and 2, 4 against other ones.
    def own(*columns, **options):
        return loss(*columns, in_batch_negatives=False, **options)

    assert own(QUERIES, POSITIVES, NEGATIVES) == pytest.approx(math.log(2), rel=1e-14)
    others = [[0.0, 1.0], [0.0, 2.0]]
    expected = (math.log(1 + math.exp(-1)) + math.log(1 + math.exp(2))) / 2
    assert own(QUERIES, POSITIVES, others) == pytest.approx(expected, rel=1e-14)
    expected = (math.log(1 + math.exp(-0.5)) + math.log(1 + math.exp(1))) / 2
    assert own(QUERIES, POSITIVES, others, temperature=2.0) == pytest.approx(expected, rel=1e-14)
    assert own(QUERIES, POSITIVES) == 0  # a single document is certain


BOTH = (math.log(1 + math.exp(-1)) + math.log(1 + math.exp(-2))) / 2


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ([[1, 2], [7, 7]], 0.0),  # two queries share a passage
        ([[5, 5], [1, 2]], 0.0),  # one query with two passages
        ([[1, 2], [3, 4]], BOTH),
        ([[3, 4], [4, 3]], BOTH),  # a document that reads like a query is a document all the same
    ],
)
def test_no_known_positive_is_a_negative(keys, expected):
    assert loss(QUERIES, POSITIVES, keys=keys) == pytest.approx(expected, rel=1e-14, abs=0)


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        # Scores 1, 0 | 1, 1 and 0, 2 | 2, 2.
        ([[1, 2], [3, 4], [3, 4]], (math.log(2 + math.exp(-1)) + math.log(2 + math.exp(-2))) / 2),
        ([[1, 2], [3, 4], [4, 3]], (math.log(2 + math.exp(-1)) + math.log(2 + math.exp(-2))) / 2),
        ([[1, 2], [3, 4], [3, 3]], (math.log(1 + math.exp(-1)) + math.log(3 + math.exp(-2))) / 2),
        ([[1, 2], [3, 3], [3, 3]], 0.0),
        ([[1, 1], [3, 4], [5, 6]], math.log(3)),
        ([[1, 1], [3, 4], [4, 3]], 0.0),  # each query text has both passages, whichever row they stand in
        ([[1, 2], [3, 4], [5, 5]], (math.log(3 + math.exp(-1)) + math.log(3 + math.exp(-2))) / 2),
    ],
)
def test_no_hard_negative_is_a_known_positive(keys, expected):
    assert loss(QUERIES, POSITIVES, NEGATIVES, keys=keys) == pytest.approx(expected, rel=1e-14, abs=0)


@pytest.mark.parametrize("temperature", [1.0, 0.3])
@pytest.mark.parametrize("columns", [2, 3, 4])
def test_is_cross_entropy_where_nothing_occurs_twice(columns, temperature):
    embeddings = random_columns(columns)
    scores = embeddings[0] @ torch.cat(list(embeddings[1:])).T / temperature
    expected = functional.cross_entropy(scores, torch.arange(6)).item()
    keys = torch.arange(6 * columns).view(columns, 6).tolist()
    assert loss(*embeddings.tolist(), keys=keys, temperature=temperature) == pytest.approx(
        expected, rel=1e-13
    )
    assert loss(*embeddings.tolist(), temperature=temperature) == pytest.approx(expected, rel=1e-13)


@pytest.mark.parametrize("in_batch", [True, False])
@pytest.mark.parametrize("seed", range(8))
def test_equals_an_independent_implementation(seed, in_batch):
    columns, keys, _, _ = random_batch(seed, positions=1 + seed % 3)
    for given in (None, keys):
        expected = infonce(columns, given, 0.7, in_batch)
        found = loss(*columns, keys=given, temperature=0.7, in_batch_negatives=in_batch)
        assert found == pytest.approx(expected, rel=1e-12, abs=1e-15)


def test_duplicates_matter():
    """The random batches above tell losses with and without keys apart."""
    found = [[infonce(*random_batch(seed)[:2]), infonce(random_batch(seed)[0])] for seed in range(8)]
    assert all(with_keys < without for with_keys, without in found)


@pytest.mark.parametrize("in_batch", [True, False])
@pytest.mark.parametrize("with_keys", [True, False])
def test_the_gradient_is_that_of_the_formula(in_batch, with_keys):
    columns, keys, _, _ = random_batch(11, queries=3, size=4)
    keys = [torch.tensor(column) for column in keys] if with_keys else None
    embeddings = [torch.tensor(column, dtype=torch.float64, requires_grad=True) for column in columns]
    ranking = InfoNCELoss(0.5, in_batch_negatives=in_batch)
    assert torch.autograd.gradcheck(
        lambda *given: ranking.compute_loss_from_embeddings(given, keys=keys), embeddings
    )


def test_masked_documents_get_no_gradient():
    queries, positives, negatives = random_columns(3, queries=3).requires_grad_()
    negatives = negatives.detach().clone().requires_grad_()
    keys = [torch.tensor([1, 2, 3]), torch.tensor([4, 4, 4]), torch.tensor([4, 5, 4])]
    InfoNCELoss().compute_loss_from_embeddings([queries, positives, negatives], keys=keys).backward()
    assert [bool(row.any()) for row in negatives.grad] == [False, True, False]
    assert bool(negatives.grad.isfinite().all())


def test_documents_of_others_get_no_gradient_without_in_batch_negatives():
    columns = [column.clone().requires_grad_() for column in random_columns(3, queries=2)]
    ranking = InfoNCELoss(in_batch_negatives=False)
    embeddings = [torch.cat([column[:1], column[1:].detach()]) for column in columns]
    ranking.compute_loss_from_embeddings(embeddings).backward()
    alone = [column.detach()[:1].clone().requires_grad_() for column in columns]
    (ranking.compute_loss_from_embeddings(alone) / 2).backward()
    for column, single in zip(columns, alone, strict=True):
        torch.testing.assert_close(column.grad[:1], single.grad, rtol=1e-13, atol=0)
        assert not column.grad[1:].any()


@pytest.mark.parametrize("in_batch", [True, False])
def test_one_query_with_one_document(in_batch):
    given = [torch.tensor([[1.0, 2.0]], requires_grad=True) for _ in range(2)]
    value = InfoNCELoss(in_batch_negatives=in_batch).compute_loss_from_embeddings(given)
    value.backward()
    assert value.item() == 0  # nothing to learn
    assert not any(column.grad.any() for column in given)
    assert loss([[1.0, 2.0]], [[3.0, 0.0]], keys=[[1], [1]], in_batch_negatives=in_batch) == 0.0
    expected = pytest.approx(math.log(2))
    assert loss([[1.0]], [[3.0]], [[3.0]], keys=[[1], [2], [3]], in_batch_negatives=in_batch) == expected


def test_empty_vectors_have_a_loss():
    zeros = [torch.zeros(2, 3, requires_grad=True) for _ in range(3)]
    value = InfoNCELoss().compute_loss_from_embeddings(zeros)
    value.backward()
    assert value.item() == pytest.approx(math.log(4))
    assert all(column.grad.isfinite().all() for column in zeros)


@pytest.mark.parametrize("temperature", [0, -1.0, math.nan])
def test_refuses_a_temperature_that_makes_no_sense(temperature):
    with pytest.raises(InputError) as refused:
        InfoNCELoss(temperature)
    assert str(refused.value) == f"temperature must be positive, not {temperature}"


@pytest.mark.parametrize("in_batch", [True, False])
@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ([QUERIES], "a ranking loss needs queries and documents, but the batch has one column only"),
        (
            [QUERIES, POSITIVES, NEGATIVES[:1]],
            "every query needs the same number of documents, but the columns have [2, 2, 1] rows",
        ),
        (
            [QUERIES[:1], POSITIVES],
            "every query needs the same number of documents, but the columns have [1, 2] rows",
        ),
    ],
)
def test_refuses_columns_that_do_not_fit(columns, message, in_batch):
    with pytest.raises(InputError) as refused:
        loss(*columns, in_batch_negatives=in_batch)
    assert str(refused.value) == message


def test_says_what_it_is():
    assert InfoNCELoss(0.05).get_config_dict() == {"temperature": 0.05, "in_batch_negatives": True}
    assert "1807.03748" in InfoNCELoss().citation
    assert InfoNCELoss().citation.count("{") == InfoNCELoss().citation.count("}")


def test_random_choices_cover_duplicates():
    """Equal queries, shared positives and negatives that are positives all occur in the random batches."""
    seen = set()
    for seed in range(8):
        _, keys, _, _ = random_batch(seed)
        queries, positives, negatives = keys
        seen |= {
            "query" if len(set(queries)) < len(queries) else "",
            "positive" if len(set(positives)) < len(positives) else "",
            "negative" if set(negatives) & set(positives) else "",
        }
    assert {"query", "positive", "negative"} <= seen
