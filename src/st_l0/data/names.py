"""Names of keys, compared as people mean them: ``docId``, ``doc-id`` and ``DOC_ID`` are one."""

from __future__ import annotations

import re
from functools import lru_cache

_TOKENS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_NUMBERED = re.compile(r"(.*?\D)(\d+)", re.DOTALL)


def words(text: str) -> frozenset[str]:
    """A set of names, from one line of them."""
    return frozenset(text.split())


_ID_ENDS = words(
    "id ids uid uids uuid guid did dids pid pids qid docid docids docno docnum key identifier "
    "pmid pmcid doi asin isbn sku accession slug"
)


@lru_cache(maxsize=4096)
def normal(name: str) -> str:
    """A name in small letters and digits alone."""
    return re.sub(r"[\W_]+", "", name.lower())


@lru_cache(maxsize=4096)
def tokens(name: str) -> tuple[str, ...]:
    """The words of a name, in small letters and without digits: ``hardNegatives_2`` is hard, negatives."""
    return tuple(token.lower() for token in _TOKENS.findall(name))


def numbered(name: str) -> tuple[str, int] | None:
    """What a name such as ``negative_12`` counts, and its number."""
    found = _NUMBERED.fullmatch(normal(name))
    return None if found is None else (found[1], int(found[2]))


def is_id_name(name: str) -> bool:
    """Whether a key of this name may hold ids: ``productId``, ``cord_uid``, ``key``."""
    found = tokens(name)
    return bool(found) and found[-1] in _ID_ENDS
