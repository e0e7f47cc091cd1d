"""The log of a training for people: one aligned line a logging step, and how far it is between them.

The trainer's dictionaries, with all numbers, go to ``trainer_state.json`` and to what ``training.report_to``
names.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

from transformers import TrainerCallback, TrainerControl, TrainerState

from st_l0.utils.progress import Work, clock, show_progress, write
from st_l0.utils.terminal import is_terminal

_AGAIN = 25  # lines after which the heads of the columns are printed again
_MEASURED = ("flops", "document_active_dims", "runtime")
_EMPTY = 0.01  # share of empty documents that is worth a word


def _significant(value: float) -> str:
    """Four digits that count, such as ``0.7163``, ``12.30`` or ``1.2e-05``."""
    if value and not 1e-3 <= abs(value) < 1e4:
        return f"{value:.1e}"
    return f"{value:#.4g}".rstrip(".")


class _Column(NamedTuple):
    head: str
    form: Callable[[float], str]
    goes: int = 0  # where a terminal is too narrow: the lowest number first; those of 0 stay


# By key of the log; the terms of the loss come after it.
_COLUMNS = {
    "loss": _Column("loss", _significant),
    "document_regularizer_loss": _Column("doc penalty", _significant, 3),
    "query_regularizer_loss": _Column("q penalty", _significant, 2),
    "document_regularizer_weight": _Column("λ_d", _significant, 4),
    "query_regularizer_weight": _Column("λ_q", _significant, 1),
    "flops": _Column("FLOPS", "{:.2f}".format),
    "sample_flops": _Column("sample FLOPS", "{:.2f}".format),
    "query_active_dims": _Column("q dims", "{:.1f}".format, 2),
    "document_active_dims": _Column("doc dims", "{:.1f}".format),
    "sample_active_dims": _Column("sample dims", "{:.1f}".format),
    "queries_per_second": _Column("queries/s", "{:,.1f}".format, 4),
}


class TrainingLog(TrainerCallback):
    """Prints what a trainer logs to standard output, and its progress to standard error.

    Where there are several processes the first one prints.
    """

    def __init__(self) -> None:
        self._work: Work | None = None
        self._heads: list[str] = []
        self._lines = 0

    @contextmanager
    def showing(self, *, bar: bool = True) -> Iterator[None]:
        """Show progress while the body trains, and no longer, be it that it fails; on a terminal as a bar."""
        shown = bar or not is_terminal(sys.stderr)
        with show_progress("training", unit="steps", shown=shown, summary=False) as self._work:
            yield

    def on_train_begin(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Note how long the training is, and where it begins."""
        if self._work is not None:
            self._work.restart(state.global_step, state.max_steps)

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Note that it is a step further."""
        if self._work is not None:
            self._work.done = state.global_step

    def on_log(
        self,
        args: Any,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Print a line of what was logged."""
        if not state.is_world_process_zero or not logs:
            return
        if "loss" in logs:
            self._print_row(logs, state)
        elif "train_runtime" in logs:
            seconds = logs["train_runtime"]
            write(f"{state.global_step:,} of {state.max_steps:,} steps in {clock(seconds)}")

    def on_evaluate(
        self,
        args: Any,
        state: TrainerState,
        control: TrainerControl,
        metrics: Mapping[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Print a line of what was measured, before the trainer has noted whether it is the best."""
        name = args.metric_for_best_model
        if not state.is_world_process_zero or not metrics or f"eval_{name}" not in metrics:
            return
        value, best = metrics[f"eval_{name}"], state.best_metric
        parts = [f"{name} {_significant(value)}"]
        if best is None or (value > best if args.greater_is_better else value < best):
            parts[0] += ", the best" if best is not None else ""
        else:
            parts[0] += f" (best: {_significant(best)})"
        if name != "ndcg@10":
            parts.append(f"ndcg@10 {_significant(metrics['eval_ndcg@10'])}")
        flops, dims, seconds = (metrics[f"eval_{name}"] for name in _MEASURED)
        parts.append(f"FLOPS {flops:.2f}, {dims:.1f} doc dims; measured in {seconds:.1f} s")
        write(f"step {state.global_step:,}: {', '.join(parts)}", "bold")

    def _print_row(self, logs: Mapping[str, Any], state: TrainerState) -> None:
        left = None if self._work is None else self._work.seconds_left
        cells = {
            "step": f"{state.global_step:,}",
            **{column.head: column.form(logs[key]) for key, column in _columns(logs).items()},
            "left": "" if left is None else clock(left),
        }
        widths = {"step": len(f"{state.max_steps:,}"), "left": 7}
        widths = {head: max(len(head), widths.get(head, 9)) for head in cells}
        if list(cells) != self._heads or self._lines == _AGAIN:
            self._heads, self._lines = list(cells), 0
            write("  ".join(f"{head:>{widths[head]}}" for head in cells), "bold")
        self._lines += 1
        empty = logs.get("empty_documents", 0)
        note = f"  {empty:.0%} of the documents are empty" if empty > _EMPTY else ""
        write("  ".join(f"{text:>{widths[head]}}" for head, text in cells.items()) + note)


def _columns(logs: Mapping[str, Any]) -> dict[str, _Column]:
    """The columns of a line, by key of the log: all in a file, as many as fit on a terminal."""
    terms = [key for key in logs if key.endswith("_loss") and key not in _COLUMNS]
    known = {"loss": _COLUMNS["loss"]}
    known |= {key: _Column(key.removesuffix("_loss"), _significant, 3) for key in terms} | _COLUMNS
    found = {key: column for key, column in known.items() if key in logs}
    if not is_terminal(sys.stdout):
        return found
    order = sorted((key for key, column in found.items() if column.goes), key=lambda key: found[key].goes)
    while order and 20 + 11 * len(found) > shutil.get_terminal_size().columns:
        del found[order.pop(0)]
    return found
