"""Embeddings that were made once, as a teacher: the same texts are not read again by every training."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import numpy as np
import torch
from torch import Tensor

from st_l0.errors import InputError
from st_l0.teachers.model_teachers import EmbeddingTeacher
from st_l0.teachers.teacher import Side
from st_l0.utils.files import hold_folder, replace_folder
from st_l0.utils.inputs import text_batches
from st_l0.utils.paths import local_path
from st_l0.utils.progress import show_progress
from st_l0.utils.records import PARTS, check_part, digest, read_record
from st_l0.utils.text_rows import DIGEST, TextRows, as_keys, text_key

if TYPE_CHECKING:
    from st_l0.teachers.model_teachers import DenseTeacher

_CHUNK = 4096
_KIND = "embeddings of a teacher"
_FILES, _RECORD = ("keys.npy", "vectors.npy"), "vectors.json"


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
    each text and its side, sorted; and ``vectors.json``, which names the teacher and its prompts and has the
    SHA-256 of both.
    It appears whole or not at all.

    Args:
        teacher: The embedding model; it compares by dot product or cosine of unit vectors.
        queries: Texts to score as queries.
        documents: Texts to score as documents.
        output: The folder.
        progress: Whether to show a progress bar (on a terminal).

    Raises:
        InputError: There is no text, one is no string, or the model does not compare unit vectors; ``output``
            holds something else, or another process is writing it.
    """
    with hold_folder(output, _KIND):
        keys, vectors = _embed_all(teacher, queries, documents, progress)
        if not len(keys):
            raise InputError(f"{output}: there are no texts to embed; give some")
        with replace_folder(output, _KIND) as folder:
            np.save(folder / _FILES[0], keys)
            np.save(folder / _FILES[1], vectors)
            prompts = {side: teacher.model.prompts.get(side, "") for side in get_args(Side)}
            record = {
                "teacher": teacher.name,
                "prompts": prompts,
                PARTS: [digest(folder / name) for name in _FILES],
            }
            (folder / _RECORD).write_text(json.dumps(record) + "\n", encoding="utf-8")


def _embed_all(
    teacher: DenseTeacher, queries: Iterable[str], documents: Iterable[str], progress: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Digests of the texts, sorted, and their vectors."""
    keys: dict[bytes, None] = {}
    parts: list[np.ndarray] = []
    sides: tuple[tuple[Side, Iterable[str]], ...] = (("query", queries), ("document", documents))
    with show_progress("embedding", unit="texts", shown=progress) as bar:
        for side, texts in sides:
            for chunk in text_batches(texts, _CHUNK, side):
                new = {text_key(text, side): text for text in chunk}
                new = {key: text for key, text in new.items() if key not in keys}
                if new:
                    keys.update(dict.fromkeys(new))
                    parts.append(_unit(teacher, list(new.values()), side))
                bar.update(len(chunk))
    digests = as_keys(keys)
    order = np.argsort(digests, kind="stable")
    return digests[order], np.concatenate(parts)[order] if parts else np.empty((0, 0), np.float16)


class VectorTeacher(EmbeddingTeacher):
    """Scores by embeddings of a folder that `write_vectors` made.

    Args:
        name: What it is called.
        folder: The folder.

    Raises:
        InputError: The folder is no such one, or a file of it has changed; later, a text was not embedded.
    """

    def __init__(self, name: str, folder: str | Path) -> None:
        self.name, self._folder = name, local_path(folder)
        keys, vectors = (self._folder / file for file in _FILES)
        if (self._folder / _RECORD).is_file():  # one without digests is of an earlier version
            record = read_record(self._folder / _RECORD, ())
            for number, file in enumerate((keys, vectors)):
                check_part(file, number, record, "let st_l0.teachers.write_vectors make the folder again")
        try:
            found = np.load(keys)
            self._vectors = np.load(vectors, mmap_mode="r")
            whole = _match(found, self._vectors)
        except (OSError, ValueError, EOFError):  # how numpy complains
            whole = False
        if not whole:
            raise InputError(f"{folder}: no embeddings; st_l0.teachers.write_vectors makes them")
        self._rows = TextRows(found)
        self.precision = torch.float16 if self._vectors.dtype == np.float16 else torch.float32

    def embed(self, texts: list[str], side: Side) -> Tensor:
        """``(texts, dims)``, float32, looked up."""
        rows = self._rows.find(texts, side)
        missing = np.flatnonzero(rows < 0)
        if len(missing):
            problem = f"{self._folder}: the {side} {texts[missing[0]]!r:.60} was not embedded"
            raise InputError(f"{problem}; embed all texts of the training data")
        return torch.from_numpy(self._vectors[rows].astype(np.float32))

    def knows(self, texts: list[str], side: Side) -> np.ndarray:
        """Which texts were embedded; ``(texts,)``, bool."""
        return self._rows.find(texts, side) >= 0

    def sample(self) -> list[float]:
        """Scores among a few of its vectors, at most 8, to tell it from others."""
        rows = np.linspace(0, len(self._vectors) - 1, min(8, len(self._vectors)), dtype=np.int64)
        some = torch.from_numpy(self._vectors[rows].astype(np.float32))
        return self._pairs(some, some.roll(1, 0)).tolist()

    def _pairs(self, queries: Tensor, documents: Tensor) -> Tensor:
        return (queries * documents).sum(1)

    def _all(self, queries: Tensor, documents: Tensor) -> Tensor:
        return queries @ documents.T


def _match(keys: np.ndarray, vectors: np.ndarray) -> bool:
    """Whether the two belong together: a key for each vector, all different and sorted."""
    return bool(
        keys.dtype == np.dtype(f"S{DIGEST}")
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
