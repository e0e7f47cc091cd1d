"""Losses for sparse retrievers: ranking, distillation, sparsity, and their sum."""

from st_l0.losses.combined import SparseRetrievalLoss
from st_l0.losses.distillation import KLDivergenceLoss, MarginMSELoss
from st_l0.losses.document_frequency import DocumentFrequencyWeights
from st_l0.losses.extra_queries import ExtraQueries, TeacherScores
from st_l0.losses.flops import (
    DFFlopsLoss,
    FlopsLoss,
    IDFFlopsLoss,
    L0ActivationFlopsLoss,
    L0MaskFlopsLoss,
)
from st_l0.losses.ranking import InfoNCELoss, WeightedRankingLoss
from st_l0.losses.regularizers import L1Loss, convert_weight, inverse

__all__ = [
    "DFFlopsLoss",
    "DocumentFrequencyWeights",
    "ExtraQueries",
    "FlopsLoss",
    "IDFFlopsLoss",
    "InfoNCELoss",
    "KLDivergenceLoss",
    "L0ActivationFlopsLoss",
    "L0MaskFlopsLoss",
    "L1Loss",
    "MarginMSELoss",
    "SparseRetrievalLoss",
    "TeacherScores",
    "WeightedRankingLoss",
    "convert_weight",
    "inverse",
]
