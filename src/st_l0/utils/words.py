"""BM25's words: one way to make them of texts in each language, and the constants that go with it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from difflib import get_close_matches
from functools import cache, cached_property
from hashlib import sha256
from itertools import chain, pairwise
from typing import NamedTuple
from unicodedata import category, normalize

from tqdm import tqdm

from st_l0.errors import InputError
from st_l0.utils.word_probes import PROBES

K1, B = 1.2, 0.75

# Without a stemmer. Korean has spaces, the others but for "simple" are the languages of _UNSPACED.
_UNSTEMMED = ("burmese", "chinese", "japanese", "khmer", "korean", "lao", "simple", "thai")
_OTHER_ALGORITHMS = {"porter", "dutch_porter"}  # older ones for languages that have a newer one

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
# Nothing that one sees, in the middle of words: the soft hyphen and the joiner of Indian scripts.
_INVISIBLE = {0xAD: None, 0x200D: None}
# Of one character: digits, and letters but for the t of "don't" and the l of "l'été".
_ALONE = r"\d|(?<!\w['’])[^\W_](?!['’]\w)"
_PLAIN = re.compile(rf"\w\w+|{_ALONE}")


def languages() -> list[str]:
    """The languages that `Analyzer` knows, and ``simple`` for the others."""
    from Stemmer import algorithms

    return sorted({*algorithms(), *_UNSTEMMED} - _OTHER_ALGORITHMS)


class Analyzer:
    """Texts into words for BM25: lower case, without stop words, stemmed.

    A word is what letters, digits and their accents make together, be it one character, as in "vitamin C"; a
    letter that an apostrophe ties to a word ("don't", "l'été") is none. Where a script has no spaces between
    words (Chinese, Japanese, Thai, Lao, Burmese, Khmer), each two neighbouring characters are a word, and so
    is one that stands alone, as in Lucene's ``CJKAnalyzer``; that holds in every language. Stop words are the
    lists of bm25s, stems those of Snowball.

    Args:
        language: One of `languages`: a language that Snowball stems; or ``chinese``, ``japanese``,
            ``korean``, ``thai``, ``lao``, ``burmese`` and ``khmer``, which are not stemmed; or ``simple`` for
            any other language and for many in one collection: every word as it is, in lower case.

    Attributes:
        language: As given.
        stop_words: The words that are left out; empty for a language that has no list.

    Raises:
        InputError: ``language`` is none of these.

    Example:
        >>> Analyzer("english")(["The cats' vitamin C", "isn't it?"])
        [['cat', 'vitamin', 'c'], ['isn']]
    """

    def __init__(self, language: str = "english") -> None:
        # Here, as most of what imports this module never analyzes a word.
        from bm25s import stopwords
        from Stemmer import Stemmer

        known = languages()
        if language not in known:
            near = get_close_matches(str(language).lower(), known, 1)
            mend = f"is it {near[0]!r}?" if near else f"give one of {', '.join(known)}"
            raise InputError(f"{language!r:.40} is no language that words can be made in: {mend}")
        self.language = language
        name = "EN" if language == "english" else language.upper()
        self.stop_words: frozenset[str] = frozenset(getattr(stopwords, f"STOPWORDS_{name}", ()))
        # Without its cache, which makes it slower: words come once a call.
        self._stem: Callable[[list[str]], list[str]] = (
            list if language in _UNSTEMMED else Stemmer(language, 0).stemWords
        )
        self._lower = _lower_turkish if language == "turkish" else str.lower

    def __call__(self, texts: Iterable[str], *, progress: bool = False) -> list[list[str]]:
        """The words of each text, in order, with repetitions."""
        if progress:  # a bar, shown or not, takes longer than a query's words
            texts = tqdm(texts, desc="Splitting", unit="text", leave=False)
        rows = [[word for word in self._words(text) if word not in self.stop_words] for text in texts]
        distinct = list(dict.fromkeys(chain.from_iterable(rows)))
        # Some stemmers leave nothing of an ending that stands alone (Nepali "को").
        stems = {word: stem or word for word, stem in zip(distinct, self._stem(distinct), strict=True)}
        return [[stems[word] for word in row] for row in rows]

    @property
    def description(self) -> str:
        """What it does beside splitting, for people, such as ``english stop words and stemmer``."""
        stemmer = "no stemmer" if self.language in _UNSTEMMED else f"{self.language} stemmer"
        return f"{self.language} stop words, {stemmer}" if self.stop_words else f"no stop words, {stemmer}"

    @cached_property
    def fingerprint(self) -> str:
        """A hash of what some texts in many languages become, and of the stop words.

        Equal in every process and on every platform, and another where a version of a library stems other.
        """
        content = [self.language, sorted(self.stop_words), self(PROBES)]
        return sha256(json.dumps(content).encode()).hexdigest()[:16]

    def _words(self, text: str) -> list[str]:
        if text.isascii():
            return _PLAIN.findall(self._lower(text))
        patterns = _patterns()
        text = normalize("NFC", text).translate(_INVISIBLE)
        text = _FORMS.sub(lambda found: normalize("NFKC", found[0]), text)
        text = patterns.run.sub(lambda found: _pairs(patterns.character.findall(found[0])), text)
        # What lower() makes of Turkish İ.
        return patterns.word.findall(self._lower(text).replace("i\u0307", "i"))


def _lower_turkish(text: str) -> str:
    return text.replace("I", "ı").replace("İ", "i").lower()


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
    # how a sign looks, an emoji mostly. With the non-joiner, which stands before Persian endings.
    numbers = chain(range(0x300, 0xFE00), range(0xFE10, 0x1F000))
    marks = "".join(chr(number) for number in numbers if category(chr(number)) in ("Mn", "Mc")) + "\u200c"
    return _Patterns(
        re.compile(f"[{_UNSPACED}]+"),
        re.compile(f".[{marks}]*"),
        re.compile(rf"\w[\w{marks}]+|[{_UNSPACED}]|{_ALONE}"),
    )
