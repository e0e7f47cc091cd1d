"""Embeddings that were made once, as a teacher: the same texts are not read again by every training."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from st_l0.errors import InputError
from st_l0.teachers.model_teachers import EmbeddingTeacher, Side
from st_l0.utils.files import replace_folder
from st_l0.utils.inputs import text_batches

if TYPE_CHECKING:
    from st_l0.teachers.model_teachers import DenseTeacher

_CHUNK = 4096
_DIGEST = 16


def write_vectors(
    teacher: DenseTeacher,
    queries: Iterable[str],
    documents: Iterable[str],
    output: str | Path,
    *,
    progress: bool = True,
) -> None:
    """Embed texts with a dense teacher into the folder of a teacher ``vectors:FOLDER``.

    The folder holds ``vectors.npy``, ``(texts, dims)``, of unit length, float16; ``keys.npy``, a digest of
    each text and its side, sorted; and ``vectors.json``, which names the teacher. It appears whole or not at
    all.

    Args:
        teacher: The embedding model; it compares by dot product or cosine of unit vectors.
        queries: Texts to score as queries.
        documents: Texts to score as documents.
        output: The folder.
        progress: Whether to show a progress bar (on a terminal).

    Raises:
        InputError: There is no text, one is no string, or the model does not compare unit vectors.
    """
    keys: dict[bytes, None] = {}
    parts: list[np.ndarray] = []
    sides: tuple[tuple[Side, Iterable[str]], ...] = (("query", queries), ("document", documents))
    with tqdm(desc="embedding", unit="text", disable=None if progress else True) as bar:
        for side, texts in sides:
            for chunk in text_batches(texts, _CHUNK, side):
                new = {_key(text, side): text for text in chunk}
                new = {key: text for key, text in new.items() if key not in keys}
                if new:
                    keys.update(dict.fromkeys(new))
                    parts.append(_unit(teacher, list(new.values()), side))
                bar.update(len(chunk))
    if not keys:
        raise InputError(f"{output}: there are no texts to embed; give some")
    digests = np.frombuffer(b"".join(keys), dtype=f"S{_DIGEST}")
    order = np.argsort(digests, kind="stable")
    with replace_folder(output, "embeddings of a teacher") as folder:
        np.save(folder / "keys.npy", digests[order])
        np.save(folder / "vectors.npy", np.concatenate(parts)[order])
        (folder / "vectors.json").write_text(json.dumps({"teacher": teacher.name}) + "\n", encoding="utf-8")


class VectorTeacher(EmbeddingTeacher):
    """Scores by embeddings of a folder that `write_vectors` made.

    Args:
        name: What it is called.
        folder: The folder.

    Raises:
        InputError: The folder is no such one; later, a text was not embedded.
    """

    def __init__(self, name: str, folder: str | Path) -> None:
        self.name, self._folder = name, Path(folder)
        try:
            self._keys = np.load(self._folder / "keys.npy")
            self._vectors = np.load(self._folder / "vectors.npy", mmap_mode="r")
            whole = _match(self._keys, self._vectors)
        except (OSError, ValueError, EOFError):  # how numpy complains
            whole = False
        if not whole:
            raise InputError(f"{folder}: no embeddings; st_l0.teachers.write_vectors makes them")

    def embed(self, texts: list[str], side: Side) -> Tensor:
        """``(texts, dims)``, float32, looked up."""
        keys = np.frombuffer(b"".join(_key(text, side) for text in texts), dtype=self._keys.dtype)
        places = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        missing = np.flatnonzero(self._keys[places] != keys)
        if len(missing):
            problem = f"{self._folder}: the {side} {texts[missing[0]]!r:.60} was not embedded"
            raise InputError(f"{problem}; embed all texts of the training data")
        return torch.from_numpy(self._vectors[places].astype(np.float32))

    def _pairs(self, queries: Tensor, documents: Tensor) -> Tensor:
        return (queries * documents).sum(1)

    def _all(self, queries: Tensor, documents: Tensor) -> Tensor:
        return queries @ documents.T


def _match(keys: np.ndarray, vectors: np.ndarray) -> bool:
    """Whether the two belong together: a key for each vector, all different and sorted."""
    return bool(
        keys.dtype == np.dtype(f"S{_DIGEST}")
        and keys.ndim == 1
        and len(keys)
        and (keys[1:] > keys[:-1]).all()
        and vectors.ndim == 2
        and vectors.dtype.kind == "f"
        and len(vectors) == len(keys)
    )


def _unit(teacher: DenseTeacher, texts: list[str], side: Side) -> np.ndarray:
    vectors = teacher.embed(texts, side)
    norms = vectors.norm(dim=1, keepdim=True)
    if teacher.model.similarity_fn_name == "cosine":
        vectors = vectors / norms.clamp(min=1e-12)
    elif teacher.model.similarity_fn_name != "dot" or (norms - 1).abs().max() > 1e-3:
        raise InputError(f"teacher {teacher.name} does not compare vectors of unit length")
    return vectors.cpu().numpy().astype(np.float16)


def _key(text: str, side: Side) -> bytes:
    # S16 drops trailing zero bytes, so a digest must not end in one.
    digest = hashlib.blake2b(f"{side}\0{text}".encode(), digest_size=_DIGEST).digest()
    return digest[:-1] + bytes([digest[-1] or 1])
