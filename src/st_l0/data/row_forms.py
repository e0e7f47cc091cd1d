"""One row of training data, in every form that is in use."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from st_l0.data.columns import HOW, Keys, Named, could_be, is_score, keys_of, may_hold
from st_l0.data.names import normal, numbered, words
from st_l0.data.records import as_identifier, id_keys, text_keys, text_of
from st_l0.data.row_scores import Shape, split_scores
from st_l0.errors import InputError

# Words that may name the documents of a row.
_FIRST = words("positive documents document positive_ids document_ids document_id")


class RawRow(NamedTuple):
    """A row as it was read: its query and documents are texts or, by ids, still ids.

    Attributes:
        place: Where it is from, ``path:line``.
        has_positive: Whether the form names the first document as the positive.
        query: Text or id.
        documents: Texts or ids.
        scores: A score for each document.
        query_id: Id beside the text, where there is one.
        document_ids: Ids beside the texts, where there are some.
    """

    place: str
    has_positive: bool
    query: str
    documents: list[str]
    scores: list[float] | None
    query_id: str | None = None
    document_ids: list[str] | None = None


class _Entry(NamedTuple):
    """A document, or an id of one, with the name that complaints give it."""

    name: str
    value: str
    identifier: str | None = None


class _Chosen(NamedTuple):
    """The keys that make up a row; `called` as in `st_l0.data.row_scores.Shape`."""

    query: str
    first: tuple[str, ...]
    has_positive: bool
    negatives: tuple[str, ...] = ()
    called: bool = True


def parse(place: str, record: Mapping[str, Any], columns: Named, *, by_id: bool) -> list[RawRow]:
    """The rows that a record makes: one, or one for each of its positives.

    Args:
        place: Where it is from, which complaints begin with.
        record: Its keys and values, as JSON has them.
        columns: What `st_l0.data.columns.named` gives.
        by_id: Whether it holds ids, to be looked up.

    Raises:
        InputError: see `st_l0.data.rows.read_rows`.
    """
    _refuse_missing(place, record, columns)
    there = {key: _listed(value, by_id) for key, value in record.items() if value is not None}
    # An empty list counts as absent, but where nothing else names the documents.
    names = tuple(key for key, value in there.items() if value != [] or is_score(key))
    try:
        if names != tuple(there) and _FIRST.isdisjoint(keys_of(names, columns)):
            names = tuple(there)
        keys = keys_of(names, columns)
        chosen = _by_id(there, keys) if by_id else _by_text(names, columns)
    except InputError as error:
        raise InputError(f"{place}: {error}") from None
    read = _identifier if by_id else _text
    query = read(place, chosen.query, there.get(chosen.query)).value
    first = _entries(place, chosen.first, there, read)
    negatives = _entries(place, chosen.negatives, there, read)
    if not first:
        raise InputError(f"{place}: {chosen.first[0]} is empty; give at least one document")
    key, value = chosen.first[0], there[chosen.first[0]]
    if not chosen.has_positive and numbered(key) is None and not isinstance(value, (list, dict)):
        raise InputError(f"{place}: {key} is {type(value).__name__}; give a list")
    has_positive = chosen.has_positive
    if has_positive and len(first) > 1 and not negatives and "scores" in keys:
        has_positive = False  # a list of documents with labels, under the name of the positive
    _check_rest(place, there, keys, columns, query, [*first, *negatives], by_id)
    shape = Shape(len(first), len(negatives), has_positive, chosen.called)
    scores = split_scores(place, there, keys, shape)
    query_id, ids = (None, None) if by_id else _ids_beside(place, there, keys, first, negatives)
    documents = [entry.value for entry in (*first, *negatives)]
    if not has_positive:
        return [RawRow(place, False, query, documents, scores[0], query_id, ids)]
    rest = documents[len(first) :]
    return [
        RawRow(
            place,
            True,
            query,
            [documents[at], *rest],
            scores[at],
            query_id,
            None if ids is None else [ids[at], *ids[len(first) :]],
        )
        for at in range(len(first))
    ]


@lru_cache(maxsize=1024)
def _by_text(names: tuple[str, ...], columns: Named) -> _Chosen:
    """The keys of a row of texts, among its names."""
    keys = keys_of(names, columns)
    positive, documents = keys.get("positive", ()), keys.get("documents", ())
    negatives = keys.get("negatives", ())
    # A short answer often stands beside the passage that holds it.
    single = keys.get("document", ())
    passages = tuple(key for key in single if normal(key) != "answer")
    [query] = keys.get("query", ("query",))
    _refuse_two(positive, documents)
    _refuse_two(documents, negatives)
    _refuse_two(positive or documents, passages)
    _refuse_two(passages[:1], passages[1:])
    if documents:
        return _Chosen(query, documents, False)
    if positive or single:
        return _Chosen(query, positive or passages or single, True, negatives, called=bool(positive))
    for word in ("document_ids", "positive_ids", "document_id"):
        if word in keys:
            raise InputError(f"has {keys[word][0]}, ids; give corpus and queries, to look them up")
    raise _nothing(names, "positive, or documents")


def _by_id(record: Mapping[str, Any], keys: Keys) -> _Chosen:
    """The keys of a row of ids; words for texts count where they hold ids."""
    ids = {
        word: key
        for word, key in keys.items()
        if word not in ("positive", "negatives", "documents", "document")
        or normal(key[0]) == "docs"  # opensearch-project/msmarco-hard-negatives
        or all(_are_ids(record[one]) for one in key)
    }
    [query] = keys.get("query_id", keys.get("query", ("query_id",)))
    documents = ids.get("document_ids", ())
    positive = ids.get("positive_ids", ())
    negatives = ids.get("negative_ids", ids.get("negatives", ()))
    _refuse_two(documents, positive)
    _refuse_two(documents or positive, ids.get("document_id", ()))
    if not documents and not positive:
        documents, positive = ids.get("documents", ()), ids.get("positive", ())
        _refuse_two(documents, positive)
    _refuse_two(documents, negatives)
    if documents:
        return _Chosen(query, documents, False)
    called = bool(positive)
    positive = positive or ids.get("document_id", ()) or ids.get("document", ())
    _refuse_two(positive[:1], positive[1:])
    if positive:
        if not negatives and "negatives" in keys:
            raise InputError(f"has {keys['negatives'][0]}, texts beside ids; give their ids as negative_ids")
        return _Chosen(query, positive, True, negatives, called)
    for word in ("positive", "documents", "document"):
        if word in keys:
            raise InputError(f"has {keys[word][0]}, texts; leave corpus and queries out")
    raise _nothing(record, "positive_id, or document_ids")


def _nothing(record: Iterable[str], wanted: str) -> InputError:
    keys = ", ".join(record) or "nothing"
    return InputError(
        f"names no documents (but {keys:.80}); give {wanted}, or say which key holds them {HOW}"
    )


def _refuse_two(one: tuple[str, ...], other: tuple[str, ...]) -> None:
    if one and other:
        raise InputError(
            f"has {one[0]} and {other[0]}, which are keys of different forms; give one, or ignore one {HOW}"
        )


def _refuse_missing(place: str, record: Mapping[str, Any], columns: Named) -> None:
    for word, names in columns:
        for name in names if word != "ignore" else ():
            if name not in record:
                keys = ", ".join(record) or "nothing"
                raise InputError(f"{place}: has no {name} (but {keys:.80}), which columns name as {word}")


def _check_rest(
    place: str,
    record: Mapping[str, Any],
    keys: Keys,
    columns: Named,
    query: str,
    documents: list[_Entry],
    by_id: bool,
) -> None:
    """Refuse what is not as it seems, and keys that may hold more than is understood."""
    if not by_id and query.isdecimal() and all(entry.value.isdecimal() for entry in documents):
        name = documents[0].name.partition("[")[0]
        raise InputError(f"{place}: query and {name} are numbers; for ids, give corpus and queries as well")
    for key in keys.get("prompt", ()):
        if record[key]:
            raise InputError(f"{place}: {key} is not read: write it into the query, or ignore it {HOW}")
    known = {key for some in (*keys.values(), *(names for _, names in columns)) for key in some}
    for key in record:
        if key not in known and could_be(record[key], kind := may_hold(key), len(documents), by_id=by_id):
            raise InputError(
                f"{place}: {key} may hold {kind or 'documents or scores'} and is not known; say what it is, "
                f"or ignore it {HOW}"
            )


def _entries(
    place: str, keys: tuple[str, ...], record: Mapping[str, Any], read: Callable[[str, str, Any], _Entry]
) -> list[_Entry]:
    """The documents under some keys: each a text (or an id), a passage, or a list of these."""
    found: list[_Entry] = []
    for key in keys:
        value = _transposed(record[key])
        if isinstance(value, list):
            found += [read(place, f"{key}[{index}]", one) for index, one in enumerate(value)]
        else:
            found.append(read(place, key, value))
    return found


def _listed(value: Any, by_id: bool) -> Any:
    """A list that was written as JSON into a cell of a table; of texts, or of ids."""
    if not isinstance(value, str) or not (value.startswith("[") and value.endswith("]")):
        return value
    try:
        found = json.loads(value)
    except (ValueError, RecursionError):
        return value
    return found if by_id or (found and all(isinstance(one, str) for one in found)) else value


def _transposed(value: Any) -> Any:
    """Passages as a list, where datasets has made columns of them."""
    if not isinstance(value, dict) or not value or not all(isinstance(one, list) for one in value.values()):
        return value
    if len({len(one) for one in value.values()}) > 1:
        return value
    return [dict(zip(value, row, strict=True)) for row in zip(*value.values(), strict=True)]


def _text(place: str, name: str, value: Any) -> _Entry:
    identifier = None
    if isinstance(value, dict):
        if not text_keys(tuple(value), "corpus"):
            keys = ", ".join(value) or "nothing"
            raise InputError(
                f"{place}: {name} is an object of {keys:.80}; give a text, or text, title and docid in it"
            )
        identifier = _inner_id(value)
        value = text_of(f"{place}: {name}", value)
    if isinstance(value, str) and value.startswith(("['", '["')) and value.endswith("]"):
        raise InputError(
            f"{place}: {name} is {value!r:.40}, a list that is not JSON; write it with json.dumps"
        )
    if isinstance(value, str) and value.strip():
        return _Entry(name, value, identifier)
    problem = "is missing" if value is None else "is empty" if value == "" else f"is {value!r:.40}"
    raise InputError(f"{place}: {name} {problem}; give a text")


def _identifier(place: str, name: str, value: Any) -> _Entry:
    identifier = _inner_id(value) if isinstance(value, dict) else as_identifier(value)
    if identifier is not None:
        return _Entry(name, identifier, identifier)
    problem = "is missing" if value is None else "is empty" if value == "" else f"is {value!r:.40}"
    raise InputError(f"{place}: {name} {problem}; give an id, a string or an integer")


def _inner_id(passage: Mapping[str, Any]) -> str | None:
    names = id_keys(tuple(passage), "corpus")
    return next(filter(None, (as_identifier(passage[name]) for name in names)), None)


def _are_ids(value: Any) -> bool:
    items = value if isinstance(value, list) else [value]
    return all(
        not isinstance(item, bool) and (isinstance(item, int) or (isinstance(item, str) and item.isdecimal()))
        for item in items
    )


def _ids_beside(
    place: str, record: Mapping[str, Any], keys: Keys, first: list[_Entry], negatives: list[_Entry]
) -> tuple[str | None, list[str] | None]:
    """The ids that stand beside texts: the query's, and the documents' where all have one."""

    def ids(word: str, count: int, what: str) -> list[str] | None:
        if word not in keys:
            return None
        found = _entries(place, keys[word], record, _identifier)
        if count == 0:
            raise InputError(
                f"{place}: has {keys[word][0]}, ids beside texts; give the texts too, or ids alone, corpus "
                "and queries"
            )
        if len(found) != count:
            raise InputError(f"{place}: {len(found)} {keys[word][0]} for {count} {what}; give one for each")
        return [entry.value for entry in found]

    query_id = next((_identifier(place, key, record[key]).value for key in keys.get("query_id", ())), None)
    documents = [*first, *negatives]
    inner = [entry.identifier for entry in documents if entry.identifier is not None]
    positive_ids = ids("positive_ids", len(first), "documents")
    negative_ids = ids("negative_ids", len(negatives), "negatives")
    found = ids("document_ids", len(documents), "documents")
    if len(inner) == len(documents):
        return query_id, inner
    if found is None and positive_ids is not None and (negative_ids is not None or not negatives):
        found = positive_ids + (negative_ids or [])
    if found is None and len(documents) == 1 and len(keys.get("document_id", ())) == 1:
        found = ids("document_id", 1, "documents")
    return query_id, found
