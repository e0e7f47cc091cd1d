"""Texts into words: against bm25s, and by hand in each language that the documentation lists."""

from __future__ import annotations

import subprocess
import sys

import bm25s
import pytest
import Stemmer

from st_l0.errors import InputError
from st_l0.utils.word_probes import PROBES
from st_l0.utils.words import Analyzer, languages


def _words(text, language="english"):
    (words,) = Analyzer(language)([text])
    return words


@pytest.mark.parametrize(
    "text",
    [
        "The cats' running, a_b x 42 A4 e.g. state-of-the-art U.S. 7",
        "Das Mädchen läuft über Brücken – ÄÖÜ ß",
        "Les élèves œuvrent à été",
        "Столица России — Москва",
        "عاصمة مصر هي القاهرة",
        "서울은 대한민국의 수도이다",
        "Η πρωτεύουσα της Ελλάδας",
        "🙂 1️⃣ ☂ ½ x² µm",
        "",
    ],
)
def test_languages_with_spaces_are_split_as_bm25s_does(text):
    expected = bm25s.tokenize(
        [text],
        stopwords="en",
        stemmer=Stemmer.Stemmer("english"),
        token_pattern=r"\b\w+\b",
        return_ids=False,
        show_progress=False,
    )
    assert [_words(text)] == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Vitamin C, a vitamin", "vitamin c vitamin"),  # "a" is a stop word
        ("chapter 3: 'C' and rock 'n' roll", "chapter 3 c rock n roll"),
        # A letter that an apostrophe ties to a word is none; a digit is one.
        ("don't l’été O'Brien 5'2", "don été brien 5 2"),
        ("_ __init__", "__init__"),
        ("soft\u00adhyphens", "softhyphen"),
    ],
)
def test_words_of_one_character(text, words):
    assert _words(text) == words.split()


# A word in two or three forms, another word, and a stop word where the language has a list.
TRIED = {
    "arabic": ("الكتب كتب", "قلم", ""),
    "catalan": ("malalties malaltia", "llibre", ""),
    "czech": ("knihy kniha", "kočka", ""),
    "danish": ("bilerne biler bil", "sygdom", "og"),
    "dutch": ("huizen huis", "boek", "het"),
    "english": ("vitamins Vitamin", "running", "the"),
    "estonian": ("majades maja", "raamat", ""),
    "finnish": ("taloissa talossa talo", "kirja", ""),
    "french": ("maladies maladie", "été", "les"),
    "german": ("Häusern Häuser Haus", "Straße", "und"),
    "greek": ("ΑΣΘΈΝΕΙΕΣ ασθένεια", "βιβλίο", ""),
    "hindi": ("किताबें किताब किताबों", "लड़की", ""),
    "hungarian": ("könyvek könyv", "ház", ""),
    "indonesian": ("bukunya buku", "rumah", ""),
    "italian": ("malattie malattia", "città", "della"),
    "lithuanian": ("knygos knyga", "liga", ""),
    "norwegian": ("bilene biler bil", "sykdom", "og"),
    "persian": ("کتاب‌ها کتابها کتاب", "قلم", ""),
    "polish": ("kotami koty kot", "książka", ""),
    "portuguese": ("doenças doença", "livro", "para"),
    "romanian": ("copiilor copii", "carte", ""),
    "russian": ("Книгами книги", "болезнь", "и"),
    "serbian": ("књиге knjiga", "bolest", ""),
    "spanish": ("canciones canción", "libro", "los"),
    "swedish": ("bilarna bilar bil", "sjukdom", "och"),
    "tamil": ("புத்தகங்கள் புத்தகம்", "மொழி", ""),
    "turkish": ("KİTAPLARI kitaplar kitap", "ışık", "ve"),
    # Not stemmed: the same word twice.
    "chinese": ("首都 首都", "心脏", "因为"),
    "japanese": ("首都 首都", "人間", ""),
    "korean": ("수도 수도", "병원", "그리고"),
    "thai": ("ไทย ไทย", "เมือง", ""),
    "simple": ("Київ київ", "the", ""),
}


@pytest.mark.parametrize("language", TRIED)
def test_languages_that_were_tried(language):
    forms, other, stop_word = TRIED[language]
    analyzer = Analyzer(language)
    first, *more = analyzer(forms.split())
    assert first
    assert all(words == first for words in more)
    assert not set(first) & set(_words(other, language))
    assert bool(analyzer.stop_words) == bool(stop_word)
    assert analyzer([stop_word]) == [[]]


def test_every_language_makes_words_of_every_text():
    for language in languages():
        for text, words in zip(PROBES, Analyzer(language)(PROBES), strict=True):
            assert words, (language, text)
            assert all(words), (language, text)


def test_what_an_analyzer_does_is_said():
    assert Analyzer().language == "english"
    assert Analyzer().description == "english stop words, english stemmer"
    assert Analyzer("finnish").description == "no stop words, finnish stemmer"
    assert Analyzer("simple").description == "no stop words, no stemmer"


@pytest.mark.parametrize(
    ("language", "message"),
    [
        ("englisch", "^'englisch' is no language that words can be made in: is it 'english'\\?$"),
        ("German", "is it 'german'"),
        ("xx", "give one of arabic, armenian, .*, simple, .*, yiddish$"),
        ("porter", "^'porter' is no language"),
        (None, "^None is no language"),
    ],
)
def test_unknown_languages_are_refused(language, message):
    with pytest.raises(InputError, match=message):
        Analyzer(language)


def test_fingerprints_tell_analyzers_apart(monkeypatch):
    prints = {Analyzer(language).fingerprint for language in languages()}
    assert len(prints) == len(languages())

    other = Analyzer()
    other.stop_words |= {"zebra"}
    assert other.fingerprint != Analyzer().fingerprint
    other = Analyzer()
    other._stem = Stemmer.Stemmer("porter").stemWords
    assert other.fingerprint != Analyzer().fingerprint


@pytest.mark.parametrize(
    ("text", "words"),
    [
        # As Lucene's CJKAnalyzer has it, in its own tests too.
        ("一二三四五六七八九十", "一二 二三 三四 四五 五六 六七 七八 八九 九十"),
        ("一 二三四", "一 二三 三四"),
        ("あいうえおabcかきくけこ", "あい いう うえ えお abc かき きく くけ けこ"),
        ("ﾃｽﾄ ＡＢ１", "テス スト ab1"),
        ("iPhone手机，16 GB", "iphon 手机 16 gb"),
        ("コンピューター・人々", "コン ンピ ピュ ュー ータ ター 人々"),
        ("⼈⼯", "人工"),
        ("が", "が"),  # decomposed: か and a mark
        # Vowels and tones stay with their consonant.
        ("ที่นี่", "ที่นี่"),
        ("ไทย ๒๕๖๗", "ไท ทย ๒๕๖๗"),
        # Marks make part of a word, where there are spaces.
        ("भारत की राजधानी", "भारत की राजधानी"),
        ("தமிழ் மொழி", "தமிழ் மொழி"),
        ("cafe\u0301 café", "café café"),
        ("İSTANBUL", "istanbul"),
    ],
)
def test_other_languages(text, words):
    assert _words(text) == words.split()


def test_words_are_the_same_in_every_process():
    code = (
        "from st_l0.utils.words import Analyzer; a = Analyzer(); "
        "print(a(['cats dogs 首都的 zebra cats']), a.fingerprint)"
    )
    runs = {
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
            capture_output=True, check=True,
        ).stdout
        for seed in "12"
    }  # fmt: skip
    assert len(runs) == 1
