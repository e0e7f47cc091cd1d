"""Sentences of documents, and the draw among them."""

from collections import Counter

from data_files import message

from st_l0.data import choose_sentences
from st_l0.data.sentences import sentences_of

DOCUMENTS = [
    f"The {word} is long enough to be one. Too short. And the {word} has another one!" for word in "abcdef"
]
ALL = {sentence for text in DOCUMENTS for sentence in sentences_of(text)}


def test_sentences_by_hand():
    assert sentences_of("  A line\twithout an  end\nlower case it goes on? yes, and it goes on.") == [
        "A line without an end",
        "lower case it goes on?",
        "yes, and it goes on.",
    ]
    assert sentences_of("Version 1.2.3 of the index is there.") == ["Version 1.2.3 of the index is there."]
    assert sentences_of(
        "这是一个足够长的句子，用来测试没有空格的文字是否也会被分开。这也是一个足够长的句子，它在前一个句子的后面！"
    ) == [
        "这是一个足够长的句子，用来测试没有空格的文字是否也会被分开。",
        "这也是一个足够长的句子，它在前一个句子的后面！",
    ]
    assert sentences_of("x" * 19) == sentences_of("x" * 301) == sentences_of("") == []
    assert sentences_of("x" * 300) == ["x" * 300]


def test_a_draw_follows_from_sentences_and_seed():
    assert len(ALL) == 12
    drawn = choose_sentences(DOCUMENTS, 5, seed=3)
    assert len(set(drawn)) == 5 and set(drawn) < ALL
    assert choose_sentences([*DOCUMENTS[::-1], *DOCUMENTS], 5, seed=3) == drawn
    assert choose_sentences(DOCUMENTS, 5, seed=4) != drawn
    assert choose_sentences(DOCUMENTS, 6, seed=3)[:5] == drawn
    assert set(choose_sentences(DOCUMENTS, 100, seed=3)) == ALL


def test_what_is_known_or_of_no_use_is_not_drawn():
    drawn = choose_sentences(DOCUMENTS, 5, seed=3)
    rest = choose_sentences(DOCUMENTS, 100, seed=3, others=set(drawn))
    assert set(rest) == ALL - set(drawn)
    long = choose_sentences(DOCUMENTS, 5, seed=3, usable=lambda texts: [text.endswith("!") for text in texts])
    assert len(long) == 5 and all(text.endswith("!") for text in long)
    assert choose_sentences(DOCUMENTS, 5, seed=3, usable=lambda texts: [False] * len(texts)) == []


def test_every_sentence_has_the_same_chance():
    times = Counter(text for seed in range(600) for text in choose_sentences(DOCUMENTS, 2, seed=seed))
    # 100 each; a standard deviation is 9.1.
    assert times.keys() == ALL and all(60 < count < 140 for count in times.values())


def test_a_number_that_cannot_be():
    assert message(choose_sentences, DOCUMENTS, 0, seed=1) == "number of sentences is 0; give 1 or more"
