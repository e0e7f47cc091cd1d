"""What `SparseRetrievalLoss` tells the log about the batches since the last time."""

import pytest
import torch
from given import NEGATIVES, POSITIVES, QUERIES, Given, batch, column

from st_l0.losses import FlopsLoss, InfoNCELoss, L1Loss, SparseRetrievalLoss

ONE = [column([[1.0, 1.0, 1.0]], [1]), column([[0.0, 0.0, 5.0]], [2])]


def build(weight=1.0, **options):
    return SparseRetrievalLoss(Given(), InfoNCELoss(), FlopsLoss(), weight, **options)


def test_by_hand():
    loss = build(8.0, ramp_steps=4)
    loss(batch())
    # Queries use each of the first two dims in 1 of 2; documents have 2, 1, 2, 3 active dims, and use
    # these dims in 3 of 4. In order 1, 2, 2, 3: 95 % of the way is .85 behind the third.
    assert loss.pop_statistics() == {
        "query_active_dims": 1.0,
        "document_active_dims": 2.0,
        "document_active_dims_p95": 2.85,
        "flops": 0.5 * 0.75 + 0.5 * 0.75,
        "document_regularizer_weight": 0.5,
    }


def test_flops_is_the_mean_number_of_shared_tokens():
    loss = build()
    loss(batch())
    shared = [
        sum(a * b != 0 for a, b in zip(query, document, strict=True))
        for query in QUERIES
        for document in [*POSITIVES, *NEGATIVES]
    ]
    assert shared == [1, 0, 1, 1, 0, 1, 1, 1]
    assert loss.pop_statistics()["flops"] == sum(shared) / 8


def test_over_the_batches_since_the_last_time():
    loss = build()
    loss(batch())
    loss(ONE)
    statistics = loss.pop_statistics()
    # Active dims are over texts, FLOPS over batches.
    assert statistics["query_active_dims"] == round((1 + 1 + 3) / 3, 4)
    assert statistics["document_active_dims"] == (2 + 1 + 2 + 3 + 1) / 5
    assert statistics["document_active_dims_p95"] == 2 + 0.8  # 1, 1, 2, 2, 3
    assert statistics["flops"] == (0.75 + 1) / 2
    assert loss.pop_statistics() == {}
    loss(ONE)
    assert loss.pop_statistics()["document_active_dims"] == 1.0


def test_batches_that_are_not_watched_count_nothing():
    loss = build()
    loss.log_statistics = False
    loss(batch())
    assert loss.pop_statistics() == {}
    loss(batch())
    loss.log_statistics = True
    loss(ONE)
    loss.log_statistics = False
    loss(batch())
    assert loss.pop_statistics() == {
        "query_active_dims": 3.0,
        "document_active_dims": 1.0,
        "document_active_dims_p95": 1.0,
        "flops": 1.0,
        "document_regularizer_weight": 1.0,
    }


def test_being_watched_changes_no_loss():
    log_statistics, other = build(), build()
    other.log_statistics = False
    found = [{name: part.item() for name, part in loss(batch()).items()} for loss in (log_statistics, other)]
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("document", "query", "expected"),
    [
        (0.5, 0.25, {"document_regularizer_weight": 0.5, "query_regularizer_weight": 0.25}),
        (0.5, 0.0, {"document_regularizer_weight": 0.5}),
        (0.0, 0.25, {"query_regularizer_weight": 0.25}),
        (0.0, 0.0, {}),
    ],
)
def test_the_weights_are_told_where_there_are_any(document, query, expected):
    loss = build(document, query_regularizer=L1Loss(), query_regularizer_weight=query)
    loss(ONE)
    statistics = loss.pop_statistics()
    assert {name: value for name, value in statistics.items() if name.endswith("weight")} == expected


def test_no_graph_is_held():
    loss = build()
    vectors = torch.tensor(POSITIVES, requires_grad=True)
    loss([column(vectors, [1, 2]), column(vectors, [3, 4])])
    held = [*loss._flops, *(counts for side in loss._active.values() for counts in side)]
    assert len(held) == 3
    assert not any(value.requires_grad for value in held)
