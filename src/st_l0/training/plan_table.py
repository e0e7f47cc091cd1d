"""The table that a dry run shows."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Group
from rich.table import Table
from rich.text import Text

from st_l0.training.memory import Memory
from st_l0.training.plan import Plan
from st_l0.utils.terminal import cell


def render(planned: Plan) -> Group:
    """A table for ``rich``, with the notes below it."""
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0), pad_edge=False)
    for name, value in _lines(planned):
        table.add_row(cell(name, "bold"), cell(value))
    return Group(table, *(Text.assemble(("note:", "yellow"), " ", cell(note)) for note in planned.notes))


def _lines(planned: Plan) -> Iterator[tuple[str, str]]:
    count = planned.trainable_parameters
    yield "base model", planned.base_model
    yield "MLM head", planned.head
    yield "queries", planned.queries
    yield "tokens of a document", f"at most {planned.max_seq_length}"
    yield "trained parameters", "not known" if count is None else f"{count:,}"
    for source, state in planned.sources:
        yield "reads", f"{source} ({state})"
    for line in planned.mixture:
        yield "mixes", line
    yield "documents per query", f"{planned.documents_per_query} ({planned.documents_per_query_from})"
    yield (
        "batch",
        (
            f"{planned.queries_per_step:,} queries with {planned.documents_per_step:,} documents a step on "
            f"{planned.devices} device(s); the losses see {planned.queries_at_once:,} queries at once"
        ),
    )
    yield "length", planned.length
    warmup = "" if planned.warmup_steps is None else f", after {planned.warmup_steps:,} steps of warm-up"
    yield "learning rate", f"{planned.learning_rate:g}{warmup}"
    losses = (name if weight == 1 else f"{weight:g} {name}" for name, weight in planned.ranking.items())
    yield "ranking", " + ".join(losses)
    yield "teacher scores", planned.teacher_scores
    if planned.extra_queries != "none":
        yield "extra queries", planned.extra_queries
    yield "penalty", planned.penalty
    (own, weight), (other, converted) = planned.document_regularizer_weights.items()
    yield "λ_d at its peak", f"{weight:g} {own} (about {converted:g} {other})"
    if planned.target != "none":
        yield "target", planned.target
    if planned.query_regularizer_weight:
        yield "λ_q at its peak", f"{planned.query_regularizer_weight:g}"
    yield "λ ramp", f"{planned.ramp_steps:,} steps"
    yield "evaluation", planned.evaluation
    yield "memory of a device", _in_words(planned.memory)


def _in_words(memory: Memory | None) -> str:
    if memory is None:
        return "not known"
    parts = f"weights {_gib(memory.weights)}, gradients {_gib(memory.gradients)}"
    parts += f", AdamW {_gib(memory.optimizer)}"
    if memory.pool != 0:
        parts += f", pool of extra queries {'not known' if memory.pool is None else _gib(memory.pool)}"
    if memory.activations is None:
        return f"{parts} GiB; activations not known"
    return f"about {_gib(memory.total)} GiB: {parts}, activations about {_gib(memory.activations)}"


def _gib(size: int) -> str:
    return f"{size / 2**30:.2f}"
