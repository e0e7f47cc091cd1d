"""Token ids of many texts, made once, in files that are mapped into memory: a batch only gathers and pads."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from st_l0.data.distinct_texts import DistinctTexts
from st_l0.utils.batches import batched
from st_l0.utils.files import replace_folder
from st_l0.utils.progress import show_progress
from st_l0.utils.text_rows import TextRows, as_keys, text_key

Preprocess = Callable[..., Any]

_KIND = "tokens of a training"
_IDS, _KEYS, _SPANS, _RECORD = "ids.bin", "keys.npy", "spans.npy", "tokens.json"
_CHUNK = 4096
_ALONE = 8  # texts of different lengths that are compared without others beside them
_ONE_A_TOKEN = ("input_ids", "attention_mask", "token_type_ids")


class NotStorable(Exception):
    """Features that do not follow from the token ids alone."""


class Side(NamedTuple):
    """How a collator asks for the features of a column.

    Attributes:
        task: ``"query"``, ``"document"``, or ``None`` where the model makes no difference.
        prompt: What stands before each text.
    """

    task: str | None
    prompt: str | None

    @property
    def name(self) -> str:
        """A string that no other side has."""
        return json.dumps(self)


class _Form(NamedTuple):
    """What is made of token ids.

    Attributes:
        features: Each feature in its order; ``None`` for those that hold a number for each token.
        pad: The token that fills up.
        left: Whether it does so before the text.
    """

    features: dict[str, Any]
    pad: int
    left: bool

    def fill(self, tokens: Sequence[np.ndarray]) -> dict[str, Any] | None:
        """The features of texts, ``(texts, longest)``, int64; ``None`` where no text has a token."""
        lengths = np.fromiter(map(len, tokens), np.int64, len(tokens))
        width = int(lengths.max(initial=0))
        if not width:
            return None
        places = np.arange(width)
        mask = places >= width - lengths[:, None] if self.left else places < lengths[:, None]
        ids = np.full(mask.shape, self.pad, np.int64)
        ids[mask] = np.concatenate(tokens)
        made = {
            "input_ids": lambda: torch.from_numpy(ids),
            "attention_mask": lambda: torch.from_numpy(mask.astype(np.int64)),
            "token_type_ids": lambda: torch.zeros(mask.shape, dtype=torch.int64),
        }
        return {name: made[name]() if name in made else value for name, value in self.features.items()}


class TokenStore:
    """The tokens of texts, by their digests.

    The folder holds ``ids.bin``, the ids of all texts one after the other, uint16 or int32; ``keys.npy``, a
    digest of each text and its side, ascending; ``spans.npy``, begin and end of each text's ids, int64
    ``(texts, 2)``; and ``tokens.json``. All processes and their workers map the same files. It pickles as its
    path.

    Args:
        folder: What `write_tokens` made.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        record = json.loads((folder / _RECORD).read_text(encoding="utf-8"))
        self.fingerprint: str = record["fingerprint"]
        self.tokens: int = record["tokens"]
        self._forms = {side: _Form(*form) for side, form in record["sides"].items()}
        # As plain arrays, which are cut in a fraction of the time.
        self._ids = np.asarray(np.memmap(folder / _IDS, record["dtype"], mode="r", shape=(self.tokens,)))
        self._rows = TextRows(np.asarray(np.load(folder / _KEYS, mmap_mode="r")))
        self._spans = np.asarray(np.load(folder / _SPANS, mmap_mode="r"))

    def __reduce__(self) -> tuple[type[TokenStore], tuple[Path]]:
        return TokenStore, (self._folder,)

    @property
    def nbytes(self) -> int:
        """Size of its files."""
        return int(self._ids.nbytes + self._spans.nbytes + len(self._rows) * 16)

    def features(self, texts: Sequence[str], side: Side) -> dict[str, Any] | None:
        """What the model's ``preprocess`` makes of texts; ``None`` where one of them is not known."""
        form = self._forms.get(side.name)
        if form is None:
            return None
        rows = self._rows.find(texts, side.name)
        if (rows < 0).any():
            return None
        return form.fill([self._ids[first:last] for first, last in self._spans[rows].tolist()])

    def agrees(self, texts: Sequence[str], side: Side, preprocess: Preprocess) -> bool:
        """Whether it knows texts and gives what the model's ``preprocess`` makes of them."""
        if side.name not in self._forms:
            return True
        found = self.features(texts, side)
        try:
            _compare(found, dict(preprocess(texts, prompt=side.prompt, task=side.task).items()))
        except NotStorable:
            return False
        return True


def write_tokens(
    folder: Path,
    texts: dict[Side, DistinctTexts],
    preprocess: Preprocess,
    *,
    vocabulary_size: int,
    fingerprint: str,
) -> None:
    """Tokenize texts into a folder, which appears whole or not at all.

    What is made of the ids is compared with what ``preprocess`` gave: chunk by chunk, and for texts alone.

    Args:
        folder: See `TokenStore`.
        texts: Those of each side.
        preprocess: Makes features of texts, as of a model of sentence-transformers.
        vocabulary_size: Number of tokens.
        fingerprint: What the tokens depend on.

    Raises:
        NotStorable: ``preprocess`` makes something else than what follows from the ids.
        OSError: The disk is full, say.
    """
    dtype = np.dtype(np.uint16 if vocabulary_size <= 1 << 16 else np.int32)
    keys: list[np.ndarray] = []
    lengths: list[np.ndarray] = []
    forms: dict[str, _Form] = {}
    total = sum(map(len, texts.values()))
    with (
        replace_folder(folder, _KIND) as new,
        show_progress("tokenizing", total, unit="texts") as bar,
        (new / _IDS).open("wb") as file,
    ):
        for side, of_side in texts.items():
            for chunk, found in _tokenized(of_side, side, dtype, preprocess, forms):
                file.write(np.concatenate(found).tobytes())
                keys.append(as_keys(text_key(text, side.name) for text in chunk))
                lengths.append(np.fromiter(map(len, found), np.int64, len(found)))
                bar.update(len(chunk))
        file.flush()
        tokens = _write_index(new, keys, lengths)
        record = {"fingerprint": fingerprint, "dtype": dtype.str, "tokens": tokens, "sides": forms}
        (new / _RECORD).write_text(json.dumps(record) + "\n", encoding="utf-8")


def _tokenized(
    texts: DistinctTexts, side: Side, dtype: np.dtype[Any], preprocess: Preprocess, forms: dict[str, _Form]
) -> Iterator[tuple[list[str], list[np.ndarray]]]:
    """Chunks of texts and the ids of each text; what is made of them is found out with the first."""

    def live(some: list[str]) -> dict[str, Any]:
        return dict(preprocess(some, prompt=side.prompt, task=side.task).items())

    for chunk in batched(texts, _CHUNK):
        features = live(chunk)
        found = _ids_of(features, dtype)
        if side.name not in forms:
            forms[side.name] = form = _form_of(live, chunk, found)
            by_length = {len(ids): place for place, ids in enumerate(found) if len(ids)}
            for place in list(by_length.values())[:_ALONE]:
                _compare(form.fill([found[place]]), live([chunk[place]]))
        made = forms[side.name].fill(found)
        if made is not None:
            _compare(made, features)
        yield chunk, found


def _ids_of(features: dict[str, Any], dtype: np.dtype[Any]) -> list[np.ndarray]:
    """The ids of each text, without what fills up."""
    ids, mask = (features.get(name) for name in _ONE_A_TOKEN[:2])
    if ids is None or mask is None or ids.ndim != 2 or ids.shape != mask.shape:
        raise NotStorable("no ids with their mask")
    kept = mask.bool().numpy()
    flat = ids.numpy()[kept].astype(dtype)
    return np.split(flat, kept.sum(1).cumsum()[:-1])


def _form_of(live: Callable[[list[str]], dict[str, Any]], texts: list[str], ids: list[np.ndarray]) -> _Form:
    """How features follow from ids, learned from the longest text beside two short ones."""
    lengths = list(map(len, ids))
    found = live(["", "a", texts[lengths.index(max(lengths))]])
    mask = found["attention_mask"].bool()
    pads = found["input_ids"][~mask].tolist()
    left = bool((mask.any(1) & ~mask[:, 0]).any())
    features = {name: None if name in _ONE_A_TOKEN else value for name, value in found.items()}
    if not all(isinstance(value, str | int | None) for value in features.values()):
        raise NotStorable(f"features beside the ids: {', '.join(features)}")
    return _Form(features, int(pads[0]) if pads else 0, left)


def _compare(made: dict[str, Any] | None, expected: dict[str, Any]) -> None:
    if made is None or list(made) != list(expected):
        raise NotStorable(f"other features: {', '.join(expected)}")
    for name, value in expected.items():
        if isinstance(value, torch.Tensor):
            same = made[name].dtype == value.dtype and torch.equal(made[name], value)
        else:
            same = type(made[name]) is type(value) and made[name] == value
        if not same:
            raise NotStorable(f"{name} does not follow from the ids")


def _write_index(folder: Path, keys: list[np.ndarray], lengths: list[np.ndarray]) -> int:
    """Write keys in their order and where each text's ids are; gives the number of all ids."""
    all_keys = np.concatenate(keys)
    ends = np.concatenate(lengths).cumsum()
    if not ends[-1]:
        raise NotStorable("no text has a token")
    spans = np.stack([np.concatenate([[0], ends[:-1]]), ends], axis=1)
    all_keys, first = np.unique(all_keys, return_index=True)  # two numbers of one text come both
    np.save(folder / _KEYS, all_keys)
    np.save(folder / _SPANS, spans[first])
    return int(ends[-1])
