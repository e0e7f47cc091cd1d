"""What a saved checkpoint is made of, and whether it has all its files, before anything is loaded."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from st_l0.encoder.hub_options import HubOptions
from st_l0.encoder.pretrained import read_json, read_settings, required
from st_l0.errors import InputError

# The names that sentence-transformers gave to the settings of a `Transformer` in the course of time.
_TRANSFORMER_SETTINGS = tuple(
    f"sentence_{name}_config.json"
    for name in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)
# Any one of them is what a tokenizer is read from.
_VOCABULARIES = (
    *("tokenizer.json", "vocab.txt", "vocab.json", "sentencepiece.bpe.model", "spiece.model"),
    *("tokenizer.model", "spm.model", "bpe.codes"),
)


class SavedModule(NamedTuple):
    """One module: the folder with its files (``""`` for the root), and the path of its class."""

    folder: str
    type_name: str

    @property
    def kind(self) -> str:
        """Name of its class."""
        return self.type_name.rpartition(".")[2]


class Structure(NamedTuple):
    """The modules of a checkpoint, and those that a query goes through."""

    modules: list[SavedModule]
    query: list[SavedModule]


def read_structure(checkpoint: str, hub_options: HubOptions) -> Structure:
    """Read ``modules.json``, and ``router_config.json`` where there is a router.

    Raises:
        InputError: One of the two is missing, damaged or names what is not there.
    """
    path = required(checkpoint, "modules.json", hub_options)
    entries = read_json(path, list)
    if not entries:
        raise InputError(f"{path}: names no modules: restore the checkpoint")
    modules = []
    for entry in entries:
        if not isinstance(entry, dict) or not all(
            isinstance(entry.get(key), str) for key in ("name", "path", "type")
        ):
            raise InputError(f"{path}: each module needs a name, a path and a type: restore the checkpoint")
        modules.append(SavedModule(_normal(entry["path"]), entry["type"]))
    if len(modules) > 1 or modules[0].kind != "Router":
        return Structure(modules, modules)
    return _read_router(checkpoint, modules[0].folder, hub_options)


def document_folder(checkpoint: str, hub_options: HubOptions) -> str:
    """Folder of the transformer and its tokenizer within a checkpoint; ``""`` where they lie at the top.

    Raises:
        InputError: As `read_structure`.
    """
    if hub_options.find(checkpoint, "modules.json") is None:
        return ""
    modules = read_structure(checkpoint, hub_options).modules
    return next((one.folder for one in modules if one.kind in ("Transformer", "MLMTransformer")), "")


def is_siamese(checkpoint: str, hub_options: HubOptions) -> bool:
    """Whether a saved encoder has one model for both sides, which lies at the top as a model alone does.

    Raises:
        InputError: As `read_structure`.
    """
    structure = read_structure(checkpoint, hub_options)
    return structure.query == structure.modules and document_folder(checkpoint, hub_options) == ""


def check_files(checkpoint: str, structure: Structure, hub_options: HubOptions) -> dict[str, Any]:
    """Refuse a sparse encoder that lost a file, without which it would be loaded as another one.

    Returns:
        Its settings, see `read_settings`.

    Raises:
        InputError: A file is missing, damaged, or lacks what has to be in it.
    """
    settings = read_settings(checkpoint, hub_options)
    for module in structure.modules:
        if module.kind in ("Transformer", "MLMTransformer"):
            read_json(required(checkpoint, inside(module.folder, "config.json"), hub_options))
            found = (
                hub_options.find(checkpoint, inside(module.folder, name)) for name in _TRANSFORMER_SETTINGS
            )
            path = next(filter(None, found), None)
            if path is None:
                required(checkpoint, inside(module.folder, _TRANSFORMER_SETTINGS[0]), hub_options)
            _require_keys(path, ())
        if module.kind == "SpladePooling":
            path = required(checkpoint, inside(module.folder, "config.json"), hub_options)
            _require_keys(path, ("pooling_strategy", "activation_function"))
        if module.kind in ("Transformer", "MLMTransformer", "SparseStaticEmbedding"):
            check_tokenizer_files(checkpoint, module.folder, hub_options, saved=True)
    return settings


def check_tokenizer_files(
    checkpoint: str, folder: str, hub_options: HubOptions, *, saved: bool = False
) -> None:
    """Refuse a folder without a vocabulary: transformers makes a tokenizer that knows no word of it.

    Args:
        checkpoint: Folder or Hub id.
        folder: Folder within it.
        hub_options: How to reach it.
        saved: Whether ``tokenizer_config.json`` has to be there too, as in all that was saved since 2020.

    Raises:
        InputError: A file is missing.
    """
    config = hub_options.find(checkpoint, inside(folder, "tokenizer_config.json"))
    if saved:
        config = required(checkpoint, inside(folder, "tokenizer_config.json"), hub_options)
        _require_keys(config, ("tokenizer_class",))
    if "auto_map" in read_json(config):  # code of its own, which knows its files
        return
    if not any(hub_options.find(checkpoint, inside(folder, name)) for name in _VOCABULARIES):
        required(checkpoint, inside(folder, _VOCABULARIES[0]), hub_options)


def inside(folder: str, file: str) -> str:
    """Path of a file of a module within its checkpoint."""
    return f"{folder}/{file}" if folder else file


def _read_router(checkpoint: str, folder: str, hub_options: HubOptions) -> Structure:
    for name in ("router_config.json", "config.json"):  # the latter in older checkpoints
        path = hub_options.find(checkpoint, inside(folder, name))
        config = read_json(path)
        if path is not None and (name == "router_config.json" or "structure" in config):
            break
    else:
        raise InputError(f"{checkpoint}: no {inside(folder, 'router_config.json')}: restore the checkpoint")
    _require_keys(path, ("types", "structure", "parameters"))
    types, routes = config["types"], config["structure"]
    if not _is_object(types, str) or not _is_object(routes, list) or not _is_object(config["parameters"]):
        raise InputError(f"{path}: types, structure or parameters are malformed: restore the checkpoint")
    modules = {name: SavedModule(_normal(inside(folder, name)), kind) for name, kind in types.items()}
    for name in (name for route in routes.values() for name in route):
        if not isinstance(name, str) or name not in modules:
            raise InputError(f"{path}: has no type for the module {name!r:.80}: restore the checkpoint")
    return Structure(list(modules.values()), [modules[name] for name in routes.get("query", ())])


def _normal(folder: str) -> str:
    return "" if not Path(folder).parts else Path(folder).as_posix()


def _require_keys(path: Path | None, keys: Iterable[str]) -> None:
    found = read_json(path)
    lost = [key for key in keys if key not in found]
    if lost or not found:
        raise InputError(f"{path}: lacks {lost[0] if lost else 'all settings'}: restore the checkpoint")


def _is_object(value: Any, kind: type = object) -> bool:
    return isinstance(value, dict) and all(isinstance(one, kind) for one in value.values())
