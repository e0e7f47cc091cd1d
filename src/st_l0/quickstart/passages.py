"""Passages of files: 100 to 200 words each, below their headings, with ids that say where they stand."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from st_l0.data import Document
from st_l0.errors import InputError, is_machines
from st_l0.quickstart.text_files import KINDS, kind_of_name, sections
from st_l0.utils.progress import track

_LEAST, _MOST = 100, 200  # words
_TAIL = 30  # fewer words than these join the passage before
_SENTENCE = re.compile(r"(?<=[.!?])\s+")


@dataclass
class Counts:
    """What was found in a folder.

    Attributes:
        files: Those that have passages.
        empty: Those that hold no text.
        unreadable: Those that are not UTF-8, or cannot be opened.
        others: Ends of the names of those that are of other kinds.
    """

    files: int = 0
    empty: list[str] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)

    def left_out(self) -> str:
        """Which files were left out and why, empty where there are none."""
        parts = [
            f"{len(names):,} {why} ({names[0]}{' …' if names[1:] else ''})"
            for names, why in ((self.empty, "without text"), (self.unreadable, "not UTF-8 or unreadable"))
            if names
        ]
        if self.others:
            ends = ", ".join(f"{end or 'no end'} {count:,}" for end, count in self.others.most_common(5))
            more = ", …" if len(self.others) > 5 else ""
            parts.append(f"{self.others.total():,} of other kinds ({ends}{more})")
        return "; ".join(parts)


class Passages:
    """The passages of a folder of text files, or of one; read anew in every iteration.

    Files and folders whose names begin with a dot are passed over. The id of a passage is the path of its
    file below the folder and its number there, from 1: ``guide/install.md#3``. Its title is that of the file
    and the heading above it, ``Guide: Install``; of a file without headings its name.

    Args:
        path: The folder, or a file of one of `st_l0.quickstart.text_files.KINDS`.

    Attributes:
        counts: What the last iteration found.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.counts = Counts()

    def __iter__(self) -> Iterator[Document]:
        """The passages, file by file in the order of their paths.

        Raises:
            InputError: The folder holds no text.
        """
        self.counts = Counts()
        root = self._path if self._path.is_dir() else self._path.parent
        files = sorted(_files(root)) if self._path.is_dir() else [self._path]
        for file in track(files, "reading", unit="files", delay=2):
            name = file.relative_to(root).as_posix()
            if kind_of_name(file.name) not in KINDS:
                self.counts.others[kind_of_name(file.name)] += 1
                continue
            text = _text(file, name)
            if text is None:
                self.counts.unreadable.append(ascii(name)[1:-1])
                continue
            number = 0
            for number, (title, body) in enumerate(_split(file, text), 1):
                yield Document(f"{_as_id(name)}#{number}", f"{title} {body}", title)
            if number:
                self.counts.files += 1
            else:
                self.counts.empty.append(name)
        if not self.counts.files:
            left_out = self.counts.left_out()
            raise InputError(
                f"{self._path}: no text in it{f' ({left_out})' if left_out else ''}; give a folder of "
                f"{', '.join(KINDS)} files, or one file as st-l0 index takes it"
            )


def file_of(identifier: str) -> str:
    """The file that a passage is of, by its id."""
    return identifier.rpartition("#")[0]


def _files(root: Path) -> Iterator[Path]:
    for folder, folders, files in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(folder, name) for name in files if not name.startswith("."))


def _text(file: Path, name: str) -> str | None:
    try:
        name.encode()
        text = file.read_bytes().decode("utf-8-sig")
    except UnicodeError:
        return None
    except OSError as error:
        if is_machines(error):
            raise
        return None
    return None if "\0" in text else text


def _as_id(name: str) -> str:
    """A path without what no file of judgements can hold."""
    return re.sub(r"^\s|[\t\r\n\x0b\x0c]", lambda found: f"%{ord(found[0]):02X}", name)


def _split(file: Path, text: str) -> Iterator[tuple[str, str]]:
    """Title and text of each passage."""
    for section in sections(file.name, text):
        title = section.title or re.sub(r"[-_\s]+", " ", file.stem).strip() or file.stem
        yield from ((title, body) for body in _packed(section.paragraphs))


def _packed(paragraphs: list[str]) -> list[str]:
    """Paragraphs joined, and long ones split at sentences, to passages of a good length."""
    pieces = [piece for paragraph in paragraphs for piece in _pieces(paragraph)]
    passages: list[list[str]] = []
    for piece in pieces:
        length = len(piece.split())
        held = sum(len(one.split()) for one in passages[-1]) if passages else _MOST
        if held + length <= _MOST and (held < _LEAST or length < _TAIL):
            passages[-1].append(piece)
        else:
            passages.append([piece])
    return ["\n".join(passage) for passage in passages]


def _pieces(paragraph: str) -> Iterator[str]:
    """A paragraph, in runs of sentences of about 100 words where it has more than 200."""
    words = paragraph.split()
    if len(words) <= _MOST:
        yield paragraph
        return
    held: list[str] = []
    for sentence in _SENTENCE.split(paragraph):
        held += sentence.split()
        while len(held) > _MOST:  # no sentence
            yield " ".join(held[:_LEAST])
            held = held[_LEAST:]
        if len(held) >= _LEAST:
            yield " ".join(held)
            held = []
    if held:
        yield " ".join(held)
