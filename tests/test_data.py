import gzip
import json

import pytest

from st_l0.data import Document, read_documents, read_lines, read_pairs, read_records
from st_l0.errors import InputError


def write(path, *rows):
    text = "".join(row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows)
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text, encoding="utf-8", newline="")
    return path


def message(function, *args, **kwargs):
    with pytest.raises(InputError) as caught:
        result = function(*args, **kwargs)
        list(result)
    text = str(caught.value)
    assert "\n" not in text
    return text


# read_lines, read_records


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


# read_documents


def test_title_and_text_are_joined_by_one_space(tmp_path):
    path = write(
        tmp_path / "c.jsonl",
        {"_id": "x", "title": "T", "text": "body"},
        {"id": 7, "title": "", "text": "only text"},
        {"text": "no id", "title": None},
        {"_id": "e", "text": ""},
    )
    assert list(read_documents(path)) == [
        Document("x", "T body"),
        Document("7", "only text"),
        Document("3", "no id"),
        Document("e", ""),
    ]


def test_text_fields_are_taken_in_the_order_given(tmp_path):
    path = write(tmp_path / "c.jsonl", {"_id": "x", "a": "1", "b": "2", "text": "3"})
    assert list(read_documents(path, text_fields=["b", "a"])) == [("x", "2 1")]
    assert "text_fields is empty" in message(read_documents, path, text_fields=[])


@pytest.mark.parametrize("name", ["c.txt", "c.txt.gz"])
def test_text_files_hold_a_document_a_line(tmp_path, name):
    path = write(tmp_path / name, "one\n", "\n", "three\n")
    assert list(read_documents(path)) == [("1", "one"), ("2", ""), ("3", "three")]


@pytest.mark.parametrize("name", ["corpus.jsonl", "corpus.jsonl.gz"])
def test_a_beir_folder_is_read(tmp_path, name):
    write(tmp_path / name, {"_id": "d1", "title": "T", "text": "x"})
    assert list(read_documents(tmp_path)) == [("d1", "T x")]


def test_parquet_is_read_and_checked(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path / "c.parquet"
    pq.write_table(
        pa.table({"_id": ["a", "b"], "text": ["x", "y"], "title": ["T", None], "other": [1, 2]}), path
    )
    assert list(read_documents(path)) == [("a", "T x"), ("b", "y")]
    pq.write_table(pa.table({"_id": ["a", "b"], "text": ["x", None]}), path)
    assert message(read_documents, path).startswith(f"{path}:2: none of the fields")
    pq.write_table(pa.table({"other": ["a", "b"]}), path)
    assert message(read_documents, path).startswith(f"{path}:1: none of the fields")
    path.write_bytes(path.read_bytes()[:-20])
    assert "cannot be read as parquet" in message(read_documents, path)
    assert "no such file" in message(read_documents, tmp_path / "absent.parquet")


def test_a_saved_dataset_is_read(tmp_path):
    from datasets import Dataset, DatasetDict, disable_progress_bars

    disable_progress_bars()
    dataset = Dataset.from_dict({"_id": ["a", "b"], "text": ["x", "y"], "n": [1, 2]})
    dataset.save_to_disk(tmp_path / "one")
    assert list(read_documents(tmp_path / "one")) == [("a", "x"), ("b", "y")]
    assert "text_fields" in message(read_documents, tmp_path / "one", text_fields=["body"])
    DatasetDict(train=dataset, dev=dataset).save_to_disk(tmp_path / "many")
    text = message(read_documents, tmp_path / "many")
    assert "several splits" in text and str(tmp_path / "many" / "train") in text


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ({"_id": "b", "body": "x"}, "none of the fields title, text"),
        ({"_id": "b", "text": 3}, "text is int"),
        ({"_id": "b", "text": ["x"]}, "text is list"),
        ({"_id": None, "text": "x"}, "_id is None"),
        ({"_id": "", "text": "x"}, "_id is ''"),
        ({"_id": True, "text": "x"}, "_id is True"),
        ({"_id": 1.5, "text": "x"}, "_id is 1.5"),
    ],
)
def test_a_record_without_text_or_id_is_refused(tmp_path, record, expected):
    path = write(tmp_path / "c.jsonl", {"_id": "a", "text": "x"}, record)
    text = message(read_documents, path)
    assert text.startswith(f"{path}:2: ") and expected in text


def test_unusable_sources_are_refused(tmp_path):
    assert "neither a BEIR folder" in message(read_documents, tmp_path)
    assert "unknown kind of corpus" in message(read_documents, tmp_path / "c.csv")
    assert "the corpus is empty" in message(read_documents, write(tmp_path / "c.jsonl", "\n"))
    assert "the corpus is empty" in message(read_documents, write(tmp_path / "c.txt"))


def test_a_duplicate_id_is_reported_with_both_lines(tmp_path):
    rows = [{"_id": f"d{i}", "text": "x"} for i in range(9)]
    path = write(tmp_path / "c.jsonl", *rows, "\n", {"_id": "d4", "text": "y"})
    assert message(read_documents, path) == f"{path}:11: id 'd4' occurs already in line 5"
    path = write(tmp_path / "c.jsonl", {"_id": "2", "text": "x"}, {"text": "its line is its id"})
    assert "id '2'" in message(read_documents, path)


def test_duplicate_ids_are_found_before_the_end_of_a_large_corpus(tmp_path):
    count = 66_000
    path = write(tmp_path / "c.txt", *(["x\n"] * count))
    assert sum(1 for _ in read_documents(path)) == count
    path = write(tmp_path / "c.jsonl", *[f'{{"_id": "{i % 65000}", "text": "x"}}\n' for i in range(count)])
    documents = read_documents(path)
    read = 0
    with pytest.raises(InputError, match="id '0' occurs already in line 1"):
        for _ in documents:
            read += 1
    assert read < 65_536


# read_pairs


def test_pairs_and_negatives(tmp_path):
    pairs = read_pairs(write(tmp_path / "p.jsonl", {"query": "q", "positive": "p", "score": 1.0}))
    assert pairs.column_names == ["query", "positive"] and pairs[0] == {"query": "q", "positive": "p"}

    one = write(tmp_path / "n.jsonl.gz", {"query": "q", "positive": "p", "negative": "n"})
    also_one = write(tmp_path / "l.jsonl", {"query": "r", "positive": "s", "negatives": ["t"]})
    both = read_pairs([one, str(also_one)])
    assert both.to_dict() == {"query": ["q", "r"], "positive": ["p", "s"], "negative": ["n", "t"]}

    many = write(tmp_path / "m.jsonl", {"negatives": ["1", "2"], "positive": "p", "query": "q"})
    assert read_pairs(many)[0] == {"query": "q", "positive": "p", "negative_1": "1", "negative_2": "2"}


def test_pairs_from_parquet_and_in_several_batches(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path / "p.parquet"
    queries = [f"q{i}" for i in range(5000)]
    pq.write_table(
        pa.table({"query": queries, "positive": ["p"] * 5000, "negatives": [["a", "b"]] * 5000}), path
    )
    pairs = read_pairs(path)
    assert pairs["query"][:] == queries and pairs.column_names[2:] == ["negative_1", "negative_2"]


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ({"positive": "p", "negative": "n"}, "query is missing"),
        ({"query": "", "positive": "p", "negative": "n"}, "query is empty"),
        ({"query": "q", "positive": " \n", "negative": "n"}, r"positive is ' \n'"),
        ({"query": "q", "positive": 3, "negative": "n"}, "positive is 3"),
        ({"query": "q", "positive": "p", "negative": ["n"]}, "negative is ['n']"),
        ({"query": "q", "positive": "p", "negatives": "n"}, "negatives is str"),
        ({"query": "q", "positive": "p", "negatives": [""]}, "negatives[0] is empty"),
        ({"query": "q", "positive": "p", "negative": "n", "negatives": ["n"]}, "both negative and negatives"),
        ({"query": "q", "positive": "p"}, "0 negatives where the first row has 1"),
        ({"query": "q", "positive": "p", "negatives": ["a", "b"]}, "2 negatives where the first row has 1"),
    ],
)
def test_a_bad_pair_is_refused(tmp_path, record, expected):
    path = write(tmp_path / "p.jsonl", {"query": "q", "positive": "p", "negative": "n"}, record)
    text = message(read_pairs, path)
    assert text.startswith(f"{path}:2: ") and expected in text


def test_no_pairs_at_all_is_refused(tmp_path):
    assert "no training pairs" in message(read_pairs, write(tmp_path / "p.jsonl"))
    assert "no training pairs" in message(read_pairs, [])
