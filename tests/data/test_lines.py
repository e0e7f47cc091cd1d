import gzip

import pytest
from data_files import message, write

from st_l0.data import read_lines, read_records
from st_l0.errors import InputError


def test_only_line_feeds_end_a_line(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes("\ufeffone\r\ntwo\u2028still two\x0bstill\nthree".encode())
    assert list(read_lines(path)) == [(1, "one"), (2, "two\u2028still two\x0bstill"), (3, "three")]


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.jsonl.gz"])
def test_records_come_with_their_line_and_blank_lines_are_skipped(tmp_path, name):
    path = write(tmp_path / name, {"a": 1}, "\n", "  \t\r\n", {"b": "é"})
    assert list(read_records(path)) == [(1, {"a": 1}), (4, {"b": "é"})]


def test_records_are_streamed(tmp_path):
    records = read_records(write(tmp_path / "a.jsonl", {"a": 1}, "{broken\n"))
    assert next(records) == (1, {"a": 1})
    with pytest.raises(InputError, match=r"a\.jsonl:2: invalid JSON"):
        next(records)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("{'a': 1}", "invalid JSON"),
        ('{"a": 1} {"a": 2}', "invalid JSON"),
        ("[1]", "found list"),
        ("3", "found int"),
        ("null", "found NoneType"),
        ("[" * 100_000, "invalid JSON"),
        ('{"a": "\\ud800"}', "surrogates not allowed"),
    ],
)
def test_a_line_that_is_not_an_object_is_refused(tmp_path, line, expected):
    path = write(tmp_path / "a.jsonl", {"a": 1}, line + "\n")
    text = message(read_records, path)
    assert text.startswith(f"{path}:2: ") and expected in text


def test_a_surrogate_pair_is_a_character(tmp_path):
    path = write(tmp_path / "a.jsonl", '{"a": "\\ud83d\\ude00"}\n')
    assert list(read_records(path)) == [(1, {"a": "\U0001f600"})]


def test_unreadable_files_are_refused(tmp_path):
    assert "no such file" in message(read_records, tmp_path / "absent.jsonl")
    assert "is a folder" in message(read_records, tmp_path)
    latin = tmp_path / "latin.jsonl"
    latin.write_bytes(b'{"a": 1}\n{"a": "caf\xe9"}\n')
    assert message(read_records, latin).startswith(f"{latin}:2: not UTF-8")


def test_damaged_gzip_is_refused(tmp_path):
    whole = gzip.compress(b"".join(b'{"a": %d}\n' % (i * 7919 % 10007) for i in range(20_000)))
    for name, content in {
        "cut.jsonl.gz": whole[: len(whole) // 2],
        "flipped.jsonl.gz": whole[:5000] + bytes(b ^ 255 for b in whole[5000:5100]) + whole[5100:],
        "plain.jsonl.gz": b'{"a": 1}\n',
    }.items():
        path = tmp_path / name
        path.write_bytes(content)
        text = message(read_records, path)
        assert text.startswith(f"{path}:")
