"""What a record of a corpus or of queries is: the one definition for all who read such files.

A value that is null counts as absent, like a key that is not there. An id is a string or a whole number,
compared as text; white space around it is dropped, which tables of judgements and run files cannot hold, and
what is then empty is no id. A text is a string and is left as it is; it may be empty.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from numbers import Integral
from pathlib import Path
from typing import Any, Literal, NamedTuple

from typing_extensions import Self

from st_l0.data.names import is_id_name, normal, tokens, words
from st_l0.errors import InputError

Kind = Literal["corpus", "queries"]

# Names of ids and of texts that are in use, `normal`; those of one line are preferred to the next line's.
_IDS: dict[Kind, frozenset[str]] = {
    "corpus": words("id docid documentid passageid pid corpusid docno"),
    "queries": words("id qid queryid"),
}
_TEXTS: dict[Kind, tuple[frozenset[str], ...]] = {
    "corpus": (
        words("text"),
        words("content contents passage document body segment chunk pagecontent")
        | words("passagetext documenttext doctext"),
    ),
    "queries": (words("text"), words("query question querytext")),
}
# Words of names that, beside a title alone, may name the text.
_MAYBE_TEXT = words(
    "abstract article caption comment comments context description excerpt message paragraph "
    "paragraphs post review section sentence sentences snippet story summary synopsis transcript"
)
_LONG = 8  # words of a value that can hardly be anything but a text


class _Pair(NamedTuple):
    id: str
    text: str


class Document(_Pair):
    """One document of a corpus, or one query: a pair of id and text, which may know its title.

    Attributes:
        id: Identifier, unique in its source.
        text: What is encoded; may be empty.
        title: The title that ``text`` begins with; empty where there is none.
    """

    title: str

    def __new__(cls, id: str, text: str, title: str = "") -> Self:
        """Of the attributes."""
        pair = super().__new__(cls, id, text)
        pair.title = title
        return pair


class Fields(NamedTuple):
    """Where a record has its id and its text.

    Attributes:
        kind: What the record is of.
        id: Field of the id; ``""``: there is none, so the number of the line is the id. ``None``: ``_id``,
            else ``id`` or what stands for it (``docid``, ``doc_id``, ``passage_id`` …; of queries
            ``query_id``, ``qid``).
        texts: Fields of the text, in order; those that are not empty are joined by one space. ``None``:
            ``title``, then ``text`` or what stands for it (``contents``, ``passage``, ``body`` …; of queries
            ``query``).
    """

    kind: Kind = "corpus"
    id: str | None = None
    texts: tuple[str, ...] | None = None


CORPUS = Fields()


def document_of(
    source: str | Path,
    number: int,
    record: Mapping[str, Any],
    fields: Fields = CORPUS,
    *,
    numbered: bool = True,
) -> Document:
    """A record of a corpus, or of the queries of a collection.

    Args:
        source: What complaints name.
        number: Line or row of the record, from 1.
        record: The record. What is neither id nor text is left alone.
        fields: Where its id and its text are.
        numbered: Whether ``number`` is the id of a record that has none.

    Raises:
        InputError: The id is absent (unless ``numbered``), empty, neither a string nor an integer, or may be
            one of several fields; the record has no text, one that is not a string, or may have it in a field
            that is not known.

    Example:
        >>> document_of("corpus.jsonl", 1, {"docid": "7", "title": "Rain", "contents": "It falls."})
        Document(id='7', text='Rain It falls.')
    """
    place = f"{source}:{number}"
    identifier = identifier_of(place, record, fields)
    if identifier is None:
        if not numbered:
            raise InputError(f"{place}: no _id; give every line one")
        identifier = str(number)
    text = text_of(place, record, fields)
    title = next((value for name, value in record.items() if normal(name) == "title" and value), "")
    begins = isinstance(title, str) and text.startswith(title)  # fields of another choice may leave it out
    return Document(identifier, text, title if begins else "")


def as_identifier(value: Any) -> str | None:
    """The id that a value is, ``None`` where it is none."""
    if isinstance(value, str):
        return value.strip() or None
    return str(value) if isinstance(value, Integral) and not isinstance(value, bool) else None


def identifier_of(place: str, record: Mapping[str, Any], fields: Fields = CORPUS) -> str | None:
    """The id of a record, ``None`` where it has none; see `document_of`."""
    if fields.id == "":
        return None
    kind = fields.kind
    keys = id_keys(tuple(record), kind) if fields.id is None else (fields.id,)
    if len(keys) > 1:  # null counts as absent
        keys = tuple(key for key in keys if record[key] is not None) or keys
        keys = ("_id",) if "_id" in keys else keys
    if not keys:
        _refuse_hidden_id(place, record, kind)
        return None
    if len(keys) > 1 and len({as_identifier(record[key]) for key in keys}) > 1:
        raise InputError(
            f"{place}: has {' and '.join(keys)}, ids that differ; name one with {_id_option(kind)}"
        )
    key = keys[0]
    identifier = as_identifier(record.get(key))
    if identifier is None:
        if key not in record:
            raise InputError(
                f"{place}: has no {key} (but {_names(record)}); name the id with {_id_option(kind)}"
            )
        absent = "no _id, " if record[key] is None else ""
        raise InputError(f"{place}: {absent}{key} is {record[key]!r:.40}; give a string or an integer")
    return identifier


def text_of(place: str, record: Mapping[str, Any], fields: Fields = CORPUS) -> str:
    """The text of a record, or of a document within a row; see `document_of`."""
    names = tuple(name for name, value in record.items() if value is not None)
    if fields.texts is None:
        present = text_keys(names, fields.kind)
        texts = [name for name in present if normal(name) != "title"]
        if len(texts) > 1:
            raise InputError(
                f"{place}: has {' and '.join(texts)}, two texts; name one with {_text_option(fields.kind)}"
            )
    else:
        present = tuple(name for name in fields.texts if name in names)
    if not present:
        wanted = ", ".join(fields.texts or ("title", "text"))
        raise InputError(
            f"{place}: none of the fields {wanted} (but {_names(record)}), so no text; name it with "
            f"{_text_option(fields.kind)}"
        )
    for name in present:
        if not isinstance(record[name], str):
            raise InputError(f"{place}: {name} is {type(record[name]).__name__}; give a string")
    if fields.texts is None:
        _refuse_hidden_text(place, record, present, fields.kind)
    return " ".join(record[name] for name in present if record[name])


@lru_cache(maxsize=1024)
def id_keys(names: tuple[str, ...], kind: Kind) -> tuple[str, ...]:
    """The names that stand for the id."""
    return tuple(name for name in names if normal(name) in _IDS[kind])


@lru_cache(maxsize=1024)
def text_keys(names: tuple[str, ...], kind: Kind) -> tuple[str, ...]:
    """The name of the title, and those that stand for the text."""
    title = tuple(name for name in names if normal(name) == "title")
    for known in _TEXTS[kind]:
        if found := tuple(name for name in names if normal(name) in known):
            return title[:1] + found
    return title[:1]


def is_field(name: str, fields: Fields) -> bool:
    """Whether a field of this name is an id, a title or a text."""
    if name in (fields.id, *(fields.texts or ())):
        return True
    known = _IDS[fields.kind].union(*_TEXTS[fields.kind])
    return normal(name) == "title" or normal(name) in known


def relevant(names: Sequence[str], fields: Fields) -> list[str] | None:
    """The columns of a table that `document_of` has to see; ``None``: all."""
    if fields.texts is None and not any(
        normal(name) != "title" for name in text_keys(tuple(names), fields.kind)
    ):
        return None  # any of them may be the text
    return [name for name in names if is_field(name, fields) or is_id_name(name)]


def _refuse_hidden_id(place: str, record: Mapping[str, Any], kind: Kind) -> None:
    for name, value in record.items():
        if is_id_name(name) and as_identifier(value) is not None:
            raise InputError(
                f"{place}: no _id, but {name}, which may be one; name the id with {_id_option(kind)}; empty, "
                "it stands for the number of the line"
            )


def _refuse_hidden_text(place: str, record: Mapping[str, Any], known: tuple[str, ...], kind: Kind) -> None:
    """Refuse a title that stands alone beside what may be its text."""
    if any(normal(name) != "title" for name in known):
        return
    for name, value in record.items():
        named = not _MAYBE_TEXT.isdisjoint(tokens(name)) and isinstance(value, (str, list)) and value
        if name not in known and (named or (isinstance(value, str) and value.count(" ") >= _LONG - 1)):
            raise InputError(
                f"{place}: has a title and no text, but {name}, which may be one; name the fields with "
                f"{_text_option(kind)}"
            )


def _id_option(kind: Kind) -> str:
    return f"id_field (--id-field, or in a recipe data.columns.{kind}_id)"


def _text_option(kind: Kind) -> str:
    return f"text_fields (--text-field, or in a recipe data.columns.{kind}_text)"


def _names(record: Mapping[str, Any]) -> str:
    return f"{', '.join(record) or 'nothing':.80}"
