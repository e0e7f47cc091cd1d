import gzip
import json
import math

import numpy as np
import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from st_l0.encoder.idf import compute_idf, document_frequencies, read_idf, write_idf
from st_l0.encoder.smoothing import idf
from st_l0.errors import InputError

VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "cat", "dog", "a", "é", "##s", "[unused0]"]
SPECIAL = [0, 1, 2, 3, 4]


@pytest.fixture
def tokenizer():
    ids = {token: index for index, token in enumerate(VOCABULARY)}
    backend = Tokenizer(models.WordPiece(ids, unk_token="[UNK]"))
    backend.normalizer = normalizers.Lowercase()
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    names = {name: f"[{name[:3].upper()}]" for name in ("pad_token", "unk_token", "cls_token", "sep_token")}
    return PreTrainedTokenizerFast(tokenizer_object=backend, mask_token="[MASK]", model_max_length=4, **names)


def table(path, content):
    content = content if isinstance(content, (str, bytes)) else json.dumps(content)
    content = content.encode() if isinstance(content, str) else content
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def message(function, *args, **kwargs):
    with pytest.raises(InputError) as caught:
        function(*args, **kwargs)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_token_counts_once_per_document(tokenizer):
    texts = iter(["cat cats CAT", "dog a dog", "", "cat zebra zebra"])
    frequencies, documents = document_frequencies(texts, tokenizer, batch_size=3, progress=False)
    assert documents == 4 and frequencies.dtype == np.int64
    assert dict(zip(VOCABULARY, frequencies.tolist(), strict=True)) == {
        **dict.fromkeys(VOCABULARY, 0),
        "cat": 2,
        "##s": 1,
        "dog": 1,
        "a": 1,
        "[UNK]": 1,
    }


def test_nothing_is_truncated_and_the_tokenizer_is_left_alone(tokenizer, caplog):
    tokenizer("cat", truncation=True, max_length=3, padding="max_length")
    before = tokenizer.backend_tokenizer.to_str()
    assert tokenizer.backend_tokenizer.truncation is not None
    frequencies, _ = document_frequencies(["a " * 50 + "dog"], tokenizer, progress=False)
    assert frequencies[VOCABULARY.index("dog")] == 1 and frequencies[:5].sum() == 0
    assert tokenizer.backend_tokenizer.to_str() == before and not caplog.records


def test_no_texts_or_no_fast_tokenizer_is_refused(tokenizer):
    assert "no texts" in message(document_frequencies, [], tokenizer, progress=False)
    assert "fast tokenizer" in message(document_frequencies, ["a"], object(), progress=False)


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["cat", None], "text 1 is None, no string"),
        (iter(["cat", "dog", float("nan")]), "text 2 is nan, no string"),
        (["cat", "x\ud800"], "text 1 holds a lone surrogate"),
        ("cat", "'cat' is one text where a list of texts is expected"),
        ({"d1": "cat"}, "a dict (of 'd1') is no list of texts"),
    ],
)
def test_what_is_no_text_is_refused_by_place(tokenizer, texts, expected):
    assert message(compute_idf, texts, tokenizer, batch_size=2, progress=False).startswith(expected)


def test_idf_by_hand():
    # N = 4: df 0 -> log(1 + 4.5/0.5) = log 10; df 2 -> log(1 + 2.5/2.5) = log 2; df 4 -> log(1 + 0.5/4.5)
    weights = idf(np.array([0, 2, 4]), 4)
    assert weights.dtype == np.float32
    np.testing.assert_allclose(weights, [math.log(10), math.log(2), math.log(10 / 9)], rtol=1e-6)


def test_idf_gives_the_largest_weights_of_the_published_table():
    # Rarest tokens of the table published for MS MARCO (8,841,823 passages): found in 1, 2, 3, 4 of them.
    published = [15.58953857421875, 15.078713417053223, 14.742240905761719, 14.490926742553711]
    np.testing.assert_allclose(idf(np.array([1, 2, 3, 4]), 8_841_823), published, rtol=1e-6)


@pytest.mark.parametrize(("frequencies", "documents"), [([5], 4), ([-1], 4), ([0], 0)])
def test_frequencies_that_do_not_fit_are_refused(frequencies, documents):
    assert "do not fit" in message(idf, np.array(frequencies), documents)


def test_compute_idf_gives_special_tokens_no_weight(tokenizer):
    weights = compute_idf(["cat zebra", "dog [SEP]"], tokenizer, progress=False)
    assert weights.shape == (len(VOCABULARY),) and not weights[SPECIAL].any()
    np.testing.assert_allclose(weights[5:7], math.log(2), rtol=1e-6)  # N = 2, df = 1: log(1 + 1.5/1.5)
    assert weights[5:].min() > 0


def test_a_table_survives_writing_and_reading(tokenizer, tmp_path):
    weights = np.linspace(0, 20, len(VOCABULARY), dtype=np.float32) ** 2 / np.float32(3)
    path = tmp_path / "idf.json"
    path.write_text('{"former": 1}')
    write_idf(path, np.append(weights, np.float32(9)), tokenizer)  # one row of padding beyond the vocabulary
    assert list(json.loads(path.read_text(encoding="utf-8"))) == VOCABULARY[5:]
    assert "é" in path.read_text(encoding="utf-8")
    assert [file.name for file in tmp_path.iterdir()] == ["idf.json"]
    weights[SPECIAL] = 0
    read = read_idf(path, tokenizer)
    assert read.dtype == np.float32 and (read == weights).all()


@pytest.mark.parametrize("bad", [math.nan, math.inf, -1.0])
def test_writing_refuses_bad_weights_and_keeps_the_former_table(tokenizer, tmp_path, bad):
    path = table(tmp_path / "idf.json", {"cat": 1.0})
    weights = np.ones(len(VOCABULARY), np.float32)
    weights[6] = bad
    assert "'dog'" in message(write_idf, path, weights, tokenizer)
    assert "for 11 tokens" in message(write_idf, path, weights[:-1], tokenizer)
    assert json.loads(path.read_text()) == {"cat": 1.0}


def test_special_tokens_weigh_nothing_and_absent_tokens_the_default(tokenizer, tmp_path):
    path = table(tmp_path / "idf.json.gz", {"[UNK]": 9, "[CLS]": 1.0, "[MASK]": 1.0, "cat": 2, "dog": 0.0})
    assert read_idf(path, tokenizer).tolist() == [0, 0, 0, 0, 0, 2, 0, 1, 1, 1, 1]
    assert read_idf(path, tokenizer, default=0.5).tolist() == [0, 0, 0, 0, 0, 2, 0, 0.5, 0.5, 0.5, 0.5]
    assert "finite number" in message(read_idf, path, tokenizer, default=-1.0)


def test_entries_outside_the_vocabulary(tokenizer, tmp_path):
    path = table(tmp_path / "idf.json", {"cat": 2.0, "zebra": 9.0, "x": 1.0, "y": 1.0, "z": 1.0})
    text = message(read_idf, path, tokenizer)
    assert text.startswith(f"{path}: 4 of 5 entries") and "'zebra', 'x', 'y', ..." in text and "drop" in text
    weights = read_idf(path, tokenizer, unknown="drop")
    assert weights[1] == 0 and weights[5] == 2 and (weights[6:] == 1).all()
    assert "unknown='skip'" in message(read_idf, path, tokenizer, unknown="skip")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ('{"cat": NaN}', "the weight of 'cat' is nan"),
        ('{"cat": Infinity}', "the weight of 'cat' is inf"),
        ('{"cat": 1e39}', "the weight of 'cat' is 1e+39"),
        ('{"cat": 1' + "0" * 400 + "}", "the weight of 'cat' is 1000"),
        ('{"cat": -0.5}', "the weight of 'cat' is -0.5"),
        ('{"cat": true}', "the weight of 'cat' is True"),
        ('{"cat": "1"}', "the weight of 'cat' is '1'"),
        ('{"cat": null}', "the weight of 'cat' is None"),
        ('{"cat": {"dog": 1}}', "the weight of 'cat' is [('dog', 1)]"),
        ('{"[UNK]": "x"}', "the weight of '[UNK]'"),
        ('{"cat": 1, "dog": 1, "cat": 1}', "'cat' occurs twice"),
        ("[]", "expected a JSON object, found list"),
        ("", "invalid JSON"),
        ('{"cat": 1', "invalid JSON"),
        (b'{"caf\xe9": 1}', "not UTF-8"),
    ],
)
def test_bad_tables_are_refused(tokenizer, tmp_path, content, expected):
    path = table(tmp_path / "idf.json", content)
    text = message(read_idf, path, tokenizer)
    assert text.startswith(str(path)) and expected in text


def test_missing_and_damaged_tables_are_refused(tokenizer, tmp_path):
    assert "no such file" in message(read_idf, tmp_path / "absent.json", tokenizer)
    path = table(tmp_path / "idf.json.gz", {"cat": 1.0})
    path.write_bytes(path.read_bytes()[:-9])
    assert "cannot be read" in message(read_idf, path, tokenizer)


def test_a_compressed_table(tmp_path, tokenizer):
    weights = compute_idf(["cat dog", "dog fish"], tokenizer, progress=False)
    for name in ("idf.json", "idf.json.gz"):
        write_idf(tmp_path / name, weights, tokenizer)
        write_idf(tmp_path / name, weights, tokenizer)  # a table may be replaced
        np.testing.assert_array_equal(read_idf(tmp_path / name, tokenizer), weights)
    assert (tmp_path / "idf.json.gz").read_bytes()[:2] == b"\x1f\x8b"
