"""What mteb and its results repository want to know of a model."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from torch import nn

from st_l0.encoder.hub_options import HubOptions
from st_l0.encoder.sparse_encoder import SparseEncoder
from st_l0.errors import InputError, reason, require

# What a person has to say before results are submitted, where the model's card does not: the values, and
# whether "none" is an answer.
_TO_STATE = {
    "license": False,
    "languages": False,
    "release_date": False,
    "training_datasets": False,
    "public_training_code": True,
    "public_training_data": True,
    "adapted_from": True,
}
_FIELDS = (*_TO_STATE, "citation", "contacts", "open_weights", "reference", "superseded_by")
_LISTS = ("languages", "training_datasets", "contacts")
_COMMIT = re.compile(r"[0-9a-f]{40}")


def check_name(name: str) -> str:
    """A name by which mteb can file results.

    Raises:
        InputError: It is not ``organization/model``.
    """
    if not re.fullmatch(r"[^/\s]+/[^/\s]+", name) or name.split("/")[0] in (".", "..", "~"):
        raise InputError(f"{name!r} is no name for mteb: give organization/model")
    return name


def check_revision(revision: str | None) -> None:
    """Refuse a revision that is no fixed one.

    Raises:
        InputError: It names a branch.
    """
    if revision in ("main", "master", "HEAD"):
        raise InputError(f"revision {revision!r} moves: give the commit that was evaluated, or nothing")


def digest_of(model: SparseEncoder) -> str:
    """40 hexadecimal digits, as of a commit, that name all that the vectors depend on."""
    limits = (model.max_seq_length, model.tokenizer.model_max_length)  # of documents and of queries
    settings = (*limits, model.max_active_dims, sorted(model.prompts.items()), repr(model))
    return hashlib.sha256(f"{model.fingerprint()} {settings}".encode()).hexdigest()[:40]


def hub_commit(checkpoint: str, hub_options: HubOptions) -> str | None:
    """The commit of the Hub that a checkpoint was loaded from, ``None`` for a folder."""
    if Path(checkpoint).is_dir():
        return None
    for file in ("modules.json", "config.json"):
        found = hub_options.find(checkpoint, file)
        if found is not None and _COMMIT.fullmatch(found.parent.name):
            return found.parent.name
    return None


def describe(
    model: SparseEncoder,
    name: str,
    revision: str | None = None,
    *,
    card: Path | None = None,
    stated: Mapping[str, Any] | None = None,
) -> Any:
    """The ``ModelMeta`` of mteb, which loads the checkpoint with mteb's own wrapper.

    Args:
        model: The model.
        name: ``organization/model``.
        revision: Commit of the Hub; if None, `digest_of` the model.
        card: The checkpoint's ``README.md``, whose head gives licence, languages, base model and data.
        stated: Further fields of ``ModelMeta``, which go before those; see `read_stated`.

    Raises:
        InputError: The name or the revision is unusable, or mteb refuses a value.
        MissingExtraError: the extra ``eval`` is not installed.
    """
    models = require("mteb.models", "eval")
    check_name(name)
    check_revision(revision)
    weights = list(model.parameters())
    known = {
        "name": name,
        "revision": revision or digest_of(model),
        "n_parameters": sum(weight.numel() for weight in weights),
        "n_embedding_parameters": _embedding_parameters(model),
        "memory_usage_mb": round(sum(weight.nbytes for weight in weights) / 2**20),
        "use_instructions": any(model.prompts.values()),
        "framework": ["Sentence Transformers", "PyTorch", "safetensors", "Transformers"],
    }
    meta = models.ModelMeta.from_sparse_encoder_model(model)
    values = dict(meta) | known | _from_card(card) | dict(stated or {})
    # Made anew, since a model of pydantic checks nothing when it is copied.
    try:
        return models.ModelMeta(**values)
    except ValueError as error:
        first: dict[str, Any] = getattr(error, "errors", lambda: [{}])()[0]
        field = ".".join(str(part) for part in first.get("loc", ())[:1]) or "a field"
        problem = first.get("msg") or reason(error)
        given = f"{values.get(field)!r:.60}"
        raise InputError(
            f"{name}: mteb refuses {field} {given} ({problem:.200}); give another by --meta"
        ) from None


def read_stated(options: Iterable[str]) -> dict[str, Any]:
    """Fields of ``ModelMeta`` from words ``KEY=VALUE``; ``none`` is no value, a list has commas.

    Raises:
        InputError: One is not of that form, or no field that a person states.

    Example:
        >>> read_stated(["license=mit", "training_datasets=MSMARCO,NQ", "public_training_code=none"])
        {'license': 'mit', 'training_datasets': ['MSMARCO', 'NQ'], 'public_training_code': None}
    """
    stated: dict[str, Any] = {}
    for option in options:
        key, sign, text = option.partition("=")
        if not sign or key not in _FIELDS:
            raise InputError(f"--meta {option}: give KEY=VALUE with a key of {', '.join(_FIELDS)}")
        if key in _LISTS:
            parts = [part.strip() for part in text.split(",")]
            stated[key] = [part for part in parts if part and part != "none"]
        elif text.strip() == "none":
            stated[key] = None
        else:
            stated[key] = {"true": True, "false": False}.get(text.strip(), text.strip())
    return stated


def check_complete(meta: Any, stated: Mapping[str, Any]) -> None:
    """Refuse to submit results of a model that is not fully described.

    Args:
        meta: What `describe` gave.
        stated: What a person stated; ``None`` is an answer for some fields, an empty list for the data.

    Raises:
        InputError: Something is missing; the message says what, and how to state it.
    """
    missing = [
        field
        for field, optional in _TO_STATE.items()
        if getattr(meta, field) is None and not (optional and field in stated)
    ]
    if missing:
        raise InputError(
            f"{meta.name}: a submission needs {', '.join(missing)}, which neither the model's card nor "
            f"--meta states; add --meta {missing[0]}=… (none where there is none)"
        )


def _embedding_parameters(model: SparseEncoder) -> int | None:
    """Weights of the token embeddings of the document encoder, which mteb counts apart."""
    from transformers import PreTrainedModel

    for module in model.modules():
        if isinstance(module, PreTrainedModel):
            embeddings: nn.Module | None = module.get_input_embeddings()
            return None if embeddings is None else sum(weight.numel() for weight in embeddings.parameters())
    return None


def _from_card(card: Path | None) -> dict[str, Any]:
    head = {} if card is None else _head(card)
    languages = require("mteb.languages.iso_mappings", "eval")._hf_langs_to_iso_lang_scripts
    found: dict[str, Any] = {}
    licence = head.get("license")
    if licence == "other":
        licence = head.get("license_link")
    if isinstance(licence, str):
        found["license"] = licence.lower() if "://" not in licence else licence
    if (codes := languages(_texts(head.get("language")) or None)) is not None:
        found["languages"] = codes
    if bases := _texts(head.get("base_model")):
        found["adapted_from"] = bases[0]
    if datasets := _texts(head.get("datasets")):
        found["training_datasets"] = {_task_name(dataset) for dataset in datasets}
        found["public_training_data"] = True  # they are named by their ids on the Hub
    return found


def _head(card: Path) -> dict[str, Any]:
    """The YAML between the first two lines of dashes."""
    text = card.read_text(encoding="utf-8", errors="replace")
    found = re.match(r"---\s*\n(.*?)\n---\s*(\n|$)", text, re.DOTALL)
    try:
        head = yaml.safe_load(found[1]) if found else {}
    except yaml.YAMLError as error:
        raise InputError(f"{card}: its head is no YAML ({reason(error)}); mend it") from None
    return head if isinstance(head, dict) else {}


def _texts(value: Any) -> list[str]:
    """A text or several, as a list."""
    values = value if isinstance(value, list) else [value]
    return [one for one in values if isinstance(one, str)]


def _task_name(dataset: str) -> str:
    """What mteb calls a data set of the Hub, or its own name where mteb has none of it."""
    tasks = require("mteb.get_tasks", "eval").TASK_LIST
    last = dataset.split("/")[-1]
    plain = re.sub(r"[^a-z0-9]", "", last.lower())
    names = (task.metadata.name for task in tasks)
    return next((name for name in names if re.sub(r"[^a-z0-9]", "", name.lower()) == plain), last)
