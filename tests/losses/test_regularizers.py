"""FLOPS and l1: which weights are penalised, and by how much."""

import math
import random

import pytest
import torch
from independent import random_rows, regularizer

from st_l0.errors import InputError
from st_l0.losses import DocumentFrequencyWeights, FlopsLoss, L1Loss

# Two positives, then two negatives; 2, 1, 2 and 1 active dims.
DOCUMENTS = [[2.0, 0.0, 1.0], [0.0, 0.0, 1.0], [0.0, 4.0, 1.0], [0.0, 0.0, 1.0]]
POWERS = {FlopsLoss: 2, L1Loss: 1}
LOSSES = pytest.mark.parametrize("kind", [FlopsLoss, L1Loss])


def penalty(loss, rows, dtype=torch.float64):
    return loss.compute_loss_from_embeddings(torch.tensor(rows, dtype=dtype)).item()


def gradient(loss, rows):
    embeddings = torch.tensor(rows, dtype=torch.float64, requires_grad=True)
    loss.compute_loss_from_embeddings(embeddings).backward()
    return embeddings.grad


@pytest.mark.parametrize(
    ("threshold", "positions", "expected"),
    [
        (None, 1, 0.5**2 + 1**2 + 1**2),  # column sums 2, 4, 4 over four documents
        (None, 2, (1**2 + 0 + 1**2) + (0 + 2**2 + 1**2)),  # sums 2, 0, 2 and 0, 4, 2 over two documents each
        (1, 1, 0.5**2 + 1**2 + 0.5**2),  # documents of exactly one active dim are free, but counted
        (1, 2, (1**2 + 0 + 0.5**2) + (0 + 2**2 + 0.5**2)),
        (2, 1, 0.0),
        (0, 1, 0.5**2 + 1**2 + 1**2),
    ],
)
def test_flops_by_hand(threshold, positions, expected):
    assert penalty(FlopsLoss(threshold=threshold, positions=positions), DOCUMENTS) == expected


@pytest.mark.parametrize(
    ("threshold", "positions", "expected"),
    [
        (None, 1, 0.5 + 1 + 1),
        (None, 2, (1 + 0 + 1) + (0 + 2 + 1)),
        (1, 1, 0.5 + 1 + 0.5),
        (1, 2, (1 + 0 + 0.5) + (0 + 2 + 0.5)),
        (2, 1, 0.0),
    ],
)
def test_l1_by_hand(threshold, positions, expected):
    assert penalty(L1Loss(threshold=threshold, positions=positions), DOCUMENTS) == expected


def test_l1_is_the_mean_norm():
    rows = random_rows(random.Random(1), 7, 9)
    assert penalty(L1Loss(), rows) == pytest.approx(sum(map(sum, rows)) / 7, rel=1e-14)


@pytest.mark.parametrize(
    ("top_k", "flops", "l1"),
    [
        (0, 0.5**2 + 1**2 + 1**2, 2.5),
        (1, 0.5**2, 0.5),  # 2, 1, 4 and 1 are free: two ones of the last column are left
        (2, 0.0, 0.0),
        (3, 0.0, 0.0),
        (99, 0.0, 0.0),  # more than there are tokens
    ],
)
def test_the_largest_weights_are_free(top_k, flops, l1):
    assert penalty(FlopsLoss(top_k=top_k), DOCUMENTS) == flops
    assert penalty(L1Loss(top_k=top_k), DOCUMENTS) == l1


def test_mask_and_free_weights_together():
    # Documents of one active dim are free, and of the others the largest weight: 1 of 4 is left twice.
    assert penalty(FlopsLoss(threshold=1, top_k=1), DOCUMENTS) == 0.5**2
    assert penalty(FlopsLoss(threshold=1, top_k=1, positions=2), DOCUMENTS) == 0.5**2 + 0.5**2


@pytest.mark.parametrize("logs", [0, 1, 2, 3])
def test_logs_are_taken_before_the_mean(logs):
    def towers(height):  # towers(k) has the k-fold log1p 1
        return 1.0 if height == 0 else math.expm1(towers(height - 1))

    high = towers(logs)  # 1, 1.7, 4.6, 94
    rows = [[high, 0.0], [high, high], [0.0, 0.0], [0.0, 0.0]]
    assert penalty(FlopsLoss(extra_logs=logs), rows) == pytest.approx(0.5**2 + 0.25**2, rel=1e-14)
    assert penalty(L1Loss(extra_logs=logs), rows) == pytest.approx(0.75, rel=1e-14)


def test_token_weights_by_hand():
    factors = torch.tensor([2.0, 0.0, 3.0], dtype=torch.float64)
    assert penalty(FlopsLoss(token_weights=factors), DOCUMENTS) == (2 * 0.5) ** 2 + 3**2
    assert penalty(L1Loss(token_weights=factors), DOCUMENTS) == 2 * 0.5 + 3
    with_positions = FlopsLoss(token_weights=factors, positions=2)
    assert penalty(with_positions, DOCUMENTS) == (2**2 + 3**2) + 3**2


def test_document_frequency_weights_by_hand():
    # Shares 1/4, 1/4 and 1: factors 1/2, 1/2 and 1.
    frequency = DocumentFrequencyWeights(3, alpha=0.25)
    assert penalty(FlopsLoss(token_weights=frequency), DOCUMENTS) == pytest.approx(0.25**2 + 0.5**2 + 1)
    # The mask takes documents out of the penalty, not out of the frequencies.
    frequency = DocumentFrequencyWeights(3, alpha=0.25)
    assert penalty(FlopsLoss(threshold=1, token_weights=frequency), DOCUMENTS) == pytest.approx(
        0.25**2 + 0.5**2 + 0.5**2
    )


@LOSSES
def test_masked_documents_count_in_the_mean(kind):
    dense, sparse, power = [3.0, 3.0], [3.0, 0.0], POWERS[kind]
    assert penalty(kind(threshold=1), [dense]) == 2 * 3**power
    assert penalty(kind(threshold=1), [dense, sparse]) == 2 * 1.5**power
    assert penalty(kind(threshold=1), [dense, sparse, sparse]) == 2.0


@LOSSES
def test_negative_activations_weigh_as_much_as_positive_ones(kind):
    mirrored = [[-2.0, 0.0, 1.0], *DOCUMENTS[1:]]
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        for options in ({"threshold": 1}, {"top_k": 1}, {"extra_logs": 2}):
            loss = kind(**options)
            assert penalty(loss, mirrored, dtype) == penalty(loss, DOCUMENTS, dtype) > 0


@LOSSES
def test_of_equal_weights_no_more_are_free(kind):
    assert penalty(kind(top_k=1), [[1.0, 1.0, 1.0]]) == 2
    assert penalty(kind(top_k=2), [[0.0, 1.0, 1.0]]) == 0


OPTIONS = [
    {},
    {"threshold": 0},
    {"threshold": 5},
    {"threshold": 40},
    {"top_k": 3},
    {"extra_logs": 1},
    {"extra_logs": 2},
    {"extra_logs": 3},
    {"factors": True},
    {"threshold": 5, "top_k": 2, "extra_logs": 1, "factors": True},
]


@LOSSES
@pytest.mark.parametrize("positions", [1, 2, 5])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_equals_an_independent_implementation(kind, options, positions):
    draw = random.Random(positions)
    rows = [[draw.gauss(0, 1) if draw.random() < 0.4 else 0.0 for _ in range(14)] for _ in range(20)]
    settings = dict(options)
    factors = [draw.uniform(0, 3) for _ in range(14)] if settings.pop("factors", None) else None
    expected = regularizer(rows, POWERS[kind], factors=factors, positions=positions, **settings)
    if factors is not None:
        settings["token_weights"] = torch.tensor(factors, dtype=torch.float64)
    assert penalty(kind(positions=positions, **settings), rows) == pytest.approx(expected, rel=1e-13, abs=0)
    assert (expected == 0) == (options == {"threshold": 40})


def test_the_gradient_by_hand():
    # d/dw (mean)^2 = 2 * mean / documents, for the documents that are not free.
    assert gradient(FlopsLoss(threshold=1), DOCUMENTS).tolist() == [
        [0.25, 0, 0.25],
        [0, 0, 0],
        [0, 0.5, 0.25],
        [0] * 3,
    ]
    assert gradient(L1Loss(threshold=1), DOCUMENTS).tolist() == [
        [0.25, 0, 0.25],
        [0, 0, 0],
        [0, 0.25, 0.25],
        [0] * 3,
    ]
    # Free: the largest weight of each document. The means of the others are 0, 0, 1/2.
    assert gradient(FlopsLoss(top_k=1), DOCUMENTS).tolist() == [[0, 0, 0.25], [0] * 3, [0, 0, 0.25], [0] * 3]
    factors = torch.tensor([2.0, 0.0, 3.0])  # c^2 times the plain gradient
    assert gradient(FlopsLoss(token_weights=factors), DOCUMENTS).tolist() == [
        [4 * 0.25, 0, 9 * 0.5],
        [0, 0, 9 * 0.5],
        [0, 0, 9 * 0.5],
        [0, 0, 9 * 0.5],
    ]
    # d log(1 + w) = dw / (1 + w), with w = 1: the mean of the last column is log 2.
    logs = gradient(FlopsLoss(extra_logs=1), DOCUMENTS)[:, 2]
    assert logs.tolist() == pytest.approx([2 * math.log(2) / 4 / 2] * 4, rel=1e-14)
    assert gradient(L1Loss(), [[-1.0, 0.0, 2.0]]).tolist() == [[-1, 0, 1]]


@LOSSES
@pytest.mark.parametrize("positions", [1, 2])
@pytest.mark.parametrize("options", [*OPTIONS, {"frequency": True}], ids=str)
def test_the_gradient_is_that_of_the_formula(kind, options, positions):
    """Checked against differences where a weight is not 0; there, and on free ones, exactly 0."""
    draw = random.Random(3)
    rows = torch.tensor(random_rows(draw, 8, 9, density=0.6), dtype=torch.float64)
    active = rows != 0
    settings = dict(options)
    if settings.pop("factors", None):
        settings["token_weights"] = torch.tensor([draw.uniform(0.5, 3) for _ in range(9)])
    if settings.pop("frequency", None):
        settings["token_weights"] = DocumentFrequencyWeights(9, alpha=0.5)
    loss = kind(positions=positions, **settings)
    loss.compute_loss_from_embeddings(rows)  # estimates the frequencies
    loss.eval()

    start = rows[active].clone().requires_grad_()
    assert torch.autograd.gradcheck(
        lambda values: loss.compute_loss_from_embeddings(
            torch.zeros_like(rows).masked_scatter(active, values)
        ),
        start,
    )
    found = gradient(loss, rows.tolist())
    due = active.clone()
    if "threshold" in options:
        due &= (active.sum(1, keepdim=True) > options["threshold"]).expand_as(due)
    if "top_k" in options:
        due &= rows < rows.sort(1, descending=True).values[:, options["top_k"] - 1, None]
    assert torch.equal(found != 0, due)
    assert due.any() == (options.get("threshold", 0) < 9)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threshold": -1}, "threshold must be 0 or more active dims, not -1"),
        ({"threshold": math.nan}, "threshold must be 0 or more active dims, not nan"),
        ({"top_k": -2}, "top_k must be 0 or more dims, not -2"),
        ({"extra_logs": -1}, "extra_logs must be 0 or more, not -1"),
        ({"positions": 0}, "positions must be 1 or more, not 0"),
        ({"positions": -3}, "positions must be 1 or more, not -3"),
        *(
            (
                {"token_weights": torch.tensor([1.0, bad])},
                f"token_weights must be finite and 0 or more, but that of token 1 is {bad}",
            )
            for bad in (-0.5, math.nan, math.inf)
        ),
    ],
)
@LOSSES
def test_refuses_what_makes_no_sense(kind, options, message):
    with pytest.raises(InputError) as refused:
        kind(**options)
    assert str(refused.value) == message


@LOSSES
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"positions": 2}, "5 documents cannot be cut into 2 equal positions"),
        ({"token_weights": torch.ones(4)}, "token_weights of 4 tokens do not fit vectors of 3"),
        (
            {"token_weights": DocumentFrequencyWeights(4)},
            "document frequencies of 4 tokens do not fit vectors of 3",
        ),
    ],
)
def test_refuses_a_batch_that_does_not_fit(kind, options, message):
    with pytest.raises(InputError) as refused:
        penalty(kind(**options), [[1.0, 1.0, 1.0]] * 5)
    assert str(refused.value) == message


def test_token_weights_go_with_the_module_but_into_no_checkpoint():
    loss = FlopsLoss(token_weights=torch.ones(3))
    assert loss.to(torch.float64).token_weights.dtype == torch.float64
    assert loss.state_dict() == {}
    frequencies = FlopsLoss(token_weights=DocumentFrequencyWeights(3)).state_dict()
    assert "document_frequency.weights" in frequencies


@LOSSES
def test_says_what_it_is(kind):
    loss = kind(threshold=200, positions=2, top_k=7, extra_logs=1)
    assert loss.get_config_dict() == {
        "threshold": 200,
        "top_k": 7,
        "extra_logs": 1,
        "token_weights": None,
        "positions": 2,
    }
    assert kind(token_weights=torch.ones(2)).get_config_dict()["token_weights"] == "fixed"
    frequency = kind(token_weights=DocumentFrequencyWeights(2, refresh_steps=7)).get_config_dict()
    assert frequency["token_weights"] == "document frequency (alpha 0.1, beta 10.0, every 7 batches)"
    assert "2504.14839" in loss.citation
    assert loss.citation.count("{") == loss.citation.count("}")


@LOSSES
def test_cites_the_papers_of_what_it_does(kind):
    own = {FlopsLoss: "2004.05665", L1Loss: "10.1145/3269206.3271800"}[kind]
    papers = {"2504.14839", "2411.04403", "2505.15070"}
    for options, used in (
        ({}, set()),
        ({"top_k": 3}, set()),
        ({"threshold": 0}, {"2504.14839"}),
        ({"extra_logs": 1}, {"2504.14839"}),
        ({"token_weights": torch.ones(2)}, {"2411.04403"}),
        ({"threshold": 1, "token_weights": DocumentFrequencyWeights(2)}, {"2504.14839", "2505.15070"}),
    ):
        citation = kind(**options).citation
        assert own in citation
        assert {paper for paper in papers if paper in citation} == used
        assert citation.count("{") == citation.count("}")


@LOSSES
def test_options_have_names(kind):
    """Not ``FlopsLoss(200)``: that is `L0MaskFlopsLoss`, or in stock a loss of the model 200."""
    with pytest.raises(TypeError):
        kind(200)
