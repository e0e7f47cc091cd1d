"""The section of a recipe on the losses."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from st_l0.training.recipe_paths import local_names
from st_l0.training.settings import Section, SettingError

_RANKING = ("infonce", "kl", "margin_mse")


@dataclass(frozen=True)
class TargetSample(Section):
    """The text on which a target of sparsity is measured: of the kind that will be searched.

    Attributes:
        collections: Folders in BEIR layout, or data sets of the Hub, with documents and queries, at least
            one; judgements are not read. Of several the mean counts. Take others than those you report.
        steps: Optimizer steps between two measurements; from the end of the ramp to the end of the training
            there should be some 20.
        documents: Documents of a collection at most, the same ones each time.
        queries: Queries of a collection at most, the same ones each time.
    """

    collections: tuple[str, ...] = field(metadata={"then": local_names})
    steps: int = field(metadata={"at_least": 1, "at_most": 2**31 - 1})
    documents: int = field(default=256, metadata={"at_least": 1})
    queries: int = field(default=1000, metadata={"at_least": 1})

    def measurements(self, ramp_steps: int, steps: int) -> int:
        """How many measurements move λ_d: after the ramp, and before the last step is begun."""
        return max(0, (steps - 1) // self.steps - max(ramp_steps - 1, 0) // self.steps)


@dataclass(frozen=True)
class Loss(Section):
    """The ranking losses and the regularizers.

    Attributes:
        document_regularizer_weight: λ_d at its peak; with a target, where it starts.
        query_regularizer_weight: λ_q at its peak, for queries that are not a fixed table.
        ranking: Ranking losses to their weights, such as ``{kl: 1.0, infonce: 0.1}``; a name alone has the
            weight 1. ``infonce`` needs nothing but the data; ``kl`` and ``margin_mse`` need teacher scores,
            in the data or by ``teachers``.
        temperature: Scores are divided by it before the softmax (``infonce``, ``kl``).
        in_batch_negatives: Whether the documents of other queries count. ``None``: yes for ``infonce``, no
            for the others.
        regularizer: ``"flops"``, or ``"l1"`` (baseline).
        threshold: Active dims that a document keeps for free (the ℓ0 mask); ``None`` penalises all.
        top_k: Largest weights of a document that are free (baseline).
        extra_logs: Logs of the weights that are penalised, not ranked with: the decoupled ℓ0 activation.
        token_weights: Factors of the tokens in the penalty: ``"df"`` (DF-FLOPS), or the path of an
            ``idf.json`` to divide by (FLOPS of effective weights, for a model with binary queries).
        df_alpha: Share of documents at which the factor of DF-FLOPS is one half.
        df_beta: Steepness of that factor.
        df_refresh_steps: Batches between two estimates of document frequencies.
        reduction: ``"pooled"`` penalises all documents at once; ``"per_position"`` each document position,
            and sums, as the papers do: a published λ_d means the same only in that form.
        ramp_steps: Optimizer steps over which the weights grow quadratically from 0.
        target_flops: FLOPS that the documents and queries of ``target_sample`` shall have at the end: λ_d is
            moved for that, from the end of the ramp on or from when they are nearly there, by no more than a
            factor of 1,000.
        target_active_dims: Likewise the mean number of active dims of a document.
        target_sample: See `TargetSample`; for either target.
    """

    document_regularizer_weight: float = field(metadata={"at_least": 0})
    query_regularizer_weight: float = field(default=0.0, metadata={"at_least": 0})
    ranking: dict[str, Any] = field(
        default_factory=lambda: {"infonce": 1.0},
        metadata={
            "entries": lambda: dict.fromkeys(_RANKING, float),
            "bounds": {name: {"more_than": 0} for name in _RANKING},
            "alone": 1.0,
        },
    )
    temperature: float = field(default=1.0, metadata={"more_than": 0})
    in_batch_negatives: bool | None = None
    regularizer: Literal["flops", "l1"] = "flops"
    threshold: int | None = field(default=None, metadata={"at_least": 0})
    top_k: int | None = field(default=None, metadata={"at_least": 0})
    extra_logs: Literal[0, 1, 2, 3] = 0
    token_weights: str | None = field(default=None, metadata={"then": local_names})
    df_alpha: float = field(default=0.1, metadata={"more_than": 0, "less_than": 1})
    df_beta: float = field(default=10.0, metadata={"more_than": 0})
    df_refresh_steps: int = field(default=100, metadata={"at_least": 1})
    reduction: Literal["pooled", "per_position"] = "pooled"
    ramp_steps: int = field(default=0, metadata={"at_least": 0})
    target_flops: float | None = field(default=None, metadata={"more_than": 0})
    target_active_dims: float | None = field(default=None, metadata={"more_than": 0})
    target_sample: TargetSample | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.ranking:
            raise SettingError("must name at least one loss", ("ranking",))
        if self.target is None:
            if self.target_sample is not None:
                problem = "has no effect without loss.target_flops or loss.target_active_dims"
                raise SettingError(problem, ("target_sample",))
            return
        name, _ = self.target
        if self.target_flops is not None and self.target_active_dims is not None:
            raise SettingError("excludes loss.target_flops: keep one", ("target_active_dims",))
        if self.target_sample is None:
            raise SettingError("needs loss.target_sample, the text on which it is measured", (name,))
        if not self.document_regularizer_weight:
            problem = f"must be more than 0, as loss.{name} moves it from there"
            raise SettingError(problem, ("document_regularizer_weight",))

    @property
    def target(self) -> tuple[str, float] | None:
        """The key of the target of sparsity and its value, where there is one."""
        if self.target_flops is not None:
            return "target_flops", self.target_flops
        if self.target_active_dims is not None:
            return "target_active_dims", self.target_active_dims
        return None

    @property
    def distils(self) -> bool:
        """Whether it needs teacher scores."""
        return bool({"kl", "margin_mse"} & set(self.ranking))
