"""BM25 as a teacher: the words that embeddings miss."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import scipy.sparse as sp

from st_l0.errors import InputError
from st_l0.teachers.model_teachers import SparseScores
from st_l0.teachers.teacher import Side
from st_l0.utils.files import FileKind, check_file, replace_file
from st_l0.utils.inputs import text_batches
from st_l0.utils.paths import local_path
from st_l0.utils.reading import read_json
from st_l0.utils.words import K1, Analyzer, B

_CHUNK = 4096


def write_bm25(path: str | Path, texts: Iterable[str]) -> None:
    """Count a corpus into what the teacher ``bm25:PATH`` needs.

    Args:
        path: The JSON file to write: number of documents, their mean length in words, in how many of
            them each word occurs, and the fingerprint of the `Analyzer` that made the words.
        texts: The documents.

    Raises:
        InputError: No document holds a word, or one is no string; ``path`` is something else than such a
            file, which would be lost.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> from st_l0.teachers import load_teacher
        >>> with TemporaryDirectory() as folder:
        ...     write_bm25(f"{folder}/bm25.json", ["Rain falls from clouds.", "An index lists words."])
        ...     teacher = load_teacher(f"bm25:{folder}/bm25.json")
        >>> teacher.score_pairs(["rain"] * 2, ["Rain fell.", "Words."]).argmax().item()
        0
    """
    check_file(path, _STATISTICS)
    analyze = Analyzer()
    frequencies: Counter[str] = Counter()
    documents = words = 0
    for chunk in text_batches(texts, _CHUNK):
        for row in analyze(chunk):
            frequencies.update(list(dict.fromkeys(row)))  # not a set, whose order changes from run to run
            words += len(row)
        documents += len(chunk)
    if not words:
        raise InputError(f"{path}: the texts hold no word to count; give others")
    content = {
        "documents": documents,
        "mean_length": words / documents,
        "frequencies": dict(frequencies),
        "analyzer": analyze.fingerprint,
    }
    with replace_file(path, _STATISTICS) as new:
        new.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")


def _is_statistics(path: Path) -> bool:
    return {"documents", "mean_length", "frequencies"} <= set(json.loads(path.read_text(encoding="utf-8")))


_STATISTICS = FileKind("statistics of a corpus", _is_statistics)


class BM25Teacher(SparseScores):
    """BM25 of any texts by the statistics of one corpus, so that a score depends on the pair alone.

    Lucene's variant with k1 1.2, b 0.75 and the words of `st_l0.utils.words`, as `st_l0.evaluation` has it. A
    word that the corpus does not have counts as one of no document.

    Args:
        name: What it is called.
        path: A file of `write_bm25`.

    Raises:
        InputError: The file is missing, was not made so, or with another analyzer of words.
    """

    def __init__(self, name: str, path: str | Path) -> None:
        self.name = name
        self._analyze = Analyzer()
        mend = "st_l0.teachers.write_bm25 makes one"
        content = read_json(local_path(path), mend)
        try:
            self._documents, self._mean = int(content["documents"]), float(content["mean_length"])
            self._frequencies = {word: int(count) for word, count in content["frequencies"].items()}
            whole = 0 < self._mean < math.inf and all(
                1 <= count <= self._documents for count in self._frequencies.values()
            )
        except (ValueError, OverflowError, KeyError, TypeError, AttributeError):
            whole = False
        if not whole:
            raise InputError(f"{path}: does not hold the statistics of a corpus; {mend}")
        # A file of an earlier version, which had no words of one character, does not say.
        self._short_words = "analyzer" in content
        if content.get("analyzer", self._analyze.fingerprint) != self._analyze.fingerprint:
            raise InputError(f"{path}: made with other words (another version of a library?); {mend}")
        self._columns: dict[str, int] = {}

    def embed(self, texts: list[str], side: Side) -> sp.csr_matrix:
        """``(texts, words seen so far)``: counts of a query, BM25 weights of a document."""
        values: list[float] = []
        columns: list[int] = []
        ends = [0]
        for words in self._analyze(texts):
            if not self._short_words:
                words = [word for word in words if len(word) > 1 or word in self._frequencies]
            norm = K1 * (1 - B + B * len(words) / self._mean)
            for word, count in Counter(words).items():
                columns.append(self._columns.setdefault(word, len(self._columns)))
                values.append(count if side == "query" else self._idf(word) * count / (count + norm))
            ends.append(len(columns))
        return sp.csr_matrix(
            (np.array(values, np.float32), columns, ends), shape=(len(texts), len(self._columns))
        )

    def _idf(self, word: str) -> float:
        frequency = self._frequencies.get(word, 0)
        return math.log1p((self._documents - frequency + 0.5) / (frequency + 0.5))
