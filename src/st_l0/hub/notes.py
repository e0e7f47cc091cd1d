"""What a card says that no program knows: licences, languages, limits; from a small YAML file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from st_l0.errors import InputError
from st_l0.utils.paths import local_path
from st_l0.utils.reading import read_text

_TEXTS = ("name", "description", "license", "base_model", "training", "limits", "citation")
_DATASET = {"name": str, "id": str, "license": str, "rows": int}
_BENCHMARK = {"dataset": str, "task": str}
_KEYS = (*_TEXTS, "language", "datasets", "benchmarks")


def read_notes(path: str | Path) -> dict[str, Any]:
    """Read the notes for a card.

    Args:
        path: A YAML file with any of these keys: the texts ``name``, ``description``, ``license`` (of the
            model), ``base_model`` (Hub id), ``training``, ``limits`` and ``citation`` (BibTeX); ``language``,
            a code such as ``en`` or a list of them; ``datasets``, a list of training data, each with
            ``name``, and ``license``, ``id`` (on the Hub) and ``rows`` where known; ``benchmarks``, names of
            collections in ``evaluation.json`` to ``{dataset: …, task: …}`` of the Hub's leaderboards.

    Returns:
        The same, ``language`` as a list.

    Raises:
        InputError: It cannot be read, or a key is unknown or not of its kind.
    """
    path = local_path(path)
    try:
        found = yaml.safe_load(read_text(path, "give a YAML file")) or {}
    except yaml.YAMLError as error:
        raise InputError(f"{path}: no YAML ({' '.join(str(error).split()):.120})") from None
    if not isinstance(found, dict):
        raise InputError(f"{path}: holds a {type(found).__name__}; give keys such as license: apache-2.0")
    for key, value in found.items():
        if key not in _KEYS:
            raise InputError(f"{path}: {key!r:.40} is not a known key; known are {', '.join(_KEYS)}")
        if key in _TEXTS:
            _check(path, key, value, str)
    language = found.get("language", [])
    found["language"] = [language] if isinstance(language, str) else language
    _check(path, "language", found["language"], list)
    for one in found["language"]:
        _check(path, "language", one, str)
    _check(path, "datasets", found.setdefault("datasets", []), list)
    for number, one in enumerate(found["datasets"], 1):
        _check_entry(path, f"datasets[{number}]", one, _DATASET, "name")
    _check(path, "benchmarks", found.setdefault("benchmarks", {}), dict)
    for name, one in found["benchmarks"].items():
        _check_entry(path, f"benchmarks.{name}", one, _BENCHMARK, "dataset")
    return found


def _check(path: Path, key: str, value: Any, kind: type) -> None:
    if not isinstance(value, kind) or isinstance(value, bool):
        raise InputError(f"{path}: {key} is {value!r:.40}; give a {kind.__name__}")


def _check_entry(path: Path, place: str, entry: Any, kinds: Mapping[str, type], needed: str) -> None:
    _check(path, place, entry, dict)
    for key, value in entry.items():
        if key not in kinds:
            raise InputError(f"{path}: {place}.{key} is not a known key; known are {', '.join(kinds)}")
        _check(path, f"{place}.{key}", value, kinds[key])
    if needed not in entry:
        raise InputError(f"{path}: {place} needs {needed}")
