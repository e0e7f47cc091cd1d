"""Regularizers and ranking losses inside stock `SpladeLoss` and `CachedSpladeLoss`."""

import pytest
import torch
from independent import infonce, kl, margin_mse, regularizer
from sentence_transformers.sparse_encoder.losses import CachedSpladeLoss, SpladeLoss
from torch.nn import functional

from st_l0.losses import (
    DFFlopsLoss,
    DocumentFrequencyWeights,
    FlopsLoss,
    IDFFlopsLoss,
    InfoNCELoss,
    KLDivergenceLoss,
    L0ActivationFlopsLoss,
    L0MaskFlopsLoss,
    L1Loss,
    MarginMSELoss,
    WeightedRankingLoss,
)
from tiny_models import VOCABULARY

SIZE = len(VOCABULARY)
TEXTS = [
    ["snow on the mountain", "river stone", "cloud", "a red ship"],
    ["rain and snow on a mountain", "a stone in the river and the river", "cloud over stone", "the ship"],
    ["the cat sat", "a song", "old paper in the house of the city", "bread and milk, water and fire"],
]
SCORES = torch.tensor([[4.0, 1.0], [3.0, 2.5], [5.0, -1.0], [2.0, 2.0]])
FACTORS = torch.linspace(0, 2, SIZE)

REGULARIZERS = {
    "flops": lambda: (FlopsLoss(), 2, {}),
    "mask": lambda: (FlopsLoss(threshold=45), 2, {"threshold": 45}),
    "top-k": lambda: (FlopsLoss(top_k=9), 2, {"top_k": 9}),
    "decoupled": lambda: (FlopsLoss(extra_logs=1), 2, {"extra_logs": 1}),
    "positions": lambda: (FlopsLoss(positions=2), 2, {"positions": 2}),
    "weights": lambda: (FlopsLoss(token_weights=FACTORS), 2, {"factors": FACTORS.tolist()}),
    "frequency": lambda: (
        FlopsLoss(token_weights=DocumentFrequencyWeights(SIZE, alpha=0.3)),
        2,
        {"alpha": 0.3},
    ),
    "l0-mask": lambda: (L0MaskFlopsLoss(50), 2, {"threshold": 50}),
    "l0-activation": lambda: (L0ActivationFlopsLoss(2), 2, {"extra_logs": 2}),
    "idf": lambda: (IDFFlopsLoss(1 + FACTORS), 2, {"factors": (1 / (1 + FACTORS)).tolist()}),
    "df": lambda: (DFFlopsLoss(SIZE, alpha=0.2), 2, {"alpha": 0.2}),
    "l1": lambda: (L1Loss(), 1, {}),
    "l1-mask": lambda: (L1Loss(threshold=45), 1, {"threshold": 45}),
    "l1-top-k": lambda: (L1Loss(top_k=9), 1, {"top_k": 9}),
}
RANKINGS = {
    "infonce": lambda: (InfoNCELoss(9.0), lambda columns: infonce(columns, None, 9.0)),
    "infonce-own": lambda: (
        InfoNCELoss(9.0, in_batch_negatives=False),
        lambda columns: infonce(columns, None, 9.0, False),
    ),
    "kl": lambda: (KLDivergenceLoss(5.0), lambda columns: kl(columns, SCORES.tolist(), None, 5.0)),
    "kl-batch": lambda: (
        KLDivergenceLoss(5.0, in_batch_negatives=True),
        lambda columns: kl(columns, SCORES.tolist(), None, 5.0, True),
    ),
    "margins": lambda: (MarginMSELoss(), lambda columns: margin_mse(columns, SCORES.tolist())),
    "margins-batch": lambda: (
        MarginMSELoss(in_batch_negatives=True),
        lambda columns: margin_mse(columns, SCORES.tolist(), None, True),
    ),
}


def cached(*args, **kwargs):
    return CachedSpladeLoss(*args, mini_batch_size=2, **kwargs)


def features(model):
    return [
        model.preprocess(texts, task="document" if index else "query") for index, texts in enumerate(TEXTS)
    ]


def vectors(model):
    """Rows of each column, as plain numbers, by `encode`."""
    return [
        (model.encode_document if index else model.encode_query)(texts).to_dense().double().tolist()
        for index, texts in enumerate(TEXTS)
    ]


def run(model, loss):
    """Loss terms and the gradient of all parameters."""
    model.zero_grad()
    terms = loss(features(model), SCORES)
    sum(terms.values()).backward()
    grads = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
    return {name: term.item() for name, term in terms.items()}, torch.cat(grads).clone()


def assert_same(one, other):
    total = sum(one[0].values())
    assert sum(other[0].values()) == pytest.approx(total, rel=1e-6)
    # The cached loss puts the rounding of the sum on one of the terms.
    assert other[0] == pytest.approx(one[0], rel=1e-5, abs=1e-6 * total)
    assert one[1].norm() > 0
    assert (one[1] - other[1]).norm() < 1e-5 * one[1].norm()


@pytest.mark.parametrize("name", REGULARIZERS)
def test_regularizers_of_documents(tiny_encoder, name):
    model = tiny_encoder().eval()  # without dropout, so that two passes see the same vectors
    _, power, settings = REGULARIZERS[name]()
    found = [
        run(model, make(model, InfoNCELoss(9.0), 0.5, document_regularizer=REGULARIZERS[name]()[0]))
        for make in (SpladeLoss, cached)
    ]
    _, *documents = vectors(model)
    rows = [row for column in documents for row in column]
    if "alpha" in settings:
        frequency = DocumentFrequencyWeights(SIZE, **settings)
        settings = {"factors": frequency.observe(torch.tensor(rows) != 0).tolist()}
    expected = 0.5 * regularizer(rows, power, **settings)
    assert expected > 0
    assert found[0][0]["document_regularizer_loss"] == pytest.approx(expected, rel=1e-4)
    assert_same(*found)


def test_the_examples_above_differ(tiny_encoder):
    """A wrapper that lost an option would be seen."""
    _, *documents = vectors(tiny_encoder().eval())
    rows = torch.tensor([row for column in documents for row in column])
    values = {
        name: make()[0].compute_loss_from_embeddings(rows).item() for name, make in REGULARIZERS.items()
    }
    assert len({round(value, 3) for value in values.values()}) == len(values)
    active = (rows != 0).sum(1)
    assert 0 < (active > 45).sum() < len(rows)


@pytest.mark.parametrize("name", REGULARIZERS)
def test_regularizers_of_queries(tiny_encoder, name):
    model = tiny_encoder(idf=None).eval()  # queries run the model too
    _, power, settings = REGULARIZERS[name]()
    found = []
    for make in (SpladeLoss, cached):
        options = {"query_regularizer_weight": 0.7, "query_regularizer": REGULARIZERS[name]()[0]}
        found.append(run(model, make(model, InfoNCELoss(9.0), 0.5, document_regularizer=L1Loss(), **options)))
    rows = vectors(model)[0]
    if "alpha" not in settings:
        expected = 0.7 * regularizer(rows, power, **settings)
        assert found[0][0]["query_regularizer_loss"] == pytest.approx(expected, rel=1e-4)
    assert_same(*found)


def test_a_table_of_queries_can_be_penalised(tiny_encoder, idf_weights):
    """The queries of an inference-free encoder have a value, and no gradient to give."""
    model = tiny_encoder().eval()
    terms, _ = run(model, SpladeLoss(model, InfoNCELoss(9.0), 0.5, 0.7, L1Loss(), L1Loss()))
    expected = sum(sum(row) for row in vectors(model)[0]) / 4
    assert terms["query_regularizer_loss"] == pytest.approx(0.7 * expected, rel=1e-5)


def test_document_frequencies_count_each_batch_once(tiny_encoder):
    """The cached loss runs the model twice, and each time in pieces."""
    model = tiny_encoder().eval()
    for make in (SpladeLoss, cached):
        frequency = DocumentFrequencyWeights(SIZE, refresh_steps=10)
        loss = make(model, InfoNCELoss(9.0), 0.5, document_regularizer=FlopsLoss(token_weights=frequency))
        for _ in range(3):
            run(model, loss)
        assert frequency.documents == 2 * 8  # the first batch is in the estimate already
        assert frequency.get_extra_state() == 3


@pytest.mark.parametrize("name", RANKINGS)
def test_ranking_losses(tiny_encoder, name):
    model = tiny_encoder().eval()
    ranking, expected = RANKINGS[name]()
    found = [
        run(model, make(model, ranking, 0.001, document_regularizer=FlopsLoss()))
        for make in (SpladeLoss, cached)
    ]
    assert found[0][0]["base_loss"] == pytest.approx(expected(vectors(model)), rel=1e-4)
    assert found[0][0]["base_loss"] > 1e-3
    assert_same(*found)


def test_weighted_ranking_loss(tiny_encoder):
    model = tiny_encoder().eval()
    terms = {name.replace("-", "_"): (make()[0], 0.1 + i) for i, (name, make) in enumerate(RANKINGS.items())}
    found = [
        run(model, make(model, WeightedRankingLoss(terms), 0.001, document_regularizer=FlopsLoss()))
        for make in (SpladeLoss, cached)
    ]
    columns = vectors(model)
    for i, (name, make) in enumerate(RANKINGS.items()):
        expected = (0.1 + i) * make()[1](columns)
        assert found[0][0][f"{name.replace('-', '_')}_loss"] == pytest.approx(expected, rel=1e-4)
    assert_same(*found)


def test_complete_scores_in_stock(tiny_encoder):
    model = tiny_encoder().eval()
    columns = vectors(model)
    complete = torch.randn(4, 8, generator=torch.Generator().manual_seed(1)) * 3
    for ranking, expected in (
        (KLDivergenceLoss(5.0, in_batch_negatives=True), kl(columns, complete.tolist(), None, 5.0, True)),
        (MarginMSELoss(in_batch_negatives=True), margin_mse(columns, complete.tolist(), None, True)),
    ):
        for make in (SpladeLoss, cached):
            terms = make(model, ranking, 0.0)(features(model), complete)
            assert terms["base_loss"].item() == pytest.approx(expected, rel=1e-4)


def test_without_keys_is_cross_entropy(tiny_encoder):
    model = tiny_encoder().eval()
    queries, *documents = (torch.tensor(column) for column in vectors(model))
    scores = queries @ torch.cat(documents).T / 9
    expected = functional.cross_entropy(scores, torch.arange(4)).item()
    terms, _ = run(model, SpladeLoss(model, InfoNCELoss(9.0), 0.0))
    assert terms["base_loss"] == pytest.approx(expected, rel=1e-5)


def test_stock_describes_ours(tiny_encoder):
    config = SpladeLoss(
        tiny_encoder(), InfoNCELoss(), 0.5, document_regularizer=FlopsLoss(threshold=200)
    ).get_config_dict()
    assert config["document_regularizer_threshold"] == 200
    assert config["document_regularizer"] == "FlopsLoss"
    config = SpladeLoss(
        tiny_encoder(), InfoNCELoss(), 0.5, document_regularizer=L0MaskFlopsLoss(200)
    ).get_config_dict()
    assert config["document_regularizer_threshold"] == 200
    assert config["document_regularizer"] == "L0MaskFlopsLoss"
