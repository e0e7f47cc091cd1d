import math

import pytest
import torch
from torch import nn

from st_l0.errors import InputError
from st_l0.losses import InfoNCELoss, L0MaskFlopsLoss, SparseRetrievalLoss


class Given(nn.Module):
    """An encoder that gives the vectors that stand in the features."""

    def forward(self, features):
        return {"sentence_embedding": features["vectors"]}


def column(vectors, texts):
    """One column of a batch; ``texts`` are token ids, one token a text."""
    ids = torch.tensor(texts)[:, None]
    vectors = torch.tensor(vectors, dtype=torch.float64) if isinstance(vectors, list) else vectors
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "vectors": vectors}


def build(weight=1.0, *, threshold=None, positions=1, ramp_steps=0):
    regularizer = L0MaskFlopsLoss(threshold, positions=positions)
    return SparseRetrievalLoss(Given(), InfoNCELoss(), regularizer, weight, ramp_steps=ramp_steps)


QUERIES = [[1.0, 0.0, 0.0], [0.0, 2.0, 0.0]]
POSITIVES = [[1.0, 0.0, 3.0], [0.0, 1.0, 0.0]]
NEGATIVES = [[1.0, 1.0, 0.0], [1.0, 1.0, 1.0]]


def batch(positive_texts=(3, 4), negative_texts=(5, 6)):
    return [
        column(QUERIES, [1, 2]),
        column(POSITIVES, positive_texts),
        column(NEGATIVES, negative_texts),
    ]


def test_parts_by_hand():
    parts = build(0.5)(batch())
    assert list(parts) == ["ranking_loss", "document_regularizer_loss"]
    # Scores 1, 0, 1, 1 and 0, 2, 2, 2.
    expected = (math.log(3 + math.exp(-1)) + math.log(3 + math.exp(-2))) / 2
    assert parts["ranking_loss"].item() == pytest.approx(expected, rel=1e-14)
    # Sums 3, 3, 4 over four documents; queries take no part.
    assert parts["document_regularizer_loss"].item() == 0.5 * (9 + 9 + 16) / 16


def test_positions_are_the_document_columns():
    # Positives 1, 1, 3 and negatives 2, 2, 1 over two documents each.
    parts = build(2.0, positions=2)(batch())
    assert parts["document_regularizer_loss"].item() == 2 * ((1 + 1 + 9) + (4 + 4 + 1)) / 4


def test_equal_texts_are_found_by_their_tokens():
    assert build()(batch((3, 3), (3, 3)))["ranking_loss"].item() == 0.0
    # The first negative reads like the first positive, the second like the second.
    expected = (math.log(2 + math.exp(-1)) + math.log(2 + math.exp(-2))) / 2
    assert build()(batch((3, 4), (3, 4)))["ranking_loss"].item() == pytest.approx(expected, rel=1e-14)


def test_the_ramp_is_quadratic():
    loss = build(8.0, ramp_steps=4)
    weights = [loss.document_regularizer_weight]  # before the first step, as in the first step
    for step in range(7):
        loss.set_step(step)
        weights.append(loss.document_regularizer_weight)
    assert weights == [0.5, 0.5, 2.0, 4.5, 8.0, 8.0, 8.0, 8.0]
    loss.set_step(0)  # a resumed run sets any step
    assert loss.document_regularizer_weight == 0.5


@pytest.mark.parametrize("steps", [1, 3, 10_000])
def test_the_ramp_ends_at_the_peak(steps):
    loss = build(0.04, ramp_steps=steps)
    loss.set_step(steps - 1)
    assert loss.document_regularizer_weight == 0.04


def test_no_ramp_is_the_peak_at_once():
    loss = build(8.0)
    loss.set_step(0)
    assert loss.document_regularizer_weight == 8.0


def test_the_ramp_weighs_loss_and_gradient():
    values, gradients = [], []
    loss = build(8.0, ramp_steps=4)
    for step in (0, 3):
        loss.set_step(step)
        documents = torch.tensor(POSITIVES, requires_grad=True)
        features = [column(torch.tensor(QUERIES), [1, 2]), column(documents, [3, 4])]
        part = loss(features)["document_regularizer_loss"]
        part.backward()
        values.append(part.item())
        gradients.append(documents.grad)
    assert values[1] == 16 * values[0] > 0
    assert torch.equal(gradients[1], 16 * gradients[0])


def test_statistics_by_hand():
    loss = build(8.0, ramp_steps=4)
    loss(batch())
    # Queries use each of the first two dims in 1 of 2; documents have 2, 1, 2, 3 active dims, and use
    # these dims in 3 of 4.
    assert loss.pop_statistics() == {
        "query_active_dims": 1.0,
        "document_active_dims": 2.0,
        "flops": 0.5 * 0.75 + 0.5 * 0.75,
        "document_regularizer_weight": 0.5,
    }


def test_statistics_are_means_over_the_batches_since_the_last_time():
    loss = build()
    loss(batch())
    loss([column([[1.0, 1.0, 1.0]], [1]), column([[0.0, 0.0, 5.0]], [2])])
    statistics = loss.pop_statistics()
    assert statistics["query_active_dims"] == (1 + 3) / 2
    assert statistics["document_active_dims"] == (2 + 1) / 2
    assert statistics["flops"] == (0.75 + 1) / 2
    assert loss.pop_statistics() == {}
    loss([column([[1.0, 1.0, 1.0]], [1]), column([[0.0, 0.0, 5.0]], [2])])
    assert loss.pop_statistics()["document_active_dims"] == 1.0


def test_statistics_hold_no_graph():
    loss = build()
    vectors = torch.tensor(POSITIVES, requires_grad=True)
    loss([column(vectors, [1, 2]), column(vectors, [3, 4])])
    assert not any(value.requires_grad for value in loss._statistics.values())


def test_with_an_encoder(tiny_encoder):
    model = tiny_encoder().eval()
    texts = ["snow", "old ship"], ["the snow in the city", "a ship on the river"], ["a red dog", "bird ."]
    features = [
        model.preprocess(list(part), task="query" if index == 0 else "document")
        for index, part in enumerate(texts)
    ]
    loss = SparseRetrievalLoss(model, InfoNCELoss(5.0), L0MaskFlopsLoss(3), 0.1)
    parts = loss(features)
    sum(parts.values()).backward()
    documents = model.encode_document([*texts[1], *texts[2]]).to_dense()
    queries = model.encode_query(list(texts[0])).to_dense()
    penalty = L0MaskFlopsLoss(3).compute_loss_from_embeddings(documents).item()
    scores = queries @ documents.T / 5
    ranking = nn.functional.cross_entropy(scores, torch.arange(2)).item()
    assert parts["document_regularizer_loss"].item() == pytest.approx(0.1 * penalty, rel=1e-5)
    assert parts["ranking_loss"].item() == pytest.approx(ranking, rel=1e-4)
    active = (documents != 0).sum(1).float().mean().item()
    assert loss.pop_statistics()["document_active_dims"] == pytest.approx(active, abs=1e-4)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in trained)


@pytest.mark.parametrize("weight", [-0.1, math.nan])
def test_refuses_a_weight_that_makes_no_sense(weight):
    with pytest.raises(InputError, match=r"^document_regularizer_weight must be 0 or more, not "):
        build(weight)


def test_refuses_a_negative_ramp():
    with pytest.raises(InputError, match=r"^ramp_steps must be 0 or more, not -1$"):
        build(ramp_steps=-1)


def test_says_what_it_is():
    loss = build(0.04, ramp_steps=10)
    config = loss.get_config_dict()
    assert config["document_regularizer_weight"] == 0.04  # the peak, wherever the ramp stands
    assert config["ramp_steps"] == 10
    assert "1807.03748" in loss.citation
    assert "2504.14839" in loss.citation
