"""What is known of a checkpoint beside its weights, put into the data of its card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from st_l0.encoder.hub_options import HubOptions
from st_l0.encoder.model_card import TRAINING_FILE, ModelCardData
from st_l0.encoder.sparse_encoder import SparseEncoder
from st_l0.utils.reading import read_json
from st_l0.utils.stock import card_text


def describe(
    encoder: SparseEncoder,
    source: str,
    *,
    evaluation: Sequence[dict[str, Any]] = (),
    notes: Mapping[str, Any] | None = None,
) -> ModelCardData:
    """Fill the data of an encoder's card, so that it is written anew.

    Args:
        encoder: Loaded from ``source``.
        source: Folder or Hub id; what it was trained with lies beside its weights, and its own card says
            licence, language, base model and data where ``notes`` do not.
        evaluation: See `st_l0.hub.results.read_results`.
        notes: See `st_l0.hub.notes.read_notes`.

    Raises:
        InputError: What was noted of the training cannot be read.
    """
    card = cast(ModelCardData, encoder.model_card_data)
    _take_over(card, card_text(encoder))
    facts = HubOptions(local_files_only=True).find(source, TRAINING_FILE)
    if facts is not None:
        card.training = read_json(facts, "remove it, or train the model again")
    card.notes, card.evaluation = dict(notes or {}), list(evaluation)
    card.base_model = card.notes.get("base_model") or card.base_model
    return card


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
