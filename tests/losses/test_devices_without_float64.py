"""Apple's GPUs have no float64: no loss makes a tensor of it out of float32 vectors, logged or not."""

import pytest
import torch
from given import NEGATIVES, POSITIVES, QUERIES, Given, column
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

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
    SparseRetrievalLoss,
    WeightedRankingLoss,
)


class WithoutFloat64(TorchDispatchMode):
    """Refuses every operation that gives a float64 tensor, as such a device does."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor) and leaf.dtype is torch.float64:
                raise TypeError(f"no float64 here ({func})")
        return result


REGULARIZERS = {
    "flops": FlopsLoss,
    "l1": L1Loss,
    "top-k": lambda: L1Loss(top_k=1),
    "l0 mask": lambda: L0MaskFlopsLoss(1),
    "l0 activation": lambda: L0ActivationFlopsLoss(1),
    "per position": lambda: FlopsLoss(positions=2),
    "idf": lambda: IDFFlopsLoss(torch.tensor([1.0, 2.0, 3.0])),
    "df": lambda: DFFlopsLoss(3, refresh_steps=1),
    "df, l1": lambda: L1Loss(token_weights=DocumentFrequencyWeights(3, refresh_steps=1)),
}


@pytest.mark.parametrize("in_batch", [True, False])
@pytest.mark.parametrize("regularizer", REGULARIZERS)
def test_no_loss_makes_any(regularizer, in_batch):
    losses = [loss(in_batch_negatives=in_batch) for loss in (InfoNCELoss, KLDivergenceLoss, MarginMSELoss)]
    ranking = WeightedRankingLoss({str(number): (loss, 1.0) for number, loss in enumerate(losses)})
    loss = SparseRetrievalLoss(Given(), ranking, REGULARIZERS[regularizer](), 1.0)
    assert not any(buffer.dtype is torch.float64 for buffer in loss.buffers())
    columns = [torch.tensor(rows, dtype=torch.float32) for rows in (QUERIES, POSITIVES, NEGATIVES)]
    features = [
        column(vectors.requires_grad_(), [2 * place, 2 * place + 1])
        for place, vectors in enumerate(columns, 1)
    ]
    labels = torch.tensor(
        [[2.0, 1.0, 0.0, 0.5], [1.0, 3.0, 0.0, 0.5]] if in_batch else [[2.0, 1.0], [1.0, 3.0]]
    )
    with WithoutFloat64():
        for logged in (True, False):
            loss.log_statistics = logged
            sum(loss(features, labels).values()).backward()
        assert loss.pop_statistics()["document_active_dims"] == 2
