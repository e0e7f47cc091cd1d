from __future__ import annotations

import subprocess
import sys

import pytest

from st_l0.utils.words import Analyzer

bm25s = pytest.importorskip("bm25s")
Stemmer = pytest.importorskip("Stemmer")


def _words(text):
    (words,) = Analyzer()([text])
    return words


@pytest.mark.parametrize(
    "text",
    [
        "The cats' running, don't a_b x 42 A4 e.g. state-of-the-art",
        "Das Mädchen läuft über Brücken – ÄÖÜ ß",
        "Les élèves œuvrent à l’été",
        "Столица России — Москва",
        "عاصمة مصر هي القاهرة",
        "서울은 대한민국의 수도이다",
        "Η πρωτεύουσα της Ελλάδας",
        "🙂 1️⃣ ☂ ½ x² µm",
        "",
    ],
)
def test_languages_with_spaces_are_split_as_bm25s_does(text):
    stemmer = Stemmer.Stemmer("english")
    expected = bm25s.tokenize([text], stopwords="en", stemmer=stemmer, return_ids=False, show_progress=False)
    assert [_words(text)] == expected


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
    code = "from st_l0.utils.words import Analyzer; print(Analyzer()(['cats dogs 首都的 zebra cats']))"
    runs = {
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
            capture_output=True, check=True,
        ).stdout
        for seed in "12"
    }  # fmt: skip
    assert len(runs) == 1
