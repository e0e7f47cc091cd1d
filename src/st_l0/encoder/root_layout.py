"""The layout that every tool reads: the transformer and idf.json at the root of a checkpoint."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np

_ROUTER = "router_config.json"
# A token that weighs nothing: OpenSearch refuses queries with a weight of 0, and takes 1 where there is none.
_NOTHING = 1e-9


def to_root(folder: Path, query_weights: np.ndarray, tokenizer: Any) -> None:
    """Move the transformer of a saved router to the root of its folder, and write the table beside it.

    So OpenSearch publishes its models. The router names the root by an empty name, which all versions of
    sentence-transformers that know a router load; transformers and whatever reads a repository's root find a
    masked language model there, and ``idf.json`` holds what lies beside the queries' tokenizer too.

    Args:
        folder: What sentence-transformers has just saved.
        query_weights: Weight of each token, ``(vocabulary,)``.
        tokenizer: The queries' tokenizer.
    """
    path = folder / _ROUTER
    router = json.loads(path.read_text(encoding="utf-8"))
    name = router["structure"]["document"][0]
    for file in sorted((folder / name).iterdir()):
        if file.name != "README.md":  # of transformers or an adapter, about this part alone
            _replace(file, folder / file.name)
    shutil.rmtree(folder / name)
    router["types"] = {"" if one == name else one: kind for one, kind in router["types"].items()}
    for route in router["structure"].values():
        route[:] = ["" if one == name else one for one in route]
    path.write_text(json.dumps(router, indent=4), encoding="utf-8")
    unknown = max(0, len(tokenizer) - len(query_weights))  # tokens that were added later weigh nothing
    weights = np.pad(query_weights, (0, unknown)).clip(min=_NOTHING).tolist()
    tokens = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    table = {token: weights[number] for token, number in tokens}
    (folder / "idf.json").write_text(json.dumps(table, ensure_ascii=False, indent=0) + "\n", encoding="utf-8")


def _replace(source: Path, target: Path) -> None:
    if target.is_dir():
        shutil.rmtree(target)
    source.replace(target)
