"""Token ids from remembered words against the tokenizer itself, on whole texts."""

import copy
import json
import pickle
import sys
import unicodedata
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers, trainers

from st_l0.encoder import word_cache
from st_l0.encoder.leading_space import inside_text
from st_l0.encoder.word_cache import WordCache
from tiny_models import VOCABULARY, WORDS, make_tokenizer

NASTY = [
    "",
    " ",
    "   \t \n ",
    "the cat",
    " the  cat ",
    "The CAT, the cAt; (the) 'cat'?!... --- cat's don't it's 'll 's s'",
    "a\tb\nc\rd\x0be\x0cf\x1cg\x1dh\x1ei\x1fj\x00k\x7fl\x85m",
    "cat\u00a0dog\u2003bird\u200bfish\u200dtree\ufeffriver\u2028sun\u3000moon\u00adstar\u2060rain",
    "Café CAFÉ cafe\u0301 e\u0301\u0323 \u0301cat cat\u0301 \u0323 \u0301 naïve Ångström \u212b ﬁsh",
    "ß ẞ İstanbul ı Σς",
    "日本 日本語のcat dog犬cat 한국어 \u1112\u1161\u11ab ไทย עברית العربية हिन्दी",
    "😀 cat😀dog 👩‍👩‍👧 🇩🇪 ❤️ ½ ² ① ⅷ 𝔠𝔞𝔱 ℵ",
    "[SEP] [MASK] cat[SEP]dog [ SEP ] [sep] [[SEP]] [CLS][PAD] [UNK]x <mask> cat <mask>dog</s> <s>",
    "qqq zzz xcat catx q1 12345 1a2b 3.14 1,000 a.b.c_d-e/f\\g @#$%^&*+=~`|<>{}",
    "cat" * 33 + " " + "c" * 99 + " " + "c" * 100 + " " + "c" * 101 + " " + "é" * 60 + "!" * 200,
    "\ufffd cat\ufffdcat \ue000 \U000e0001 \u0378",
    " ".join(np.random.default_rng(1).choice(WORDS, 10_000)),
]
ALPHABET = [
    *"abctheinqzABC0129.,?!'-[]()",
    *" " * 12,
    *"éÉßİ\u0301\u0323\u0308日本犬가\u1100\u1161ẞςﬁ½😀\u200d\t\n\u00a0\u0378",
]
PIECES = [*WORDS[:20], "[SEP]", "<mask>", "new", "newword", "the  cat", "n't"]


def wordpiece(**normalizer):
    tokenizer = copy.deepcopy(make_tokenizer().backend_tokenizer)
    tokenizer.normalizer = normalizers.BertNormalizer(**normalizer)
    return tokenizer


def byte_level(normalizer=None, **options):
    tokenizer = Tokenizer(models.BPE(**options))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<s>", "</s>"],
        show_progress=False,
    )
    tokenizer.train_from_iterator([" ".join(WORDS)] * 5, trainer)
    tokenizer.add_special_tokens([AddedToken("<mask>", lstrip=True)])
    tokenizer.add_tokens([" " * size for size in range(2, 6)])  # as ModernBERT has them
    return tokenizer


def with_tokens(tokenizer, *tokens):
    tokenizer.add_tokens(list(tokens))
    return tokenizer


def changed(tokenizer, **parts):
    content = json.loads(tokenizer.to_str())
    for name, values in parts.items():
        content[name] = {**(content[name] or {}), **values}
    return Tokenizer.from_str(json.dumps(content))


def space_first(pieces, scheme="first"):
    tokenizer = byte_level()
    first = pre_tokenizers.Metaspace(replacement=" ", prepend_scheme=scheme, split=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([first, pieces])
    return tokenizer


CUT = {
    "uncased": wordpiece,
    "cased": lambda: wordpiece(lowercase=False),
    "cased without accents": lambda: wordpiece(lowercase=False, strip_accents=True),
    "uncased with accents": lambda: wordpiece(strip_accents=False),
    "nothing cleaned": lambda: wordpiece(clean_text=False, handle_chinese_chars=False),
    "added tokens": lambda: with_tokens(
        wordpiece(), "newword", AddedToken("NEW", single_word=True), AddedToken("<mask>", lstrip=True)
    ),
    "byte level": byte_level,
    "byte level, NFC": lambda: byte_level(normalizers.NFC()),
    "byte level, space first": lambda: inside_text(byte_level(normalizers.NFC())),
}
WHOLE = {
    "token of two words": lambda: with_tokens(wordpiece(), "the cat"),
    "token of two spaces": lambda: with_tokens(wordpiece(), "the  cat"),
    "token of other letters": lambda: with_tokens(wordpiece(), "日本"),
    "token that takes spaces": lambda: with_tokens(byte_level(), AddedToken("<b>", rstrip=True)),
    "token of a space": lambda: with_tokens(byte_level(), AddedToken("t c", normalized=False)),
    "other normalizer": lambda: changed(wordpiece(), normalizer={"type": "Lowercase"}),
    "other pre-tokenizer": lambda: changed(
        wordpiece(),
        pre_tokenizer={
            "type": "Split",
            "pattern": {"String": "e c"},
            "behavior": "Isolated",
            "invert": False,
        },
    ),
    "other model": lambda: changed(wordpiece(), model={"type": "WordLevel"}),
    "space in front": lambda: changed(byte_level(), pre_tokenizer={"add_prefix_space": True}),
    "bytes without a pattern": lambda: changed(byte_level(), pre_tokenizer={"use_regex": False}),
    "space first, and in front": lambda: space_first(
        pre_tokenizers.ByteLevel(add_prefix_space=True)  # of words that follow a token, too
    ),
    "space first, of another kind": lambda: space_first(pre_tokenizers.ByteLevel(), scheme="always"),
    "dropout": lambda: byte_level(dropout=0.0),  # more would give other ids each time
    "NFKC": lambda: byte_level(normalizers.NFKC()),
}


class Watched:
    """A tokenizer that notes the texts it is asked for."""

    def __init__(self, tokenizer):
        self.tokenizer, self.asked = tokenizer, []

    def to_str(self):
        return self.tokenizer.to_str()

    def encode(self, text, **options):
        self.asked.append(text)
        return self.tokenizer.encode(text, **options)

    def encode_batch_fast(self, texts, **options):
        self.asked.extend(texts)
        return self.tokenizer.encode_batch_fast(texts, **options)


def ids(tokenizer, texts):
    return [tokenizer.encode(text, add_special_tokens=False).ids for text in texts]


def random_texts(count, seed):
    generator = np.random.default_rng(seed)
    texts = []
    for _ in range(count):
        parts = generator.choice([*ALPHABET * 3, *PIECES], generator.integers(1, 30))
        texts.append("".join(parts))
    return texts


@pytest.mark.parametrize("kind", [*CUT, *WHOLE])
def test_the_ids_are_those_of_the_tokenizer(kind):
    tokenizer = {**CUT, **WHOLE}[kind]()
    cache = WordCache(tokenizer)
    texts = [*NASTY, *random_texts(1500, seed=len(kind))]
    expected = ids(tokenizer, texts)
    assert cache(texts) == expected
    assert cache(texts) == expected, "remembered"
    assert [cache([text])[0] for text in texts[:200]] == expected[:200], "one at a time"


@pytest.mark.parametrize("kind", ["uncased", "byte level, NFC", "byte level, space first"])
def test_every_printable_character_is_cut_off_by_a_space(kind):
    tokenizer = CUT[kind]()
    printable = [character for character in map(chr, range(sys.maxunicode + 1)) if character.isprintable()]
    assert not [character for character in printable if character.isspace() and character != " "]
    spread = np.random.default_rng(0).choice(printable[1000:], 3000, replace=False)
    texts = [f"e{character} {character}e {character} cat" for character in [*printable[:1000], *spread]]
    assert WordCache(tokenizer)(texts) == ids(tokenizer, texts)


@pytest.mark.parametrize("kind", CUT)
def test_known_words_ask_the_tokenizer_nothing(kind):
    watched = Watched(CUT[kind]())
    cache = WordCache(watched)
    assert cache(["the cat", "a dog"]) == ids(watched.tokenizer, ["the cat", "a dog"])
    assert sorted(word.strip() for word in watched.asked) == ["a", "cat", "dog", "the"]
    watched.asked.clear()
    if "byte" in kind:  # where a word at the beginning is another one
        texts = ["the dog", "a cat cat", "the cat dog", ""]
    else:
        texts = ["the dog", " cat  a cat ", "cat dog the", "", "  "]
    assert cache(texts) == ids(watched.tokenizer, texts)
    assert watched.asked == [""] * ("byte" in kind)
    cache(["the bird", "bird\tcat", "the cat bird"])
    assert [word.strip() for word in watched.asked if word] == ["bird", "bird\tcat"]


@pytest.mark.parametrize("kind", WHOLE)
def test_other_tokenizers_get_whole_texts(kind):
    watched = Watched(WHOLE[kind]())
    cache = WordCache(watched)
    for _ in range(2):
        cache(["the cat", "cat"])
    assert watched.asked == ["the cat", "cat"] * 2


def test_a_token_of_two_words_would_be_torn_apart():
    tokenizer = with_tokens(wordpiece(), "the cat")
    assert WordCache(tokenizer)(["on the cat"]) == [[VOCABULARY.index("on"), len(VOCABULARY)]]


def test_many_texts_at_once_are_asked_at_once():
    watched = Watched(wordpiece())
    texts = [f"{one}\t{other}" for one in WORDS[:7] for other in WORDS[:7]]
    assert WordCache(watched)([*texts, "cat"]) == ids(watched.tokenizer, [*texts, "cat"])
    assert watched.asked == ["cat", *texts]


def test_no_more_words_are_remembered_than_said(monkeypatch):
    monkeypatch.setattr(word_cache, "_MOST_WORDS", 7)
    tokenizer = wordpiece()
    cache = WordCache(tokenizer)
    for text in random_texts(300, seed=5):
        assert cache([text, "the cat"]) == ids(tokenizer, [text, "the cat"])
        assert len(cache._known) <= 7
    assert cache([" ".join(WORDS)]) == ids(tokenizer, [" ".join(WORDS)])
    assert 0 < len(cache._known) <= 7


def test_long_words_are_not_remembered():
    watched = Watched(wordpiece())
    cache = WordCache(watched)
    kept, dropped = "c" * 64, "c" * 65
    cache([f"{kept} {dropped}"])
    assert cache([f"{dropped} {kept}"]) == ids(watched.tokenizer, [f"{dropped} {kept}"])
    assert watched.asked == [kept, dropped, dropped]


def test_threads_may_share_it(monkeypatch):
    monkeypatch.setattr(word_cache, "_MOST_WORDS", 5)  # it starts anew all the time
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    tokenizer = wordpiece()
    cache = WordCache(tokenizer)
    batches = [random_texts(8, seed) for seed in range(60)]
    try:
        with ThreadPoolExecutor(4) as threads:
            found = list(threads.map(cache, batches))
    finally:
        sys.setswitchinterval(before)
    assert found == [ids(tokenizer, batch) for batch in batches]


@pytest.mark.parametrize("through", [copy.deepcopy, lambda cache: pickle.loads(pickle.dumps(cache))])
def test_copies_remember_on_their_own(through):
    cache = WordCache(wordpiece())
    cache(["the cat"])
    other = through(cache)
    assert other(["the dog"]) == ids(wordpiece(), ["the dog"])
    assert "dog" in other._known
    assert "dog" not in cache._known


def test_half_a_character_is_refused_as_by_the_tokenizer():
    tokenizer = wordpiece()
    with pytest.raises(Exception) as theirs:
        tokenizer.encode("cat \ud83d")
    with pytest.raises(theirs.type):
        WordCache(tokenizer)(["cat \ud83d"])


def test_the_nasty_texts_are_nasty():
    everything = "".join(NASTY) + "".join(ALPHABET)
    assert {"Cc", "Cf", "Zs", "Zl", "Mn", "Lo", "So", "Cn", "Co"} <= set(
        map(unicodedata.category, everything)
    )
    assert sum(text.isprintable() for text in random_texts(500, seed=0)) in range(50, 450)
