"""The sentence-transformers trainer, with a full log, live teachers and checkpoints that survive a kill."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from datasets import IterableDataset
from sentence_transformers.base.sampler import NoDuplicatesBatchSampler
from sentence_transformers.sparse_encoder.trainer import SparseEncoderTrainer
from torch import Tensor, nn
from torch.utils.data import BatchSampler, DataLoader
from transformers import PrinterCallback, ProgressCallback, TrainerCallback, TrainerControl, TrainerState

from st_l0.data.names import is_id_name
from st_l0.encoder.adapters import has_adapters, merged_adapters, restore_trained, trained_weights
from st_l0.encoder.learned_queries import trained_parameter
from st_l0.errors import InputError
from st_l0.losses import SparseRetrievalLoss
from st_l0.training.checkpoints import mark_complete, mark_incomplete, rotate
from st_l0.training.collator import KeepTexts
from st_l0.training.evaluation import EvaluationStart, PeriodicEvaluation
from st_l0.training.health import HealthWatch
from st_l0.training.log import TrainingLog
from st_l0.training.mixing import MixedBatchSampler
from st_l0.training.origin import write_origin
from st_l0.training.rounds import pass_epochs_on, warn_of_duplicates
from st_l0.training.sparsity_target import SparsityTarget
from st_l0.training.tokenizing import tokenized_once
from st_l0.utils.distributed import from_first
from st_l0.utils.progress import write
from st_l0.utils.stock import remove_autocast, without_autocast

if TYPE_CHECKING:
    from st_l0.data.mixture import Mixture
    from st_l0.encoder.sparse_encoder import SparseEncoder
    from st_l0.teachers import EnsembleTeacher, QueryPool

_LOSS_STATE = "loss_state.pt"


class SparseRetrievalTrainer(SparseEncoderTrainer):
    """The sparse trainer, and more.

    - It logs active dims, FLOPS, the regularizers' weights, and queries a second, and prints them in lines.
    - It asks live teachers for the scores of each batch.
    - It saves and restores what the loss, the query table and an adapter (of peft) have learned.
    - It marks a checkpoint on disk as complete when it is, and only one whose weights are finite.
    - It measures the model on collections, and keeps and finds again the best one.
    - It ends at the first loss, gradient or weight that is not finite (`HealthWatch`).

    Args:
        args: As of `SparseEncoderTrainer`.
        teacher: Scores the documents of each batch; ``None`` where the data hold the scores or none are
            needed.
        in_batch_negatives: Whether the teacher scores the documents of all queries of the batch.
        pool: Where each batch gets extra queries from, for the teacher to score too; needs
            ``in_batch_negatives``.
        origin: What each checkpoint says of the training that it is of.
        ignore_health: Whether to go on when nothing can train any more.
        evaluation: What is measured, every ``eval_steps`` of the arguments; ``None`` measures nothing.
        evaluate_anew: Whether a training that goes on forgets what was measured before, and what was best.
        target: What moves λ_d, where the recipe asks for a sparsity.
        mixture: How often the rows of ``train_dataset`` are seen; ``None``: all equally often.
        kwargs: As of `SparseEncoderTrainer`; ``model`` is a `st_l0.SparseEncoder`.
    """

    def __init__(
        self,
        *args: Any,
        teacher: EnsembleTeacher | None = None,
        in_batch_negatives: bool = False,
        pool: QueryPool | None = None,
        origin: dict[str, Any] | None = None,
        ignore_health: bool = False,
        evaluation: PeriodicEvaluation | None = None,
        evaluate_anew: bool = False,
        target: SparsityTarget | None = None,
        mixture: Mixture | None = None,
        **kwargs: Any,
    ) -> None:
        kwargs["evaluator"] = evaluation
        super().__init__(*args, **kwargs)
        _refuse_ids(self.train_dataset)
        self.args.logging_nan_inf_filter = False  # it logs NaN as 0
        self._health = HealthWatch(cast(str, self.args.output_dir), ignore=ignore_health)
        self._teacher = teacher
        self._in_batch = in_batch_negatives
        self._pool = pool
        self._origin = origin
        self._mixture = mixture
        self._clock: tuple[float, int] | None = None
        for printing in (PrinterCallback, ProgressCallback):  # which print dictionaries
            self.remove_callback(printing)
        self._log = TrainingLog()
        self.add_callback(self._log)
        self._evaluation = evaluation
        if evaluation is not None:
            self.add_callback(EvaluationStart(evaluation, anew=evaluate_anew))
        self._target = target
        if target is not None:
            self.add_callback(target)
        if teacher is not None:
            self.data_collator = cast(Any, KeepTexts(self.data_collator))

    def get_batch_sampler(self, dataset: Any, *args: Any, **kwargs: Any) -> BatchSampler | None:
        """The sampler of the training data; one without duplicates says which rows that costs."""
        make = cast(Callable[..., BatchSampler], super().get_batch_sampler)
        sampler: Any
        if self._mixture is None:
            sampler = shown = make(dataset, *args, **kwargs)
        else:
            sampler = MixedBatchSampler(self._mixture, dataset, make, kwargs)
            _, shown = sampler.of_epoch()
        if isinstance(shown, NoDuplicatesBatchSampler) and self.is_world_process_zero():
            warn_of_duplicates(shown, self.args, devices=self.args.world_size)
        return cast("BatchSampler | None", sampler)

    def get_train_dataloader(self) -> DataLoader[Any]:
        """The batches; of a stream each process takes its own.

        By default accelerate reads a stream in the first process and sends parts of its batches to the
        others, which it cannot where texts stand in them.
        """
        if isinstance(self.train_dataset, IterableDataset):
            self.accelerator.dataloader_config.dispatch_batches = False
        loader = super().get_train_dataloader()
        pass_epochs_on(loader.batch_sampler)
        return loader

    @property
    def _retrieval_loss(self) -> SparseRetrievalLoss:
        return cast(SparseRetrievalLoss, self.loss)

    def train(self, resume_from_checkpoint: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Train; with a line a logging step for people, and no autocast left on the model at the end."""
        with (
            self._log.showing(bar=not self.args.disable_tqdm),
            tokenized_once(self, resume_from_checkpoint),
        ):
            result = super().train(resume_from_checkpoint, *args, **kwargs)
        remove_autocast(self._encoder())
        return result

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Measure the model as it will be saved, in the first process, for all of them."""
        if self._evaluation is None:
            return super().evaluate(*args, **kwargs)
        found: dict[str, float] = {}
        if self.is_world_process_zero():
            with without_autocast(self._encoder()):
                found = self._evaluation.measure(self._encoder())
        metrics = {f"eval_{name}": value for name, value in from_first(found).items()}
        if self._clock is not None:  # it is no time of the training's
            self._clock = (self._clock[0] + metrics["eval_runtime"], self._clock[1])
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _determine_best_metric(self, metrics: dict[str, float], trial: Any) -> bool:
        best = super()._determine_best_metric(metrics, trial)
        if self._evaluation is None:
            return best
        if best and self.args.load_best_model_at_end:
            self.control.should_save = True
        patience = self._evaluation.settings.patience
        since = self._evaluation.without_a_better(self.state.log_history)
        if patience is not None and since >= patience and not self.control.should_training_stop:
            self.control.should_training_stop = True
            if self.is_world_process_zero():
                write(f"step {self.state.global_step:,}: stopped, {since} measurements without a better one")
        return best

    def _load_best_model(self) -> None:
        """Load it; stock would log an error and keep the last weights where that fails."""
        checkpoint = cast(str, self.state.best_model_checkpoint)
        self._load_from_checkpoint(checkpoint)
        step = int(checkpoint.rpartition("-")[2])
        self._encoder().model_card_data.set_best_model_step(step)
        if self.is_world_process_zero():
            write(f"the model of step {step:,} is the best, and is kept")

    def training_step(self, *args: Any, **kwargs: Any) -> Tensor:
        """One forward and backward pass."""
        if self._clock is None:
            self._clock = (time.perf_counter(), self.state.global_step)
        return super().training_step(*args, **kwargs)

    def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """The loss of a batch, with the teacher's scores as labels where there is one."""
        texts = inputs.pop("texts", None)
        if self._teacher is not None and texts is not None:
            queries, *columns = texts.values()
            if self._pool is not None:
                inputs["label"] = self._pool.score_batch(queries, columns)
            elif self._in_batch:
                inputs["label"] = self._teacher.score_batch(queries, columns).to(self.args.device)
            else:
                scores = self._teacher.score_lists(queries, list(zip(*columns, strict=True)))
                inputs["label"] = torch.stack(scores).to(self.args.device)
        return super().compute_loss(model, inputs, *args, **kwargs)

    def track_loss_components(self, loss: dict[str, Tensor]) -> None:
        """Remember the loss terms of a batch, for the log and for the health watch."""
        if self.model is not None and self.model.training:
            self._health.observe_terms(loss)
        super().track_loss_components(loss)

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        norm = cast(Any, super())._get_grad_norm(model, grad_norm=grad_norm)
        scaled = self.accelerator.scaler is not None
        self._health.check_step(self.state.global_step + 1, norm, model, scaled=scaled)
        return norm

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log; a training log gets the loss's statistics and the speed since the last one."""
        if "loss" in logs:
            found = self._retrieval_loss.pop_statistics()
            self._health.empty = found.get("empty_documents") == 1
            logs = {**logs, **found, **({} if self._target is None else self._target.log_entry())}
            if self._clock is not None:
                then, step = self._clock
                self._clock = (time.perf_counter(), self.state.global_step)
                batch = self.args.train_batch_size * self.args.gradient_accumulation_steps
                queries = (self.state.global_step - step) * batch * self.args.world_size
                logs["queries_per_second"] = round(queries / (self._clock[0] - then), 2)
        super().log(logs, start_time)

    def get_decay_parameter_names(self, model: nn.Module) -> list[str]:
        """Names of the parameters that weight decay applies to: not what is learned of a query table."""
        names = super().get_decay_parameter_names(model)
        table = trained_parameter(self._encoder()._encoder_modules)
        return [name for name in names if model.get_parameter(name) is not table]

    def _encoder(self) -> SparseEncoder:
        model: Any = self.model
        return cast("SparseEncoder", getattr(model, "_orig_mod", model))  # as it was before torch.compile

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        self._health.check_weights(self.state.global_step, self._encoder())
        checkpoints = Path(cast(str, self.args.output_dir))
        folder = checkpoints / f"checkpoint-{self.state.global_step}"
        if self.args.should_save:
            mark_incomplete(folder)
        # Old checkpoints go when the new one is whole on all processes, and not before.
        limit, self.args.save_total_limit = self.args.save_total_limit, None
        try:
            super()._save_checkpoint(model, trial)
        finally:
            self.args.save_total_limit = limit
        if self.args.should_save:
            table = trained_parameter(self._encoder()._encoder_modules)
            found = {
                "query_table": None if table is None else table.detach(),
                "loss": self._loss_state(),
                "target": None if self._target is None else self._target.state_dict(),
            }
            if has_adapters(self._encoder()):  # the checkpoint's model is merged
                found["adapter"] = trained_weights(self._encoder())
            torch.save(found, folder / _LOSS_STATE)
            if self._origin is not None:
                write_origin(folder, self._origin)
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            mark_complete(folder)
            rotate(checkpoints, limit, self.state.best_model_checkpoint)

    def _loss_state(self) -> dict[str, Any]:
        """What the regularizers remember; the model is in the loss too, and is saved by itself."""
        return {
            name: value
            for name, value in self._retrieval_loss.state_dict().items()
            if not name.startswith("model.")
        }

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        """Load them; the learning rate of the first step is then that of this run's own schedule.

        Stock takes the one that the former run had computed for that step, which is 0 at its end.
        """
        optimizer, schedule = cast(Any, self.optimizer), cast(Any, self.lr_scheduler)
        bases = list(getattr(schedule, "base_lrs", ()))
        kept = ("weight_decay", "betas", "eps")
        options = [
            {name: group[name] for name in kept if name in group}
            for group in getattr(optimizer, "param_groups", ())
        ]
        try:
            super()._load_optimizer_and_scheduler(checkpoint)
        except ValueError as error:  # how torch says that groups of parameters do not match
            raise InputError(f"{checkpoint} is of another model ({error}): start another output") from error
        if checkpoint is None or self.is_deepspeed_enabled or not hasattr(schedule, "lr_lambdas"):
            return
        schedule.base_lrs = bases
        shares = [share(schedule.last_epoch) for share in schedule.lr_lambdas]
        schedule._last_lr = [base * share for base, share in zip(bases, shares, strict=True)]
        for group, base, rate, own in zip(
            optimizer.param_groups, bases, schedule._last_lr, options, strict=True
        ):
            group.update({"lr": rate, "initial_lr": base, **own})

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        encoder = self._encoder()
        found = torch.load(Path(resume_from_checkpoint) / _LOSS_STATE, map_location="cpu", weights_only=True)
        loaded = type(encoder)(
            resume_from_checkpoint, device="cpu", trust_remote_code=encoder.trust_remote_code
        )
        table = trained_parameter(encoder._encoder_modules)
        weights = loaded.state_dict()
        if table is not None:  # the computed table is in the checkpoint, what computes it is not
            weights = {name: weight for name, weight in weights.items() if "sub_modules.query." not in name}
            with torch.no_grad():
                table.copy_(found["query_table"])
        try:
            if has_adapters(encoder) or "adapter" in found:
                restore_trained(encoder, found.get("adapter"), weights, resume_from_checkpoint)
            with merged_adapters(encoder):
                missing, unexpected = encoder.load_state_dict(weights, strict=False)
        except RuntimeError as error:  # how torch says that shapes differ
            text = " ".join(str(error).split())
            raise InputError(f"{resume_from_checkpoint} is of another model ({text[:200]})") from error
        missing = [name for name in missing if table is None or "sub_modules.query." not in name]
        if missing or unexpected:
            raise InputError(f"{resume_from_checkpoint} is of another model: {[*missing, *unexpected][:3]}")
        self._retrieval_loss.load_state_dict(found["loss"], strict=False)
        if self._target is not None and found.get("target") is not None:
            self._target.load_state_dict(found["target"])


class RegularizerRamp(TrainerCallback):
    """Tells the loss at which optimizer step it is, after a resume too, and whether that will be logged."""

    def __init__(self, loss: SparseRetrievalLoss) -> None:
        self.loss = loss

    def on_step_begin(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Set the regularizers' weights for the step that begins."""
        self.loss.set_step(state.global_step)
        step = state.global_step + 1
        self.loss.log_statistics = (
            args.logging_strategy != "steps"
            or step % state.logging_steps == 0
            or (step == 1 and args.logging_first_step)
        )


def _refuse_ids(data: Any) -> None:
    """Refuse columns of ids, which sentence-transformers would take for texts, the first one for queries."""
    for one in data.values() if isinstance(data, dict) else [data]:
        for name in getattr(one, "column_names", None) or ():
            if is_id_name(name):
                raise InputError(
                    f"the training data have a column {name}, which would be encoded as a text: leave it out "
                    f"(remove_columns({name!r}))"
                )
