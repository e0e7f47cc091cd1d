"""The classes named for the published methods; the family that they share is in test_regularizers."""

import math
import random

import pytest
import torch
from independent import random_rows, regularizer

from st_l0.errors import InputError
from st_l0.losses import DFFlopsLoss, FlopsLoss, IDFFlopsLoss, L0ActivationFlopsLoss, L0MaskFlopsLoss

# 2, 1, 2 and 1 active dims; means 1/2, 1 and 1.
DOCUMENTS = [[2.0, 0.0, 1.0], [0.0, 0.0, 1.0], [0.0, 4.0, 1.0], [0.0, 0.0, 1.0]]
IDF = torch.tensor([2.0, 0.0, 0.5], dtype=torch.float64)
LOG2, LOG3, LOG5 = map(math.log, (2, 3, 5))
SIZE = 14


def penalty(loss, rows):
    return loss.compute_loss_from_embeddings(torch.tensor(rows, dtype=torch.float64)).item()


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        (FlopsLoss(), 0.5**2 + 1 + 1),
        (L0MaskFlopsLoss(0), 0.5**2 + 1 + 1),
        (L0MaskFlopsLoss(1), 0.5**2 + 1 + 0.5**2),  # documents of one active dim are free, but counted
        (L0MaskFlopsLoss(2), 0),
        (L0MaskFlopsLoss(1, positions=2), (1 + 0 + 0.5**2) + (0 + 2**2 + 0.5**2)),
        (L0ActivationFlopsLoss(), (LOG3 / 4) ** 2 + (LOG5 / 4) ** 2 + LOG2**2),
        (L0ActivationFlopsLoss(positions=2), (LOG3 / 2) ** 2 + (LOG5 / 2) ** 2 + 2 * LOG2**2),
        (IDFFlopsLoss(IDF), (0.5 / 2) ** 2 + 0 + (1 / 0.5) ** 2),  # without IDF without cost
        (IDFFlopsLoss(IDF, positions=2), ((1 / 2) ** 2 + 2**2) + 2**2),
        (DFFlopsLoss(3, alpha=0.25), (0.5 * 0.5) ** 2 + (0.5 * 1) ** 2 + 1),  # shares 1/4, 1/4 and 1
        (DFFlopsLoss(3, alpha=0.25, positions=2), (0.5**2 + 1) + (1 + 1)),
    ],
)
def test_by_hand(loss, expected):
    assert penalty(loss, DOCUMENTS) == pytest.approx(expected, rel=1e-14, abs=0)


def test_effective_weights_are_taken_back():
    """FLOPS of ``w`` where the documents hold ``u = idf * w``."""
    idf = torch.tensor([3.0, 1.0, 0.25], dtype=torch.float64)
    effective = (torch.tensor(DOCUMENTS, dtype=torch.float64) * idf).tolist()
    assert penalty(IDFFlopsLoss(idf), effective) == pytest.approx(0.5**2 + 1 + 1, rel=1e-14)


def test_document_frequencies_are_estimated_anew():
    loss = DFFlopsLoss(3, alpha=0.25, refresh_steps=2)
    first = (0.5 * 0.5) ** 2 + (0.5 * 1) ** 2 + 1
    rare = [[0.0, 0.0, 1.0], *[[0.0] * 3] * 3]
    assert penalty(loss, DOCUMENTS) == pytest.approx(first)
    assert penalty(loss, rare) == pytest.approx((1 / 4) ** 2)  # the factor 1 of the first batch
    assert penalty(loss, rare) == pytest.approx((0.5 / 4) ** 2)  # 2 of 8 documents since then


def factors_by_frequency(rows, alpha, beta):
    shares = [sum(row[token] != 0 for row in rows) / len(rows) for token in range(SIZE)]
    power = math.log(2) / math.log(alpha)
    return [1 / (1 + (share**power - 1) ** beta) if share else 0.0 for share in shares]


@pytest.mark.parametrize("positions", [1, 2, 5])
@pytest.mark.parametrize("density", [0.1, 0.4, 0.9])
def test_equals_an_independent_implementation(positions, density):
    rows = random_rows(random.Random(positions), 20, SIZE, density)
    idf = [0.0, *(random.Random(7).uniform(0.1, 9) for _ in range(SIZE - 1))]
    inverses = [1 / one if one else 0.0 for one in idf]
    idf_loss = IDFFlopsLoss(torch.tensor(idf, dtype=torch.float64), positions=positions)
    df_loss = DFFlopsLoss(SIZE, alpha=0.3, beta=3, positions=positions)
    for loss, settings, tolerance in (
        (L0MaskFlopsLoss(1, positions=positions), {"threshold": 1}, 1e-13),
        (L0ActivationFlopsLoss(2, positions=positions), {"extra_logs": 2}, 1e-13),
        (idf_loss, {"factors": inverses}, 1e-13),
        (df_loss, {"factors": factors_by_frequency(rows, 0.3, 3)}, 1e-6),  # the factors are float32
    ):
        expected = regularizer(rows, 2, positions=positions, **settings)
        assert penalty(loss, rows) == pytest.approx(expected, rel=tolerance, abs=0)
        assert expected > 0


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        # d/dw (mean)^2 = 2 * mean / 4 for what is penalised.
        (L0MaskFlopsLoss(1), [[0.25, 0, 0.25], [0, 0, 0], [0, 0.5, 0.25], [0, 0, 0]]),
        # The same by the chain rule: times 1 / (1 + w).
        (
            L0ActivationFlopsLoss(),
            [
                [LOG3 / 8 / 3, 0, LOG2 / 2 / 2],
                [0, 0, LOG2 / 2 / 2],
                [0, LOG5 / 8 / 5, LOG2 / 2 / 2],
                [0, 0, LOG2 / 2 / 2],
            ],
        ),
        # Times c^2, with c = 1 / idf, and with the factors 1/2, 1/2 and 1.
        (IDFFlopsLoss(IDF), [[0.25 / 4, 0, 2], [0, 0, 2], [0, 0, 2], [0, 0, 2]]),
        (
            DFFlopsLoss(3, alpha=0.25),
            [[0.25 / 4, 0, 0.5], [0, 0, 0.5], [0, 0.5 / 4, 0.5], [0, 0, 0.5]],
        ),
    ],
)
def test_the_gradient_by_hand(loss, expected):
    embeddings = torch.tensor(DOCUMENTS, dtype=torch.float64, requires_grad=True)
    loss.compute_loss_from_embeddings(embeddings).backward()
    for found, row in zip(embeddings.grad.tolist(), expected, strict=True):
        assert found == pytest.approx(row, rel=1e-12, abs=0)
    assert not list(loss.parameters())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: L0MaskFlopsLoss(-1), "threshold must be 0 or more active dims, not -1"),
        (
            lambda: L0MaskFlopsLoss(None),
            "threshold must be 0 or more active dims, not None: FlopsLoss penalises all",
        ),
        (lambda: L0MaskFlopsLoss(5, positions=0), "positions must be 1 or more, not 0"),
        (lambda: L0ActivationFlopsLoss(0), "extra_logs must be 1 or more, not 0; FlopsLoss takes none"),
        (lambda: L0ActivationFlopsLoss(-1), "extra_logs must be 1 or more, not -1; FlopsLoss takes none"),
        *(
            (
                lambda bad=bad: IDFFlopsLoss(torch.tensor([1.0, bad])),
                f"idf must be finite and 0 or more, but that of token 1 is {bad}",
            )
            for bad in (-0.5, math.nan, math.inf)
        ),
        (lambda: DFFlopsLoss(3, alpha=1), "alpha must be between 0 and 1, not 1"),
        (lambda: DFFlopsLoss(3, beta=0), "beta must be positive, not 0"),
        (lambda: DFFlopsLoss(3, refresh_steps=0), "refresh_steps must be 1 or more, not 0"),
        (
            lambda: penalty(IDFFlopsLoss(torch.ones(4)), DOCUMENTS),
            "token_weights of 4 tokens do not fit vectors of 3",
        ),
        (
            lambda: penalty(DFFlopsLoss(4), DOCUMENTS),
            "document frequencies of 4 tokens do not fit vectors of 3",
        ),
    ],
)
def test_refuses_what_makes_no_sense(make, message):
    with pytest.raises(InputError) as refused:
        make()
    assert str(refused.value) == message


@pytest.mark.parametrize(
    ("loss", "settings", "paper"),
    [
        (L0MaskFlopsLoss(200), {"threshold": 200, "positions": 1}, "2504.14839"),
        (L0ActivationFlopsLoss(2, positions=3), {"extra_logs": 2, "positions": 3}, "2504.14839"),
        (IDFFlopsLoss(IDF, positions=2), {"positions": 2}, "2411.04403"),
        (
            DFFlopsLoss(5, refresh_steps=7),
            {"alpha": 0.1, "beta": 10.0, "refresh_steps": 7, "positions": 1},
            "2505.15070",
        ),
    ],
)
def test_says_what_it_is(loss, settings, paper):
    assert loss.get_config_dict() == settings
    assert paper in loss.citation
    assert sum(one in loss.citation for one in ("2504.14839", "2411.04403", "2505.15070")) == 1
    assert loss.citation.count("{") == loss.citation.count("}")


def test_a_run_of_the_general_form_goes_on():
    """What a trainer saved of ``FlopsLoss(token_weights=DocumentFrequencyWeights(…))``."""
    assert list(DFFlopsLoss(3).state_dict()) == [
        "document_frequency.weights",
        "document_frequency.counts",
        "document_frequency.documents",
        "document_frequency._extra_state",
    ]
    assert IDFFlopsLoss(IDF).state_dict() == {}
