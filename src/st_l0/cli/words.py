"""Options about words beside the model, and what the commands that have them share."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from st_l0.cli.app import say
from st_l0.errors import InputError

if TYPE_CHECKING:
    from st_l0.encoder.sparse_encoder import SparseEncoder
    from st_l0.index import Index
    from st_l0.index.calibration import PseudoQueries

Language = Annotated[
    str | None,
    typer.Option(
        "--bm25",
        metavar="LANGUAGE",
        help="Keep the words of the documents too, for BM25 beside the model: english, german, ...",
    ),
]
IndexWeight = Annotated[
    str | None,
    typer.Option(
        "--bm25-weight",
        metavar="NUMBER|auto",
        help="How much BM25 counts in searches of a new index; auto, the default, finds it without labels.",
    ),
]
Labels = Annotated[
    Path | None,
    typer.Option("--data", help="A collection of these documents whose judgements choose the weight."),
]
SearchWeight = Annotated[
    str | None,
    typer.Option(
        "--bm25",
        metavar="NUMBER|auto",
        help="How much BM25 counts beside the model; by default what the index has stored, 0 for no words.",
    ),
]


def read_weight(given: str, option: str) -> float | Literal["auto"]:
    """A weight as it was given on the command line.

    Raises:
        InputError: It is neither a number of at least 0 nor "auto".
    """
    from st_l0.index.protocol import as_weight

    if given == "auto":
        return "auto"
    try:
        return as_weight(float(given))
    except (ValueError, InputError):
        raise InputError(f"{option} {given!r:.40}: give a number of at least 0, or auto") from None


def check_words(to: str, language: str | None, weight: str | None, labels: Path | None) -> None:
    """Refuse options that contradict each other or the index, before any work is done."""
    if weight is not None and read_weight(weight, "--bm25-weight") != "auto" and labels is not None:
        raise InputError("--bm25-weight gives the weight, --data lets it be chosen: leave one out")
    if language is None and (weight is not None or labels is not None) and not _has_words(to):
        raise InputError(f"{to}: no index that holds words: give --bm25 LANGUAGE for a new one")


def _has_words(target: str) -> bool:
    from st_l0.index import open_index

    try:
        return open_index(target, create=False).bm25 is not None
    except InputError:
        return False


def store_weight(
    index: Index,
    encoder: SparseEncoder,
    name: str,
    weight: str | None,
    labels: Path | None,
    drawn: PseudoQueries,
    rest: Iterable[object] = (),
) -> None:
    """Store in an index how much its words count, if it holds any, and say where that comes from.

    Only where nobody says it are ``drawn`` asked; they draw from ``rest`` before, which is read then only.

    Raises:
        InputError: Nothing tells the weight.
    """
    from st_l0.index.calibration import weigh_by_spread
    from st_l0.utils.words import Analyzer

    if index.bm25 is None:
        return
    if weight is None and labels is None and index.bm25_weight is not None:
        return
    given = read_weight(weight or "auto", "--bm25-weight")
    named = getattr(encoder, "bm25_weight", None)
    if given != "auto":
        index.bm25_weight, how = given, "as given"
    elif labels is not None:
        from st_l0.data import read_collection
        from st_l0.evaluation.words import choose_weight

        index.bm25_weight, curve = choose_weight(index, encoder, read_collection(labels))
        best, alone = max(curve.values()), curve[0.0]
        how = f"best on the judgements of {labels}: nDCG@10 {best:.4f}, {alone:.4f} without words"
    elif named is not None:
        index.bm25_weight, how = named, "as the model names it"
    else:
        for _ in rest:
            pass
        index.bm25_weight = weigh_by_spread(index, encoder, drawn.drawn)
        how = f"by the spread of scores over {len(drawn)} titles or first sentences, without labels"
    say(f"{name}: words with {Analyzer(index.bm25.language).description}")
    say(f"{name}: BM25 counts {index.bm25_weight:g} ({how})")
