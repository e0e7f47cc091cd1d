"""Which keys of a training row hold what: our words for them, and the names that others have."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from st_l0.data.names import is_id_name, normal, numbered, tokens, words
from st_l0.data.records import Fields, Kind
from st_l0.errors import InputError

Columns = Mapping[str, "str | Sequence[str]"]
Named = tuple[tuple[str, tuple[str, ...]], ...]
Keys = Mapping[str, tuple[str, ...]]

HOW = "with columns (data.columns, --column)"

# Each word, and what it is called in sentence-transformers, FlagEmbedding (BGE), Tevatron, DPR, PyLate and
# OpenSearch's reference implementation; all `normal`.
_NAMES = {
    "query": "query anchor question querytext",
    "positive": "positive positives pos positivepassages positivepassage positivedocuments positivedocument "
    "positivectxs",
    "negatives": "negatives negative negs neg hardnegatives hardnegative negativepassages negativepassage "
    "negativedocuments negativedocument negativectxs hardnegativectxs",
    "documents": "documents docs passages",
    "document": "document doc passage answer",  # the positive, where nothing else is
    "scores": "scores score labels label teacherscores teacherscore",
    "positive_scores": "positivescores positivescore posscores posscore",
    "negative_scores": "negativescores negativescore negscores negscore",
    "query_id": "queryid qid",
    "positive_ids": "positiveids positiveid posids posid posindices pospids pospid positivepids positivepid "
    "positivedocumentids positivedocumentid positivedocids positivedocid positivepassageids "
    "positivepassageid",
    "negative_ids": "negativeids negativeid negids negid negindices negpids negpid negativepids negativepid "
    "negativedocumentids negativedocumentid negativedocids negativedocid negativepassageids "
    "negativepassageid hardnegativeids hardnegativeid",
    "document_ids": "documentids docids dids passageids pids",
    "document_id": "documentid docid passageid pid corpusid",  # of the one document
    "prompt": "prompt",
}
_WORDS = {name: word for word, names in _NAMES.items() for name in names.split()}
_COUNTED = {"negatives": "negatives", "negative_ids": "negative_ids", "document": "documents"}
_SAME = {"negative": "negatives", "positive_id": "positive_ids", "negative_id": "negative_ids"}
_LOOKUPS = words("corpus_id corpus_title corpus_text queries_id queries_text")
_ONE = words("query query_id scores positive_scores negative_scores corpus_id queries_id corpus_title")
# The words that columns may name.
WORDS = (
    *("query", "positive", "negative", "negatives", "documents", "scores", "positive_scores"),
    *("negative_scores", "query_id", "positive_id", "positive_ids", "negative_id", "negative_ids"),
    *("document_ids", "corpus_id", "corpus_title", "corpus_text", "queries_id", "queries_text", "ignore"),
)

_DOCUMENTS = words(
    "pos positive positives neg negs negative negatives hard doc docs document documents passage "
    "passages ctx ctxs context contexts candidate candidates distractor distractors chosen "
    "rejected text texts body content contents paragraph paragraphs"
)
_SCORES = words(
    "score scores label labels margin margins logit logits similarity similarities sim sims "
    "relevance relevant irrelevant rel grade grades rating ratings judgment judgement gold selected correct "
    "teacher teachers"
)
# Names with one of these say something about a document or a text, not how well it answers.
_ABOUT = words(
    "url urls uri link title titles lang language source type types kind length len size count "
    "counts num number hash date time year author authors category domain topic tags rank ranks "
    "name names file path format quality edu toxicity split lengths categories"
)
# Lists of texts that are no documents.
_TEXTS = words(
    "answer answers question questions query queries tag keyword keywords reference references "
    "citations entities"
)
_LONG = 8  # words of a value that can hardly be anything but a text


def named(columns: Columns | None) -> Named:
    """The columns of a mapping from our words to the keys of rows, checked.

    Raises:
        InputError: A word is not known, or names no key, more than it can have, or one that is named twice.
    """
    found: dict[str, tuple[str, ...]] = {}
    for word, names in (columns or {}).items():
        if word not in WORDS:
            raise InputError(f"columns: {word!r:.40} is no word for a column; give one of {', '.join(WORDS)}")
        keys = (names,) if isinstance(names, str) else tuple(names)
        if not keys or not all(isinstance(key, str) and key for key in keys):
            raise InputError(f"columns: {word} names {keys!r:.40}; give the name of a key")
        if word in _ONE and len(keys) > 1:
            raise InputError(f"columns: {word} names {len(keys)} keys; give one")
        if word not in _LOOKUPS:
            word = _SAME.get(word, word)
            found[word] = found.get(word, ()) + keys
    every = [key for keys in found.values() for key in keys]
    if twice := [key for key in every if every.count(key) > 1]:
        raise InputError(f"columns: {twice[0]!r:.40} is named twice; name each key once")
    return tuple(found.items())


def lookup_fields(columns: Columns | None, kind: Kind) -> Fields:
    """Where the records of the corpus, or of the queries, have id and text by such a mapping."""
    columns = columns or {}
    named(columns)
    given = [columns.get(f"{kind}_{part}", ()) for part in ("id", "title", "text")]
    identifiers, *texts = [(names,) if isinstance(names, str) else tuple(names) for names in given]
    return Fields(kind, next(iter(identifiers), None), sum(texts, ()) or None)


def column_problem(columns: Columns, *, lookups: bool) -> str | None:
    """What is wrong with a mapping; ``lookups``: whether there are a corpus and queries to name fields of."""
    try:
        named(columns)
    except InputError as error:
        return str(error).removeprefix("columns: ")
    return None if lookups or _LOOKUPS.isdisjoint(columns) else "name fields of corpus and queries: give both"


@lru_cache(maxsize=1024)
def keys_of(names: tuple[str, ...], columns: Named) -> Keys:
    """The keys that each word has among those of a row; several where they are counted (``negative_1`` …).

    Args:
        names: Keys of the row that hold something.
        columns: What `named` gives.

    Raises:
        InputError: Two keys say the same.
    """
    found: dict[str, list[str]] = {word: list(keys) for word, keys in columns if word != "ignore"}
    taken = {key for _, keys in columns for key in keys}
    counted: dict[str, dict[int, str]] = {}
    for name in names:
        if name in taken:
            continue
        count = numbered(name)
        word = _WORDS.get(normal(name))
        if word is None and count is not None and (base := _COUNTED.get(_WORDS.get(count[0], ""))):
            counted.setdefault(base, {})[count[1]] = name
        elif word is not None:
            found.setdefault(word, []).append(name)
            if len(found[word]) > 1 and word not in ("document", "document_id"):
                raise InputError(_both(found[word][0], name))
    for word, keys in counted.items():
        if word in found:
            raise InputError(_both(found[word][0], next(iter(keys.values()))))
        found[word] = [keys[number] for number in sorted(keys)]
    return {word: tuple(keys) for word, keys in found.items()}


@lru_cache(maxsize=4096)
def may_hold(name: str) -> str:
    """What a key that is not known may hold: documents, ids, scores, anything (``""``), ``about`` them."""
    parts = set(tokens(name))
    if parts & _ABOUT:
        return "about"
    if parts & _SCORES or (tokens(name)[:1] == ("is",) and parts & _DOCUMENTS):  # is_positive
        return "scores"
    if is_id_name(name):
        return "ids" if parts & _DOCUMENTS else "more ids"
    if parts & _DOCUMENTS:
        return "documents"
    return "about" if parts & _TEXTS else ""


def could_be(value: Any, kind: str, documents: int, *, by_id: bool) -> bool:
    """Whether the value of a key that is not known may be what its name says, or scores by its shape.

    Args:
        value: The value.
        kind: What `may_hold` says of the name.
        documents: Documents of the row.
        by_id: Whether its documents are ids.
    """
    if kind == "scores" and isinstance(value, str):
        return _is_number(value)  # of a table, whose cells are texts
    if kind == "about":
        return False
    many = isinstance(value, list)
    items = [item for item in (value if many else [value]) if item not in (None, "", {})]
    if not items:
        return False
    if any(isinstance(item, bool) for item in items):
        return kind == "scores"
    if kind in ("ids", "more ids"):
        asked = many and by_id if kind == "more ids" else many or by_id
        return asked and all(isinstance(item, (str, int)) for item in items)
    if all(isinstance(item, (int, float)) for item in items):
        return kind == "scores" or (many and (kind == "documents" or len(value) == documents > 1))
    if kind in ("", "scores"):  # a list of texts, whatever it is called
        return many and all(isinstance(item, str) for item in items) and max(map(_words, items)) >= _LONG
    return kind == "documents" and all(isinstance(item, (str, dict)) for item in items)


def _words(text: str) -> int:
    return len(text.split())


def _is_number(text: str) -> bool:
    try:
        return float(text) == float(text)
    except ValueError:
        return False


def _both(one: str, other: str) -> str:
    return f"has both {one} and {other}; give one of them, or ignore one {HOW}"


def is_score(name: str) -> bool:
    """Whether a name is one of scores."""
    return _WORDS.get(normal(name), "").endswith("scores")


def is_known(columns: Named) -> Callable[[str], bool]:
    """A function that tells whether a name is one of a column of rows."""
    taken = {key for _, keys in columns for key in keys}

    def known(name: str) -> bool:
        count = numbered(name)
        return (
            name in taken
            or normal(name) in _WORDS
            or (count is not None and _WORDS.get(count[0]) in _COUNTED)
        )

    return known
