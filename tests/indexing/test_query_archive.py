"""What OpenSearch gets of the query side, read again by the tokenizers library as the server does."""

import io
import json
import stat
import zipfile
from pathlib import Path

import numpy as np
import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from st_l0 import QueryEncoder
from st_l0.encoder.leading_space import inside_text
from st_l0.encoder.query_tokenizer import QueryTokenizer
from st_l0.errors import InputError
from st_l0.indexing.query_archive import NO_WEIGHT, query_archive, write_query_archive
from vocabularies import byte_fallback, byte_level_pattern

MINI = Path(__file__).parents[2] / "models" / "st-l0-mini"
TEXTS = ["the cat größe 日本 <s> 😀", "<s> a words <s> b", "played playing the mat", "\u200b ẞ \ud7ff", ""]


def as_the_server(archive, text):
    """The server's own steps: encode, decode each id, look the weight up by that, 1 where there is none."""
    with zipfile.ZipFile(io.BytesIO(archive)) as zipped:
        tokenizer = Tokenizer.from_str(zipped.read("tokenizer.json").decode())
        table = json.loads(zipped.read("idf.json"))
    names = {row: tokenizer.decode([row], skip_special_tokens=True) for row in tokenizer.encode(text).ids}
    return {name: table.get(name, 1.0) for name in names.values() if name}


def encoder_of(tokenizer, special, *, length=64, side="right", weights=None, **options):
    tokenizer = Tokenizer.from_str(tokenizer.to_str())
    given = QueryTokenizer(tokenizer, [tokenizer.token_to_id(token) for token in special], length, side)
    size = tokenizer.get_vocab_size()
    if weights is None:
        weights = np.random.default_rng(3).uniform(0.5, 8, size).astype(np.float32)
        weights[::7] = 0
    return QueryEncoder(given, weights, **options)


@pytest.fixture(scope="module")
def byte_level():
    """A byte-level tokenizer, in which many ids decode to the same text."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<s>", "</s>"],
        show_progress=False,
    )
    tokenizer.train_from_iterator(
        ["the cat sat on the mat größe 日本語 play playing played 😀 " * 3] * 3, trainer
    )
    return tokenizer


def assert_same(encoder, archive, texts, *, ids):
    for text in texts:
        vector = encoder.encode_query([text])
        name = str if ids else encoder.tokenizer.convert_ids_to_tokens
        expected = {name(row): weight for row, weight in zip(vector.indices, vector.data, strict=True)}
        found = {name: weight for name, weight in as_the_server(archive, text).items() if weight != NO_WEIGHT}
        assert found.keys() == expected.keys()
        for token, weight in found.items():
            assert np.float32(weight) == expected[token]


@pytest.mark.parametrize("ids", [False, True])
@pytest.mark.parametrize("side", ["right", "left"])
def test_a_byte_level_vocabulary(byte_level, ids, side):
    encoder = encoder_of(byte_level, ["<s>", "</s>"], length=7, side=side)
    assert len({byte_level.decode([row]) for row in range(128, 256)}) < 128
    assert_same(encoder, query_archive(encoder, "model", ids=ids), TEXTS, ids=ids)


@pytest.mark.parametrize("ids", [False, True])
def test_the_model_of_this_repository(ids):
    encoder = QueryEncoder.from_pretrained(MINI)
    archive = query_archive(encoder, "mini", ids=ids)
    assert_same(encoder, archive, [*TEXTS, "[SEP] [MASK] bread", "zzzzqqqq a.b", "x " * 600], ids=ids)
    assert archive == query_archive(encoder, "mini", ids=ids)
    # The weight of a typed special token, which the server leaves out, and of no other, is nothing.
    assert "[MASK]" not in as_the_server(archive, "[MASK]")


def test_unigram_names_tokens_but_not_ids():
    tokenizer = Tokenizer(models.Unigram([("<unk>", 0.0), ("▁", -1.0), ("a", -2.0), ("▁a", -1.5)], unk_id=0))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    encoder = encoder_of(tokenizer, ["<unk>"], weights=np.array([0, 1, 2, 3], np.float32))
    # <unk> is no added token here, so that the server keeps it, at next to nothing.
    assert as_the_server(query_archive(encoder, "model", ids=False), "a z") == {
        "▁a": 3.0,
        "▁": 1.0,
        "<unk>": NO_WEIGHT,
    }
    with pytest.raises(InputError, match=r"Unigram.*tokens as names"):
        query_archive(encoder, "model", ids=True)


@pytest.mark.parametrize("ids", [False, True])
@pytest.mark.parametrize("make", [byte_level_pattern, byte_fallback])
def test_the_server_puts_a_space_before_a_query_too(make, ids):
    encoder = encoder_of(inside_text(make()), ["<s>", "</s>"])
    archive = query_archive(encoder, "model", ids=ids)
    assert_same(encoder, archive, ["cat river dog", "Water what", *TEXTS], ids=ids)
    assert as_the_server(archive, "cat river dog") == as_the_server(archive, "river dog cat")


def test_an_added_token_has_one_name(byte_level):
    tokenizer = Tokenizer.from_str(byte_level.to_str())
    tokenizer.add_tokens([AddedToken("newword", normalized=False)])
    encoder = encoder_of(tokenizer, ["<s>", "</s>"])
    assert_same(encoder, query_archive(encoder, "model", ids=False), ["a newword b"], ids=False)
    with pytest.raises(InputError, match="'newword' was added"):
        query_archive(encoder, "model", ids=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prompt": "query: "}, "puts 'query: ' before each query"),
        ({"max_active_dims": 5}, "keeps 5 tokens of a query"),
        ({"weights": np.full(299, 64.5, np.float32)}, "weighs 64.5, and the server takes 64 at most"),
    ],
)
def test_what_the_server_cannot_do(byte_level, options, message):
    encoder = encoder_of(byte_level, ["<s>", "</s>"], **options)
    with pytest.raises(InputError, match=message):
        query_archive(encoder, "model", ids=True)


def test_a_file_that_any_user_may_read(byte_level, tmp_path):
    encoder = encoder_of(byte_level, ["<s>", "</s>"])
    output = tmp_path / "queries.zip"
    write_query_archive(encoder, output, "model", ids=True)
    assert output.read_bytes() == query_archive(encoder, "model", ids=True)
    assert stat.S_IMODE(output.stat().st_mode) & 0o444 == 0o444
    with zipfile.ZipFile(output) as zipped:
        assert [entry.external_attr >> 16 for entry in zipped.infolist()] == [0o100644] * 2
    other = tmp_path / "other.zip"
    other.write_text("mine")
    with pytest.raises(InputError, match=r"other\.zip: is not an archive"):
        write_query_archive(encoder, other, "model", ids=True)
    assert other.read_text() == "mine"
