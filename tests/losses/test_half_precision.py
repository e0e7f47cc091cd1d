"""Half precision: close to float32 on a trained model, and nothing overflows or is lost."""

import copy

import numpy as np
import pytest
import torch

from st_l0.head.mlm_head import activate, max_logits
from st_l0.losses import (
    DocumentFrequencyWeights,
    FlopsLoss,
    InfoNCELoss,
    KLDivergenceLoss,
    L1Loss,
    MarginMSELoss,
    SparseRetrievalLoss,
    WeightedRankingLoss,
)
from tiny_models import VOCABULARY

SIZE = len(VOCABULARY)
HALF = pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "fp16"])
TEXTS = [
    ["snow on the mountain", "river stone", "the sun", "a red ship", "old paper", "gold"],
    [
        "rain and snow on a mountain",
        "a stone in the river and the river",
        "the sun, the moon and a star",
        "the ship is red",
        "a book of old paper",
        "gold on the road to the city",
    ],
    [
        "the cat sat",
        "a song",
        "a bird in a tree",
        "bread and milk, water and fire",
        "good dog",
        "read, write",
    ],
]
SCORES = torch.tensor([[9.0, 1.0], [8.0, 2.0], [7.0, -1.0], [9.0, 3.0], [5.0, 0.0], [6.0, 2.0]])
COMPLETE = torch.where(torch.arange(12) == torch.arange(6)[:, None], 8.0, torch.arange(12) % 5 * 0.5)
RANKINGS = {
    "infonce": (InfoNCELoss(4.0), None),
    "infonce-own": (InfoNCELoss(4.0, in_batch_negatives=False), None),
    "kl": (KLDivergenceLoss(4.0), SCORES),
    "kl-batch": (KLDivergenceLoss(4.0, in_batch_negatives=True), SCORES),
    "kl-complete": (KLDivergenceLoss(4.0, in_batch_negatives=True), COMPLETE),
    "margins": (MarginMSELoss(), SCORES),
    "margins-batch": (MarginMSELoss(in_batch_negatives=True), SCORES),
    "margins-complete": (MarginMSELoss(in_batch_negatives=True), COMPLETE),
}
REGULARIZERS = {
    "flops": FlopsLoss(),
    "mask": FlopsLoss(threshold=10),
    "top-k": L1Loss(top_k=5),
    "decoupled": FlopsLoss(extra_logs=1),
    "weights": FlopsLoss(token_weights=torch.linspace(0, 2, SIZE)),
    "l1": L1Loss(),
}


def features(model):
    return [
        model.preprocess(texts, task="document" if index else "query") for index, texts in enumerate(TEXTS)
    ]


@pytest.fixture(scope="module")
def trained(mlm_folder):
    """An encoder after some steps, so that its scores are no noise."""
    from st_l0 import SparseEncoder

    torch.set_num_threads(1)
    model = SparseEncoder.from_mlm(mlm_folder, idf=np.full(SIZE, 3.0), device="cpu").eval()
    loss = SparseRetrievalLoss(model, InfoNCELoss(2.0), FlopsLoss(), 0.02)
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=3e-3)
    first = last = 0.0
    for step in range(30):
        optimizer.zero_grad()
        parts = loss(features(model))
        sum(parts.values()).backward()
        optimizer.step()
        last = parts["ranking_loss"].item()
        first = first if step else last
    assert last < first / 2
    return model


@pytest.fixture(scope="module")
def precise(trained):
    """Vectors of each column in float32."""
    with torch.no_grad():
        return [trained(column)["sentence_embedding"] for column in features(trained)]


@pytest.fixture(scope="module")
def rough(trained):
    """The same under autocast, by dtype."""
    found = {}
    for dtype in (torch.bfloat16, torch.float16):
        with torch.no_grad(), torch.autocast("cpu", dtype=dtype):
            found[dtype] = [trained(column)["sentence_embedding"] for column in features(trained)]
    return found


@HALF
def test_document_vectors_are_of_half_precision(rough, dtype):
    """What follows would test nothing if autocast gave float32."""
    assert [column.dtype for column in rough[dtype][1:]] == [dtype] * 2


def value_and_gradient(compute, documents):
    documents = [column.clone().requires_grad_() for column in documents]
    value = compute(documents)
    value.backward()
    assert value.dtype == torch.float32
    return value.item(), torch.cat([column.grad.float().flatten() for column in documents])


def assert_close(exact, half):
    assert half[0] == pytest.approx(exact[0], rel=0.01)
    assert exact[0] > 0.01
    # A few weights next to 0, or to the k-th largest, are on the other side in half precision; which ones
    # differs between processors.
    same = (exact[1] == 0) == (half[1] == 0)
    assert same.float().mean() > 0.99
    assert torch.cosine_similarity(exact[1][same], half[1][same], dim=0) > 0.999
    assert half[1][same].norm().item() == pytest.approx(exact[1][same].norm().item(), rel=0.02)


@HALF
@pytest.mark.parametrize("name", RANKINGS)
def test_ranking_under_autocast(precise, rough, dtype, name):
    ranking, labels = RANKINGS[name]

    def compute(documents):
        return ranking.compute_loss_from_embeddings([precise[0], *documents], labels)

    exact = value_and_gradient(compute, precise[1:])
    with torch.autocast("cpu", dtype=dtype):
        half = value_and_gradient(compute, rough[dtype][1:])
    assert_close(exact, half)


@HALF
@pytest.mark.parametrize("name", REGULARIZERS)
def test_regularizers_under_autocast(precise, rough, dtype, name):
    def compute(documents):
        return REGULARIZERS[name].compute_loss_from_embeddings(torch.cat(documents))

    exact = value_and_gradient(compute, precise[1:])
    with torch.autocast("cpu", dtype=dtype):
        half = value_and_gradient(compute, rough[dtype][1:])
    assert_close(exact, half)


@HALF
def test_a_training_step_under_autocast(trained, dtype):
    ranking = WeightedRankingLoss({"kl": (RANKINGS["kl-batch"][0], 1.0), "margin": (MarginMSELoss(), 0.05)})
    losses, gradients = [], []
    for enabled in (False, True):
        model = copy.deepcopy(trained)
        frequency = DocumentFrequencyWeights(SIZE, alpha=0.3)
        loss = SparseRetrievalLoss(model, ranking, FlopsLoss(threshold=10, token_weights=frequency), 0.05)
        with torch.autocast("cpu", dtype=dtype, enabled=enabled):
            total = sum(loss(features(model), SCORES).values())
        total.backward()
        losses.append(total.item())
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
    assert losses[1] == pytest.approx(losses[0], rel=0.01)
    assert gradients[1].isfinite().all()
    # A weight that only float32 lifts above 0 has a gradient in float32 alone: not closer than that.
    assert torch.cosine_similarity(*gradients, dim=0) > 0.8


def test_scores_are_added_in_float32():
    """1 + 1/1000 and 2049 cannot be told from 1 and 2048 in half precision; their sums can."""
    for dtype in (torch.bfloat16, torch.float16):
        ones = torch.ones(1, 2049, dtype=dtype)
        with torch.autocast("cpu", dtype=dtype):
            for in_batch in (False, True):
                loss = MarginMSELoss(in_batch_negatives=in_batch)
                columns = [ones, ones, torch.zeros_like(ones)]
                assert loss.compute_loss_from_embeddings(columns, torch.tensor([[2048.0, 0.0]])).item() == 1


@HALF
@pytest.mark.parametrize("name", RANKINGS)
def test_ranking_of_huge_logits(dtype, name):
    """Logits of 10,000, of which the activation makes 9.2; scores are up to 20,000."""
    ranking, labels = RANKINGS[name]
    generator = torch.Generator().manual_seed(1)
    logits = [
        (torch.rand(6, 240, generator=generator) < 0.8).to(dtype).mul(1e4).requires_grad_() for _ in range(3)
    ]
    with torch.autocast("cpu", dtype=dtype):
        loss = ranking.compute_loss_from_embeddings([activate(column.relu(), 0) for column in logits], labels)
    loss.backward()
    assert loss.isfinite()
    assert loss > 0
    for column in logits:
        assert column.grad.dtype == dtype
        assert column.grad.isfinite().all()
    assert logits[0].grad.any()


@HALF
@pytest.mark.parametrize("kind", [FlopsLoss, L1Loss])
def test_penalties_of_huge_weights(dtype, kind):
    embeddings = torch.full((64, 5), 1e4, dtype=dtype, requires_grad=True)
    weight = embeddings[0, 0].item()  # what the dtype makes of 1e4
    loss = kind(threshold=3).compute_loss_from_embeddings(embeddings)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(5 * (weight**2 if kind is FlopsLoss else weight), rel=1e-6)
    loss.backward()
    assert embeddings.grad.dtype == dtype
    slope = (2 * weight if kind is FlopsLoss else 1) / 64
    assert embeddings.grad.float().flatten().tolist() == pytest.approx([slope] * 320, rel=1e-2)


@HALF
@pytest.mark.parametrize("name", REGULARIZERS)
def test_penalties_of_huge_logits(dtype, name):
    logits = torch.linspace(-1e4, 1e4, 8 * SIZE).view(8, SIZE).to(dtype).requires_grad_()
    with torch.autocast("cpu", dtype=dtype):
        loss = REGULARIZERS[name].compute_loss_from_embeddings(activate(logits.relu(), 0))
    loss.backward()
    assert loss.isfinite()
    assert loss > 0
    assert logits.grad.isfinite().all()
    assert logits.grad.any()


@HALF
def test_huge_hidden_states_through_the_head(dtype):
    """Hidden states of 10,000 in the head, its activation and all losses."""
    generator = torch.Generator().manual_seed(2)
    hidden = torch.full((12, 3, 4), 1e4, dtype=dtype, requires_grad=True)
    decoder = torch.nn.Linear(4, 30)
    decoder.weight.data = torch.randn(30, 4, generator=generator) / 4
    queries = (torch.rand(6, 30, generator=generator) < 0.2).float()
    with torch.autocast("cpu", dtype=dtype):
        documents = activate(max_logits(hidden, torch.ones(12, 3), decoder), 0)
        assert documents.dtype == dtype
        columns = [queries, *documents.split(6)]
        total = sum(
            ranking.compute_loss_from_embeddings(columns, labels) for ranking, labels in RANKINGS.values()
        )
        total = total + FlopsLoss(threshold=2).compute_loss_from_embeddings(documents)
    total.backward()
    assert total.isfinite()
    assert decoder.weight.grad.isfinite().all()
    assert decoder.weight.grad.any()
    assert hidden.grad.isfinite().all()


@HALF
def test_small_weights_are_not_lost(dtype):
    # A sum in float16 stops growing at 2048 times its summand, one in bfloat16 at 256 times.
    embeddings = torch.ones(5000, 1, dtype=dtype)
    assert FlopsLoss().compute_loss_from_embeddings(embeddings).item() == 1.0
    assert L1Loss().compute_loss_from_embeddings(embeddings).item() == 1.0
