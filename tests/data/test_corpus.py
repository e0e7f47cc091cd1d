import pytest
from data_files import message, write

from st_l0.data import Document, read_documents
from st_l0.errors import InputError


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
        (
            {"_id": "b", "lyrics": "x"},
            "none of the fields title, text (but _id, lyrics), so no text; name it with text_fields",
        ),
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
    assert "unknown kind of corpus" in message(read_documents, tmp_path / "c.docx")
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
