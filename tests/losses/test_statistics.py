"""What `SparseRetrievalLoss` tells the log about the batches since the last time."""

import math
import weakref

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
        "empty_documents": 0.0,
        "tokens_in_every_document": 0,
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
        "empty_documents": 0.0,
        "tokens_in_every_document": 1,
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


def test_empty_documents_and_tokens_that_all_have():
    loss = build()
    loss(
        [
            column([[1.0, 1.0, 0.0]] * 4, [1, 2, 3, 4]),
            column([[1.0, 2.0, 0.0]] * 3 + [[0.0] * 3], [5, 6, 7, 8]),
        ]
    )
    found = loss.pop_statistics()
    assert (found["empty_documents"], found["tokens_in_every_document"]) == (0.25, 0)
    loss([column([[1.0, 1.0, 0.0]], [1]), column([[1.0, 2.0, 0.0]], [5])])
    assert loss.pop_statistics()["tokens_in_every_document"] == 2
    loss([column([[1.0, 1.0, 0.0]], [1]), column([[1.0, 2.0, 0.0]], [5])])
    loss([column([[1.0, 1.0, 0.0]], [1]), column([[0.0, 2.0, 0.0]], [5])])
    assert loss.pop_statistics()["tokens_in_every_document"] == 1  # of both batches


def test_how_hard_the_penalty_pulls_by_hand():
    # One query (1, 0) with documents (1, 1) and (0, 1): scores 1 and 0, so InfoNCE pushes them by -p and p
    # along the query, p = 1 / (1 + e). FLOPS: means (1/2, 1), gradient 2 * mean / 2 = (1/2, 1), and 0
    # where a weight is 0.
    vectors = [torch.tensor([row], requires_grad=True) for row in ([1.0, 0.0], [1.0, 1.0], [0.0, 1.0])]
    loss = build(3.0)
    terms = loss([column(vector, [text]) for text, vector in enumerate(vectors, 1)])
    p = 1 / (1 + math.e)
    expected = 3 * math.sqrt(0.25 + 1 + 1) / math.sqrt(2 * p**2)
    assert loss.pop_statistics()["penalty_to_ranking"] == pytest.approx(expected, abs=1e-4)
    sum(terms.values()).backward()  # the graph is still there, and no gradient was left behind
    assert torch.allclose(vectors[2].grad, torch.tensor([[p, 3.0]]))


def test_no_graph_is_held():
    vectors = torch.tensor(POSITIVES, requires_grad=True)
    loss = build()
    terms = loss([column(vectors, [1, 2]), column(vectors, [3, 4])])
    alive = weakref.ref(terms["document_regularizer_loss"])
    assert alive() is not None
    del terms
    assert alive() is None
