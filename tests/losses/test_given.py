"""Losses that are called by hand: with what encode gives, and with what is no batch."""

import numpy as np
import pytest
import torch

from st_l0.errors import InputError
from st_l0.losses import FlopsLoss, IDFFlopsLoss, InfoNCELoss, KLDivergenceLoss, MarginMSELoss

QUERIES = torch.tensor([[1.0, 0.0, 0.0], [0.0, 2.0, 0.0]])
POSITIVES = torch.tensor([[1.0, 0.0, 3.0], [0.0, 1.0, 0.0]])
NEGATIVES = torch.tensor([[1.0, 1.0, 0.0], [1.0, 1.0, 1.0]])
SCORES = torch.tensor([[2, 0], [1, 0]])
SPARSE = {
    "COO": torch.Tensor.to_sparse,
    "CSR": torch.Tensor.to_sparse_csr,
    "integers": torch.Tensor.long,
    "half": torch.Tensor.half,
}


@pytest.mark.parametrize("kind", SPARSE)
@pytest.mark.parametrize("loss", [InfoNCELoss(), KLDivergenceLoss(), MarginMSELoss()])
def test_every_kind_of_tensor_gives_the_same(loss, kind):
    batch = [QUERIES, POSITIVES, NEGATIVES]
    expected = loss.compute_loss_from_embeddings(batch, SCORES.float())
    given = [SPARSE[kind](column) for column in batch]
    torch.testing.assert_close(loss.compute_loss_from_embeddings(given, SCORES), expected)
    torch.testing.assert_close(
        loss.compute_loss_from_embeddings([given[0], *batch[1:]], SCORES.half()), expected
    )


@pytest.mark.parametrize("kind", SPARSE)
def test_a_penalty_of_every_kind_of_tensor_is_the_same(kind):
    # means 1/2, 1/2, 3/2
    torch.testing.assert_close(
        FlopsLoss().compute_loss_from_embeddings(SPARSE[kind](POSITIVES)), torch.tensor(2.75)
    )


def test_gradients_reach_a_sparse_tensor():
    vectors = POSITIVES.to_sparse().requires_grad_()
    FlopsLoss().compute_loss_from_embeddings(vectors).backward()
    assert vectors.grad.to_dense().tolist() == [[0.5, 0, 1.5], [0, 0.5, 0]]


def test_token_weights_of_every_kind():
    for idf in (torch.tensor([1, 2, 4]), np.array([1.0, 2.0, 4.0]), [1, 2, 4]):
        # means 1/2, 1/4, 3/8
        found = IDFFlopsLoss(idf).compute_loss_from_embeddings(POSITIVES)
        assert found.item() == pytest.approx(0.25 + 0.0625 + 0.140625)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: FlopsLoss().compute_loss_from_embeddings([[1.0]]), "embeddings: a list is no tensor"),
        (lambda: FlopsLoss().compute_loss_from_embeddings(np.eye(2)), "embeddings: a ndarray is no tensor"),
        (lambda: FlopsLoss().compute_loss_from_embeddings(torch.ones(3)), "embeddings: the shape is (3,)"),
        (lambda: InfoNCELoss().compute_loss_from_embeddings([QUERIES, None]), "column 1: a NoneType is no"),
        (
            lambda: InfoNCELoss().compute_loss_from_embeddings([QUERIES, torch.ones(2, 4)]),
            "the vectors of one batch have [3, 4] dimensions; encode all with one model",
        ),
        (
            lambda: MarginMSELoss().compute_loss_from_embeddings([QUERIES, POSITIVES, NEGATIVES], [[2, 0]]),
            "teacher scores are a list; give a tensor",
        ),
        (lambda: IDFFlopsLoss({"cat": 1.0}), "idf: give a tensor with a weight for each token, no dict"),
        (lambda: IDFFlopsLoss("idf.json"), "idf: give a tensor with a weight for each token, no str"),
        (lambda: IDFFlopsLoss(torch.ones(1, 3)), "idf: the shape is (1, 3); give one weight for each token"),
    ],
)
def test_what_is_no_batch_is_refused(call, message):
    with pytest.raises(InputError) as caught:
        call()
    assert str(caught.value).startswith(message)
