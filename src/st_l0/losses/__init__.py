"""Losses for sparse retrievers: ranking, distillation, sparsity, and their sum."""

from st_l0.losses.combined import SparseRetrievalLoss
from st_l0.losses.distillation import KLDivergenceLoss, MarginMSELoss
from st_l0.losses.document_frequency import DocumentFrequencyWeights
from st_l0.losses.ranking import InfoNCELoss, WeightedRankingLoss
from st_l0.losses.regularizers import FlopsLoss, L1Loss, convert_weight, inverse

__all__ = [
    "DocumentFrequencyWeights",
    "FlopsLoss",
    "InfoNCELoss",
    "KLDivergenceLoss",
    "L1Loss",
    "MarginMSELoss",
    "SparseRetrievalLoss",
    "WeightedRankingLoss",
    "convert_weight",
    "inverse",
]
