"""Documents without queries: files read into passages, queries made of them, and what is held out."""

import random

import pytest

from st_l0.data import Document, write_records
from st_l0.errors import InputError
from st_l0.quickstart.made_queries import KeyWords, all_queries, body_of, from_sentence, from_title
from st_l0.quickstart.own_corpus import own_material
from st_l0.quickstart.passages import Passages, file_of
from st_l0.quickstart.text_files import sections
from st_l0.quickstart.verdict import verdict

MARKDOWN = """---
title: not text
---
# Guide

See [the *manual*](https://example.org).

## Install

```bash
# no heading
pip install it
```

Setext
------
Last words.
"""
RST = """=====
Guide
=====

See :ref:`the manual <there>`.

Install
-------

Run ``pip``.
"""
HTML = """<html><head><title>no</title></head><body><nav>Menu</nav><h1>Guide</h1><p>See <b>the</b>
manual.</p><script>var x = 1;</script><h2>Install</h2><ul><li>Run pip.</li><li>Done.</li></ul></body>"""


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        (
            "a.md",
            MARKDOWN,
            [
                ("Guide", ["See the manual."]),
                ("Guide: Install", ["# no heading pip install it"]),
                ("Guide: Setext", ["Last words."]),
            ],
        ),
        ("a.rst", RST, [("Guide", ["See the manual."]), ("Guide: Install", ["Run pip."])]),
        ("a.HTML", HTML, [("Guide", ["See the manual."]), ("Guide: Install", ["Run pip.", "Done."])]),
        ("a.txt", "Some\r\nlines.\r\n\r\nMore\r\n", [("", ["Some lines.", "More"])]),
        ("a.md", "# Only a heading\n", []),
    ],
)
def test_sections(name, text, expected):
    assert [tuple(section) for section in sections(name, text)] == expected


def sentence(start, count):
    return " ".join(f"w{number}" for number in range(start, start + count - 1)) + " end."


def test_passages_have_a_good_length_and_stable_ids(tmp_path):
    (tmp_path / "sub").mkdir()
    long = " ".join(sentence(100 * number, 50) for number in range(5))  # one paragraph of 250 words
    (tmp_path / "sub" / "long.md").write_text(f"# Long\n\n{long}\n")
    (tmp_path / "two-parts.txt").write_text(f"{sentence(0, 90)}\n\n{sentence(90, 20)}\n\n{sentence(110, 50)}")
    (tmp_path / "b.md").write_text("\n\n")
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
    (tmp_path / "zero.txt").write_bytes(b"a\0b")
    (tmp_path / "c.png").write_bytes(b"")
    (tmp_path / ".hidden.md").write_text("# Not read\n\nnever")
    passages = Passages(tmp_path)
    found = list(passages)
    assert [one.id for one in found] == [
        *("sub/long.md#1", "sub/long.md#2", "sub/long.md#3", "two-parts.txt#1", "two-parts.txt#2"),
    ]
    # 100 + 100 + 50 words; then 90 + 20, which passes 100, and 50 more.
    assert [len(body_of(one).split()) for one in found] == [100, 100, 50, 110, 50]
    assert found[0].title == "Long" and found[3].title == "two parts"
    assert found[3].text.startswith("two parts w0 ") and file_of(found[0].id) == "sub/long.md"
    left_out = passages.counts.left_out()
    assert (
        left_out
        == "1 without text (b.md); 2 not UTF-8 or unreadable (latin.txt …); 1 of other kinds (.png 1)"
    )
    assert passages.counts.files == 2 and list(passages) == found and passages.counts.files == 2


def test_a_folder_without_text_is_refused(tmp_path):
    (tmp_path / "c.png").touch()
    with pytest.raises(InputError, match=r"no text in it \(1 of other kinds \(.png 1\)\)"):
        list(Passages(tmp_path))


BODY = "Rain falls from clouds. It wets the streets and the roofs of all the houses here."


def test_a_title_is_the_query_for_what_is_below_it():
    made = from_title(Document("1", f"Why it rains Why it rains {BODY}", "Why it rains"))
    assert (made.query, made.document) == ("Why it rains", BODY)  # said twice, removed twice
    assert from_title(Document("1", f"Rain {BODY}", "Rain")) is None
    assert from_title(Document("1", BODY)) is None
    assert from_title(Document("1", "Why it rains It does.", "Why it rains")) is None


def test_a_sentence_is_not_in_its_document():
    made = from_sentence(Document("1", f"Title {BODY}", "Title"))
    assert made.query == "Rain falls from clouds." and made.document == BODY.removeprefix(made.query + " ")
    without = " ".join(f"w{number}" for number in range(60))  # no sentences: 12 words of 60
    made = from_sentence(Document("1", without))
    assert made.query.split() == without.split()[:12] and made.document.split() == without.split()[12:]
    made = from_sentence(Document("1", sentence(0, 18)))  # one sentence: a third of it
    assert len(made.query.split()) == 6
    assert from_sentence(Document("1", sentence(0, 11))) is None


def test_key_words_are_rare_but_not_alone():
    common = "the of and some are with that this"
    documents = [
        Document(str(number), f"{common} filler{'abcdefghij'[number // 10]}") for number in range(97)
    ]
    documents += [Document(name, f"glacier moraine {common} lonely{name}") for name in "xy"]
    key_words = KeyWords(documents)
    made = key_words.query(documents[-1], random.Random(0))
    assert made.query == "glacier moraine" and made.document == documents[-1].text
    assert key_words.query(documents[0], random.Random(0)) is None  # one word of ten documents is a tenth


def test_a_query_of_two_documents_is_none():
    documents = [
        Document(name, f"Rain falls from clouds. {sentence(start, 12)}")
        for name, start in (("a", 0), ("b", 50))
    ]
    assert all_queries(documents, ()) == []
    assert [one.id for one in all_queries(documents[:1], ())] == ["a"]


def prose(seed, words=40):
    draw = random.Random(seed)
    names = [f"{draw.choice('bcdfg')}{draw.choice('aeiou')}{draw.choice('lmnpr')}" for _ in range(words)]
    return f"{' '.join(names[:6])} s{seed}. {' '.join(names[6:])}."


@pytest.fixture
def folder(tmp_path):
    for file in range(20):
        text = f"# File number {file}\n"
        for section in range(10):
            text += f"\n## Section about {file} and {section}\n\n{prose(100 * file + section, 110)}\n"
            text += f"\n{prose(100 * file + section + 50, 110)}\n"
        text += f"\n# Same heading everywhere\n\n{prose(5000 + file)}\n"
        (tmp_path / f"f{file:02}.md").write_text(text)
    return tmp_path


def test_whole_files_are_held_out(folder):
    material = own_material(folder, limit=3000)
    assert len(list(material.documents)) == 20 * 21
    asked = {file_of(one) for one in material.unseen.queries}
    bodies = {body_of(one): file_of(one.id) for one in material.documents}
    for query, document in material.pairs:
        of = {file for body, file in bodies.items() if document in " ".join(body.split())}
        assert of and not of & asked, query
    assert 3 <= len(asked) <= 5  # a fourth of 20 at most, 21 passages each
    assert all(file_of(one) in asked for judged in material.unseen.qrels.values() for one in judged)
    assert own_material(folder, limit=3000).pairs == material.pairs


def test_no_document_of_the_collection_says_its_query(folder):
    unseen = own_material(folder, limit=3000).unseen
    titles = {id: text for id, text in unseen.queries.items() if "Section about" in text}
    assert len(titles) > 20 and not any("Section about" in text for text in unseen.corpus.values())
    # The two passages below a heading are both right for it; a heading of all files is no query.
    assert all(len(unseen.qrels[one]) == 2 for one in titles)
    assert not any("Same heading" in text for text in unseen.queries.values())
    assert all(text not in unseen.corpus[id] for id, text in unseen.queries.items())


def test_limit_bounds_training_but_not_the_index(folder):
    material = own_material(folder, limit=200)
    assert len(list(material.documents)) == 420
    assert len(material.unseen.corpus) == 200  # all that were drawn
    assert len({document for _, document in material.pairs}) <= 2 * 200


def test_few_files_are_held_out_in_runs(tmp_path):
    text = "\n".join(f"# Chapter {n} of it\n\n{prose(n, 60)}\n" for n in range(200))
    (tmp_path / "book.md").write_text(text)
    unseen = own_material(tmp_path / "book.md", limit=3000).unseen
    blocks = {(int(one.rpartition("#")[2]) - 1) // 10 for one in unseen.queries}
    assert len(blocks) == 5 and len(unseen.queries) == 50


def test_records_copies_and_short_ones(tmp_path):
    rows = [{"_id": f"d{n}", "title": f"Report {n}", "text": prose(n)} for n in range(150)]
    rows += [
        {"_id": "copy", "title": "Other", "text": prose(3).upper()},
        {"_id": "short", "text": "few words"},
    ]
    write_records(tmp_path / "c.jsonl", rows)
    material = own_material(tmp_path / "c.jsonl", limit=3000)
    assert material.found[:2] == ["152 documents", "indexed only: 1 of fewer than 12 words, 1 copies"]
    assert any("150 documents are few" in line for line in material.found)
    assert len(list(material.documents)) == 152


def test_too_few_are_refused(tmp_path):
    write_records(tmp_path / "c.jsonl", [{"_id": str(n), "text": prose(n)} for n in range(99)])
    with pytest.raises(InputError, match=r"c.jsonl: 99 documents of 12 words or more are too few"):
        own_material(tmp_path / "c.jsonl", limit=3000)


class Found:
    def __init__(self, values):
        self.per_query = {str(number): {"ndcg@10": value} for number, value in enumerate(values)}


@pytest.mark.parametrize(
    ("ours", "bm25", "says"),
    [
        (1.0, 0.5, "beats BM25 on X: nDCG@10 1.000 against 0.500, p < 0.001"),
        (0.5, 1.0, "does not beat BM25 on X, it finds less"),
        (0.5, 0.5, "does not beat BM25 on X beyond chance"),
    ],
)
def test_the_verdict_is_honest(ours, bm25, says):
    results = {name: Found([value] * 30) for name, value in (("model", ours), ("bm25", bm25))}
    report = {"model": {"ndcg@10": ours}, "bm25": {"ndcg@10": bm25}}
    lines = verdict(report, results, "X")
    assert says in lines[0]
    assert any("What helps" in line for line in lines) == (ours <= bm25)
