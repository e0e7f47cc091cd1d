import numpy as np
import pytest
import torch
from sentence_transformers.sparse_encoder.losses import CachedSpladeLoss, SpladeLoss

from st_l0.errors import InputError
from st_l0.losses import InfoNCELoss, L0MaskFlopsLoss

# Two positives, then two negatives; 2, 1, 2 and 1 active dims.
DOCUMENTS = [[2.0, 0.0, 1.0], [0.0, 0.0, 1.0], [0.0, 4.0, 1.0], [0.0, 0.0, 1.0]]


def penalty(rows, threshold=None, positions=1, dtype=torch.float64):
    embeddings = torch.tensor(rows, dtype=dtype)
    return L0MaskFlopsLoss(threshold, positions=positions).compute_loss_from_embeddings(embeddings).item()


def independent(rows, threshold, positions):
    """The formula of the docstring, document by document."""
    total = 0.0
    for part in np.split(np.asarray(rows, dtype=np.float64), positions):
        sums = np.zeros(part.shape[1])
        for row in part:
            if threshold is None or np.count_nonzero(row) > threshold:
                sums += np.abs(row)
        total += float(((sums / len(part)) ** 2).sum())
    return total


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
def test_numbers_by_hand(threshold, positions, expected):
    assert penalty(DOCUMENTS, threshold, positions) == expected


def test_masked_documents_count_in_the_mean():
    dense, sparse = [3.0, 3.0], [3.0, 0.0]
    assert penalty([dense], threshold=1) == 18.0
    assert penalty([dense, sparse], threshold=1) == 2 * 1.5**2
    assert penalty([dense, sparse, sparse], threshold=1) == 2.0


def test_negative_activations_weigh_as_much_as_positive_ones():
    assert penalty([[-2.0, 0.0, 1.0], *DOCUMENTS[1:]], threshold=1) == penalty(DOCUMENTS, threshold=1)


def test_a_weight_converts_between_the_two_forms():
    same = [DOCUMENTS[0], DOCUMENTS[2]]
    pooled = penalty(same * 3)
    assert penalty(same * 3, positions=3) == pytest.approx(3 * pooled, rel=1e-14)


@pytest.mark.parametrize("positions", [1, 2, 5])
@pytest.mark.parametrize("threshold", [None, 0, 4, 6, 9, 40])
def test_equals_an_independent_implementation(threshold, positions):
    generator = np.random.default_rng(positions)
    rows = generator.normal(size=(20, 23)) * (generator.random((20, 23)) < 0.3)
    expected = independent(rows, threshold, positions)
    assert penalty(rows.tolist(), threshold, positions) == pytest.approx(expected, rel=1e-13, abs=0)


@pytest.mark.parametrize("positions", [1, 2])
def test_the_gradient_is_that_of_the_formula(positions):
    generator = torch.Generator().manual_seed(3)
    rows = torch.randn(8, 11, dtype=torch.float64, generator=generator)
    rows = rows * (torch.rand(8, 11, generator=generator) < 0.5)
    active = (rows != 0).sum(1)
    threshold = int(active.median())
    masked = active <= threshold
    assert 0 < masked.sum() < 8

    ours = rows.clone().requires_grad_()
    L0MaskFlopsLoss(threshold, positions=positions).compute_loss_from_embeddings(ours).backward()
    naive = rows.clone().requires_grad_()
    kept = [row.abs() * float((row != 0).sum() > threshold) for row in naive]
    size = 8 // positions
    parts = [kept[start : start + size] for start in range(0, 8, size)]
    sum((sum(part) / size).square().sum() for part in parts).backward()

    torch.testing.assert_close(ours.grad, naive.grad, rtol=1e-14, atol=0)
    assert not ours.grad[masked].any()
    assert bool((ours.grad[~masked] != 0).eq(rows[~masked] != 0).all())


def test_the_gradient_by_hand():
    # d/dw (mean)^2 = 2 * mean / documents, for the documents that are not free.
    embeddings = torch.tensor(DOCUMENTS, requires_grad=True)
    L0MaskFlopsLoss(1).compute_loss_from_embeddings(embeddings).backward()
    assert embeddings.grad.tolist() == [[0.25, 0, 0.25], [0, 0, 0], [0, 0.5, 0.25], [0, 0, 0]]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_does_not_overflow(dtype):
    embeddings = torch.full((64, 5), 1e4, dtype=dtype, requires_grad=True)
    weight = embeddings[0, 0].item()  # what the dtype makes of 1e4
    loss = L0MaskFlopsLoss(3).compute_loss_from_embeddings(embeddings)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(5 * weight**2, rel=1e-6)
    loss.backward()
    assert embeddings.grad.dtype == dtype
    assert embeddings.grad.float().flatten().tolist() == pytest.approx([2 * weight / 64] * 320, rel=1e-2)


def test_half_precision_does_not_lose_small_weights():
    # A sum in float16 stops growing at 2048 times its summand, one in bfloat16 at 256 times.
    embeddings = torch.ones(5000, 1, dtype=torch.bfloat16)
    assert L0MaskFlopsLoss().compute_loss_from_embeddings(embeddings).item() == 1.0


def test_refuses_what_makes_no_sense():
    with pytest.raises(InputError, match=r"^threshold must be 0 or more active dims, not -1$"):
        L0MaskFlopsLoss(-1)
    with pytest.raises(InputError, match=r"^positions must be 1 or more, not 0$"):
        L0MaskFlopsLoss(positions=0)
    with pytest.raises(InputError, match=r"^5 documents cannot be cut into 2 equal positions$"):
        L0MaskFlopsLoss(positions=2).compute_loss_from_embeddings(torch.ones(5, 3))


def test_says_what_it_is():
    loss = L0MaskFlopsLoss(200, positions=2)
    assert loss.get_config_dict() == {"threshold": 200, "positions": 2}
    assert "2504.14839" in loss.citation


@pytest.fixture
def batch():
    queries = ["apple", "river stone", "cloud"]
    documents = ["an apple a day", "stone in the river and the river", "cloud over stone"]
    return queries, documents


def features(model, batch):
    return [
        model.preprocess(texts, task=task) for task, texts in zip(("query", "document"), batch, strict=True)
    ]


@pytest.mark.parametrize("threshold", [None, 1])
def test_in_stock_losses(tiny_encoder, batch, threshold):
    model = tiny_encoder().eval()  # without dropout, so that two passes see the same vectors
    regularizer = L0MaskFlopsLoss(threshold)
    expected = independent(model.encode_document(batch[1]).to_dense().numpy(), threshold, 1)
    assert expected > 0
    gradients = []
    for make in (SpladeLoss, lambda *args, **kwargs: CachedSpladeLoss(*args, mini_batch_size=2, **kwargs)):
        model.zero_grad()
        loss = make(model, InfoNCELoss(), 0.5, document_regularizer=regularizer)
        parts = loss(features(model, batch))
        assert parts["document_regularizer_loss"].item() == pytest.approx(0.5 * expected, rel=1e-5)
        sum(parts.values()).backward()
        gradients.append(
            torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]).clone()
        )
    assert gradients[0].norm() > 0
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-4, atol=1e-6)
