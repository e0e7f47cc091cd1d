"""Inverse document frequencies: the whole query side of an inference-free model."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

from st_l0.data import read_lines
from st_l0.encoder.leading_space import inside_text
from st_l0.encoder.smoothing import GENERAL_DOCUMENTS, smooth_idf
from st_l0.errors import InputError
from st_l0.utils.files import FileKind, replace_file
from st_l0.utils.inputs import text_batches
from st_l0.utils.progress import show_progress

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_LARGEST = float(np.finfo(np.float32).max)


class Vocabulary(Protocol):
    """What a table asks of a tokenizer, be it of transformers or not."""

    def __len__(self) -> int: ...

    @property
    def all_special_ids(self) -> list[int]:
        """Ids of the special tokens."""

    def get_vocab(self) -> dict[str, int]:
        """Token to id."""


def document_frequencies(
    texts: Iterable[str],
    tokenizer: PreTrainedTokenizerBase,
    *,
    batch_size: int = 1024,
    progress: bool = True,
) -> tuple[np.ndarray, int]:
    """Count in how many texts each token occurs, in one pass.

    Whole texts count, however long: nothing is truncated and no special tokens are added. Their first words
    count as in the middle of a text, whatever the tokenizer (see `st_l0.encoder.leading_space`).

    Args:
        texts: The corpus; a stream is consumed as it comes.
        tokenizer: A fast tokenizer. It is left unchanged.
        batch_size: Texts tokenized at once.
        progress: Whether to show a progress bar.

    Returns:
        Number of texts with each token, int64 of shape ``(vocabulary,)`` where ``vocabulary`` is the largest
        token id of the tokenizer plus one, and the number of texts.

    Raises:
        InputError: There are no texts, one is no string (see `st_l0.utils.inputs.as_texts`), or the tokenizer
            is not a fast one, or no tokenizer that words at the beginning of a text can be counted with.
    """
    from tokenizers import Tokenizer

    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise InputError(
            f"{type(tokenizer).__name__} is not a fast tokenizer; save the model with tokenizer.json"
        )
    backend = inside_text(Tokenizer.from_str(backend.to_str()))
    backend.no_truncation()
    backend.no_padding()
    frequencies = np.zeros(_vocabulary_size(tokenizer), np.int64)
    documents = 0
    with show_progress("document frequencies", unit="documents", shown=progress) as bar:
        for batch in text_batches(texts, batch_size):
            for encoding in backend.encode_batch_fast(batch, add_special_tokens=False):
                frequencies[encoding.ids] += 1  # an id that is repeated in the index counts once
            documents += len(batch)
            bar.update(len(batch))
    if not documents:
        raise InputError("there are no texts to count tokens in; give at least one document")
    return frequencies, documents


def compute_idf(
    texts: Iterable[str],
    tokenizer: PreTrainedTokenizerBase,
    *,
    unseen: float | None = 1.0,
    general: np.ndarray | None = None,
    general_documents: int = GENERAL_DOCUMENTS,
    punctuation: bool = False,
    batch_size: int = 1024,
    progress: bool = True,
) -> np.ndarray:
    """IDF of each token over a corpus; special tokens weigh 0.

    The IDF of a small corpus finds less than that of a large one, even of other texts: ``docs/which-idf.md``.

    Args:
        texts: The corpus; a stream is consumed as it comes.
        tokenizer: A fast tokenizer.
        unseen: Weight of tokens that no text has; ``None`` gives them the largest. See `smooth_idf`.
        general: A table of a larger corpus, to take the mean with, ``(vocabulary,)``.
        general_documents: As many texts count as much as ``general``.
        punctuation: Whether punctuation weighs what its IDF is, and not 0.
        batch_size: Texts tokenized at once.
        progress: Whether to show a progress bar.

    Returns:
        Weights, float32, ``(vocabulary,)``; see `document_frequencies` and `smooth_idf`.

    Raises:
        InputError: There are no texts, one is no string (see `st_l0.utils.inputs.as_texts`), the tokenizer
            is not a fast one, or `smooth_idf` refuses an argument.
    """
    frequencies, documents = document_frequencies(texts, tokenizer, batch_size=batch_size, progress=progress)
    return smooth_idf(
        frequencies,
        documents,
        tokenizer,
        unseen=unseen,
        general=general,
        general_documents=general_documents,
        punctuation=punctuation,
    )


def write_idf(path: str | Path, weights: np.ndarray, tokenizer: PreTrainedTokenizerBase) -> None:
    """Write a table as a JSON object, token to weight, in order of token ids; special tokens are left out.

    `read_idf` gives back the same float32 values. A file that existed is replaced only once all is written.

    Args:
        path: Where to write, usually ``idf.json``; compressed if it ends in ``.gz``.
        weights: ``(vocabulary,)``; rows beyond the tokenizer (a padded model vocabulary) are not written.
        tokenizer: Names the tokens.

    Raises:
        InputError: ``weights`` is shorter than the vocabulary, or a weight is negative or not finite; or
            ``path`` is something else than a table, which would be lost.
    """
    size = _vocabulary_size(tokenizer)
    if weights.ndim != 1 or len(weights) < size:
        raise InputError(f"{path}: weights of shape {weights.shape} for {size} tokens; give one a token")
    special = set(tokenizer.all_special_tokens)
    tokens = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    table = {
        token: _weight(path, token, float(weights[id_])) for token, id_ in tokens if token not in special
    }
    with replace_file(path, TABLE) as temporary:
        text = (json.dumps(table, ensure_ascii=False, indent=0) + "\n").encode()
        # Without the time of day, so that the same table is the same file.
        temporary.write_bytes(gzip.compress(text, mtime=0) if Path(path).suffix == ".gz" else text)


def read_idf(
    path: str | Path,
    tokenizer: Vocabulary,
    *,
    default: float = 1.0,
    unknown: Literal["error", "drop"] = "error",
) -> np.ndarray:
    """Read a table written by `write_idf` or published with a model (a JSON object, token to weight).

    Special tokens (``[CLS]``, ``[SEP]``, ``[UNK]`` ...) weigh 0 whatever the table says: they are no words,
    and since all unknown words share ``[UNK]``, a weight there would make unrelated texts match.

    Args:
        path: A UTF-8 JSON file, compressed if its name ends in ``.gz``.
        tokenizer: Maps tokens to rows.
        default: Weight of tokens that the table lacks; 1, as the reference implementation has it.
        unknown: What to do with an entry that is not in the vocabulary: ``"error"``, or ``"drop"`` it.

    Returns:
        Weights, float32, ``(vocabulary,)`` where ``vocabulary`` is the largest token id plus one.

    Raises:
        InputError: The file cannot be read or is not one JSON object; a token occurs twice; a weight is not a
            finite number of at least 0; or (unless dropped) entries are outside the vocabulary.
    """
    if unknown not in ("error", "drop"):
        raise InputError(f"unknown={unknown!r} is not known; give 'error' or 'drop'")
    return _table(path, _read_object(path), tokenizer, default, unknown)


def query_weights(given: Any, tokenizer: Vocabulary) -> np.ndarray:
    """Query weights as people have them, as a table.

    Args:
        given: Path of an ``idf.json``; what ``json.load`` makes of one, token to weight, read as `read_idf`
            reads the file; ``"binary"`` for weight 1 on every token; or a weight for each token in the order
            of their ids: a numpy array, a torch tensor or a list, ``(vocabulary,)``.
        tokenizer: Maps tokens to rows.

    Returns:
        Weights, float32, ``(vocabulary,)``, as in `read_idf`; those of an array as they stand there.

    Raises:
        InputError: As for `read_idf`; there is another number of weights than of tokens, or one is no finite
            number of at least 0, which the message names by its token.
    """
    if isinstance(given, str | Path):
        if given == "binary":
            return np.ones(len(tokenizer), dtype=np.float32)
        return read_idf(given, tokenizer)
    if isinstance(given, Mapping):
        return _table("idf", given.items(), tokenizer, 1.0, "error")
    if hasattr(given, "detach"):  # a torch tensor, which numpy takes from the CPU only, and not as bfloat16
        given = given.detach().to_dense().double().cpu()
    try:
        weights = np.asarray(given, dtype=np.float64)
    except (TypeError, ValueError):
        raise InputError(
            f"idf is a {type(given).__name__}; give the path of an idf.json, a dictionary token to weight, "
            "or an array with a weight for each token"
        ) from None
    if weights.shape != (len(tokenizer),):  # quicker to ask than the vocabulary itself
        raise InputError(
            f"idf has the shape {weights.shape}, but the tokenizer knows {len(tokenizer)} tokens"
        )
    check_weights("idf", weights, tokenizer)
    return weights.astype(np.float32)


def check_weights(source: str | Path, weights: np.ndarray, tokenizer: Vocabulary) -> None:
    """Refuse a weight that is not a finite number of at least 0, by its token.

    Raises:
        InputError: There is one; ``source`` is what the message says that it is in.
    """
    bad = np.flatnonzero(~((weights >= 0) & (weights <= _LARGEST)))
    if len(bad):
        tokens = {row: token for token, row in tokenizer.get_vocab().items()}
        _weight(source, tokens.get(int(bad[0]), str(bad[0])), float(weights[bad[0]]))


def _table(
    source: str | Path,
    pairs: Iterable[tuple[Any, Any]],
    tokenizer: Vocabulary,
    default: float,
    unknown: str,
) -> np.ndarray:
    """A table of tokens and their weights; see `read_idf`."""
    vocabulary = tokenizer.get_vocab()
    weights = np.full(_vocabulary_size(tokenizer), _weight("default", "default", default), np.float32)
    seen: set[str] = set()
    strangers: list[str] = []
    for token, value in pairs:
        if not isinstance(token, str):
            raise InputError(f"{source}: {token!r:.40} is no token; map tokens to weights")
        if token in seen:
            raise InputError(f"{source}: {token!r} occurs twice; keep one of its weights")
        seen.add(token)
        weight = _weight(source, token, value)
        if token in vocabulary:
            weights[vocabulary[token]] = weight
        else:
            strangers.append(token)
    if strangers and unknown == "error":
        first = ", ".join(map(repr, strangers[:3])) + (", ..." if len(strangers) > 3 else "")
        raise InputError(
            f"{source}: {len(strangers)} of {len(seen)} entries are not in the tokenizer's vocabulary "
            f"({first}); use the table of this tokenizer, or read_idf(..., unknown='drop') and pass the array"
        )
    weights[tokenizer.all_special_ids] = 0.0
    return weights


class _Pairs(list[tuple[str, Any]]):
    """A JSON object with its keys as they stand, so that a repeated key shows."""


def _read_object(path: str | Path) -> _Pairs:
    text = "\n".join(line for _, line in read_lines(path))
    try:
        pairs = json.loads(text, object_pairs_hook=_Pairs)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: invalid JSON ({error}); give one JSON object, token to weight") from None
    if not isinstance(pairs, _Pairs):
        raise InputError(
            f"{path}: expected a JSON object, found {type(pairs).__name__}; map tokens to weights"
        )
    if not pairs:
        raise InputError(f"{path}: holds no weights; map tokens to weights")
    return pairs


def _is_table(path: Path) -> bool:
    return all(isinstance(value, int | float) for _, value in _read_object(path))


TABLE = FileKind("a table of query weights", _is_table)


def _weight(path: str | Path, token: str, value: Any) -> float:
    if hasattr(value, "item") and getattr(value, "ndim", 1) == 0:  # a number of numpy or torch
        value = value.item()
    # The comparison refuses NaN too, and integers that do not fit a float.
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not 0 <= value <= _LARGEST:
        raise InputError(
            f"{path}: the weight of {token!r} is {value!r:.40}; give a finite number of at least 0"
        )
    return float(value)


def check_ids(vocabulary: Mapping[str, int], place: str = "") -> None:
    """Refuse a vocabulary in which two tokens share an id: which one is kept changes from load to load.

    Raises:
        InputError: Two do; ``place`` is what the message begins with.
    """
    if len(set(vocabulary.values())) == len(vocabulary):
        return
    seen: dict[int, str] = {}
    for token, number in sorted(vocabulary.items()):
        if number in seen:
            raise InputError(
                f"{place}the tokens {seen[number]!r} and {token!r} of the tokenizer have the same id "
                f"{number}: restore its files"
            )
        seen[number] = token


def _vocabulary_size(tokenizer: Vocabulary) -> int:
    vocabulary = tokenizer.get_vocab()
    check_ids(vocabulary)
    return int(max(vocabulary.values())) + 1
