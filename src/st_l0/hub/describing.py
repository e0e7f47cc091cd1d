"""What is known of a checkpoint beside its weights, put into the data of its card."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple, cast

from st_l0.encoder.hub_options import HubOptions
from st_l0.encoder.model_card import TRAINING_FILE, ModelCardData, fill, write_training
from st_l0.encoder.sparse_encoder import SparseEncoder
from st_l0.errors import InputError, reason
from st_l0.hub.notes import read_notes
from st_l0.hub.onnx_graph import OnnxFacts
from st_l0.hub.results import hub_results, read_results
from st_l0.utils.paths import local_path
from st_l0.utils.reading import read_json, read_text
from st_l0.utils.stock import card_text

_ONNX = re.compile(r"^## ONNX\n.*?(?=^## |\Z)", re.DOTALL | re.MULTILINE)


class CardSources(NamedTuple):
    """What a card is made of beside the model: a finished text, or notes and measurements."""

    finished: str | None
    notes: dict[str, Any]
    results: list[dict[str, Any]]


def read_sources(evaluation: Iterable[str | Path], card: str | Path | None) -> CardSources:
    """Read what a card is made of; for the start, before a model is loaded.

    Args:
        evaluation: See `st_l0.hub.results.read_results`.
        card: Notes (``.yaml``, see `st_l0.hub.notes.read_notes`), or a finished card (``.md``).

    Raises:
        InputError: A file cannot be read.
    """
    path = None if card is None else local_path(card)
    if path is not None and path.suffix == ".md":
        text = read_text(path, "give a card in Markdown")
        check_card(path, text)
        return CardSources(text, {}, read_results(evaluation, {}))
    notes = {} if path is None else read_notes(path)
    return CardSources(None, notes, read_results(evaluation, notes.get("benchmarks", {})))


def check_card(place: str | Path, text: str) -> None:
    """Refuse a card that huggingface_hub cannot read.

    Raises:
        InputError: It cannot.
    """
    from huggingface_hub import ModelCard

    try:
        ModelCard(text)
    except Exception as error:  # of YAML, and the hub's own
        raise InputError(f"{place}: its head cannot be read ({reason(error)}): correct it") from None


def describe(
    encoder: SparseEncoder,
    source: str,
    sources: CardSources,
) -> ModelCardData:
    """Fill the data of an encoder's card, so that it is written anew.

    Args:
        encoder: Loaded from ``source``.
        source: Folder or Hub id; what it was trained with lies beside its weights, and its own card says
            licence, language, base model and data where the notes do not.
        sources: See `read_sources`.

    Raises:
        InputError: What was noted of the training cannot be read.
    """
    card = cast(ModelCardData, encoder.model_card_data)
    _take_over(card, card_text(encoder))
    facts = HubOptions(local_files_only=True).find(source, TRAINING_FILE)
    if facts is not None:
        card.training = read_json(facts, "remove it, or train the model again")
    card.notes, card.evaluation = sources.notes, sources.results
    card.base_model = card.notes.get("base_model") or card.base_model
    return card


def write_card(card: ModelCardData, folder: Path, sources: CardSources) -> None:
    """Write the card of a saved model, the Hub's files of results and what is known of its training.

    Raises:
        InputError: What was written cannot be read back.
    """
    if card.training:
        write_training(folder, card.training)
    for name, text in hub_results(card.evaluation).items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    card.size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    text = sources.finished or card.render()
    check_card("the card", text)
    (folder / "README.md").write_text(text, encoding="utf-8")


def write_onnx_section(card: ModelCardData, folder: Path, facts: OnnxFacts | None) -> None:
    """Have the card of a saved model say what its ONNX graph is, and nothing where there is none.

    Args:
        card: Its data.
        folder: Where the card lies, one that may be of an earlier copy with a graph.
        facts: What is known of the graph, if there is one.
    """
    path = folder / "README.md"
    text = _ONNX.sub("", path.read_text(encoding="utf-8")).rstrip() + "\n"
    if facts is not None:
        model: Any = card.model
        place = {"hub": card.model_id is not None, "id": card.model_id or card.location}
        prompt = model.prompts.get("document")
        text += "\n" + fill("onnx.md.jinja", facts=facts, prompt=prompt, **place)
    path.write_text(text, encoding="utf-8")


def _take_over(card: ModelCardData, text: str | None) -> None:
    """Keep what the head of an earlier card says of what a copy has in common with its original."""
    from huggingface_hub import ModelCard

    if not text:
        return
    try:
        known: Any = ModelCard(text, ignore_metadata_errors=True).data
    except (ValueError, TypeError, AttributeError):  # a head that is no YAML
        return
    language = getattr(known, "language", None) or []
    card.language = card.language or ([language] if isinstance(language, str) else list(language))
    card.license = card.license or getattr(known, "license", None)
    base = getattr(known, "base_model", None)
    if card.base_model is None and isinstance(base, str):
        card.base_model = base
    for dataset in getattr(known, "datasets", None) or ():
        if isinstance(dataset, str) and dataset not in card.datasets:
            card.datasets.append(dataset)
