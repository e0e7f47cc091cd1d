"""BM25's words: one way to split texts, and the constants that go with it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from functools import cache, cached_property
from hashlib import sha256
from itertools import chain, pairwise
from typing import NamedTuple
from unicodedata import category, normalize

from tqdm import tqdm

from st_l0.errors import InputError, require

K1, B = 1.2, 0.75

# Letters, with their marks, of the scripts that put no spaces between words: Han and what goes with it
# (Lucene's CJK but for Hangul, which has spaces), Thai, Lao, Burmese, Khmer. Their digits are as elsewhere.
_UNSPACED = (
    "\u3005-\u3007\u3021-\u3029\u3031-\u3035\u303b-\u303c\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    "\U00020000-\U0003ffff"
    "\u3041-\u3096\u3099-\u309a\u309d-\u309f\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff\U0001b000-\U0001b16f"
    "\u3105-\u312f\u31a0-\u31bf"
    "\u0e01-\u0e3a\u0e40-\u0e4e\u0e81-\u0ece\u0edc-\u0edf"
    "\u1000-\u103f\u1050-\u108f\u109a-\u109d\ua9e0-\ua9ef\ua9fa-\ua9fe\uaa60-\uaa7f"
    "\u1780-\u17d3\u17d7\u17dc-\u17dd"
)
# Letters as wide as Han, kana half as wide, and Han as signs, which are what PDFs have for some.
_FORMS = re.compile("[\u2f00-\u2fd5\uff01-\uffee]+")
_PLAIN = re.compile(r"\w\w+")


class Analyzer:
    """Texts into words for BM25: lower case, without English stop words, stemmed as English by Snowball.

    A word is what letters, digits and their accents make together, of at least two characters. Where a script
    has no spaces between words (Chinese, Japanese, Thai, Lao, Burmese, Khmer), each two neighbouring
    characters are a word, and so is one that stands alone, as in Lucene's ``CJKAnalyzer``.

    Raises:
        MissingExtraError: the extra ``eval`` is not installed.
    """

    def __init__(self, language: str = "english") -> None:
        if language != "english":
            raise InputError(f"language {language!r} is none that words can be analyzed in; give english")
        self.language = language
        self._stop_words = frozenset(require("bm25s.stopwords", "eval").STOPWORDS_EN)
        self._stem = require("Stemmer", "eval").Stemmer("english").stemWords

    def __call__(self, texts: Iterable[str], *, progress: bool = False) -> list[list[str]]:
        """The words of each text, in order, with repetitions."""
        bar = tqdm(texts, desc="Splitting", unit="text", leave=False, disable=not progress)
        rows = [[word for word in _words(text) if word not in self._stop_words] for text in bar]
        distinct = list(dict.fromkeys(chain.from_iterable(rows)))
        stems = dict(zip(distinct, self._stem(distinct), strict=True))
        return [[stems[word] for word in row] for row in rows]

    @cached_property
    def fingerprint(self) -> str:
        """What tells analyzers apart: a hash of what some texts become, equal in every process."""
        return sha256(json.dumps(self(_PROBES), ensure_ascii=True).encode()).hexdigest()[:16]


_PROBES = ("The cats' running universities, vitamin C x² cafe\u0301 ＡＢ1 機械学習 ไทย भारत की İstanbul",)


def _words(text: str) -> list[str]:
    if text.isascii():
        return _PLAIN.findall(text.lower())
    patterns = _patterns()
    text = _FORMS.sub(lambda found: normalize("NFKC", found[0]), normalize("NFC", text))
    text = patterns.run.sub(lambda found: _pairs(patterns.character.findall(found[0])), text)
    return patterns.word.findall(text.lower().replace("i\u0307", "i"))  # what lower() makes of Turkish İ


def _pairs(characters: Sequence[str]) -> str:
    pairs = map("".join, pairwise(characters)) if len(characters) > 1 else characters
    return f" {' '.join(pairs)} "


class _Patterns(NamedTuple):
    run: re.Pattern[str]
    character: re.Pattern[str]
    word: re.Pattern[str]


@cache
def _patterns() -> _Patterns:
    # Accents and vowel signs follow their letter, and \w has none of them. Without the selectors, which say
    # how a sign looks, an emoji mostly.
    numbers = chain(range(0x300, 0xFE00), range(0xFE10, 0x1F000))
    marks = "".join(chr(number) for number in numbers if category(chr(number)) in ("Mn", "Mc"))
    return _Patterns(
        re.compile(f"[{_UNSPACED}]+"),
        re.compile(f".[{marks}]*"),
        re.compile(rf"\w[\w{marks}]+|[{_UNSPACED}]"),
    )
