"""Losses for sparse retrievers: ranking, sparsity, and their sum."""

from st_l0.losses.combined import SparseRetrievalLoss
from st_l0.losses.ranking import InfoNCELoss
from st_l0.losses.regularizers import L0MaskFlopsLoss

__all__ = ["InfoNCELoss", "L0MaskFlopsLoss", "SparseRetrievalLoss"]
