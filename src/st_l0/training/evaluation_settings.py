"""The section of a recipe on what is measured while the model trains."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from st_l0.training.recipe_paths import local_names
from st_l0.training.settings import Section

COSTS = ("flops", "query_active_dims", "document_active_dims")


@dataclass(frozen=True)
class Evaluation(Section):
    """Test collections that the model is measured on while it trains, through an index, by exact search.

    Attributes:
        collections: Folders or archives in BEIR layout, at least one. Take others than those you report.
        steps: Optimizer steps between two measurements; there is one after the last step too.
        metric: What makes a model the best, on average over the collections: a quality is to be high, a cost
            (FLOPS and active dims) low. ``training.load_best_model_at_end`` keeps that model.
        split: Which judgements to take.
        queries: Queries of a collection at most, the same ones each time; ``None`` takes all.
        documents: Documents of a collection at most, the same ones each time: all that are relevant to these
            queries, then others, judged ones first; ``None`` takes all. Fewer documents make higher numbers.
        patience: Measurements without a better one after which the training ends; ``None`` trains on.
    """

    collections: tuple[str, ...] = field(metadata={"then": local_names})
    steps: int = field(metadata={"at_least": 1, "at_most": 2**31 - 1})
    metric: Literal[
        "ndcg@10", "mrr@10", "recall@100", "flops", "query_active_dims", "document_active_dims"
    ] = "ndcg@10"
    split: str = "test"
    queries: int | None = field(default=200, metadata={"at_least": 1})
    documents: int | None = field(default=2000, metadata={"at_least": 10})
    patience: int | None = field(default=None, metadata={"at_least": 1})

    @property
    def more_is_better(self) -> bool:
        """Whether the metric is a quality."""
        return self.metric not in COSTS
