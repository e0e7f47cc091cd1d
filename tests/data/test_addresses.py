"""Corpora, collections and what is read of them, at addresses that fsspec opens."""

import io
import zipfile

import fsspec
import pytest
from data_files import message, write

from st_l0.data import is_corpus, read_collection, read_documents
from st_l0.data.lines import read_lines
from st_l0.errors import InputError
from st_l0.utils.paths import input_path

ROWS = [{"_id": "a", "title": "T", "text": "rain"}, {"_id": "b", "text": "ünd snow"}]
READ = [("a", "T rain"), ("b", "ünd snow")]


@pytest.fixture
def store():
    """The file system of ``memory://``, empty again after the test."""
    memory = fsspec.filesystem("memory")
    yield memory
    memory.store.clear()
    memory.pseudo_dirs[:] = [""]


def put(path, address):
    """Copy a file or a folder to an address."""
    files = [path] if path.is_file() else [file for file in sorted(path.rglob("*")) if file.is_file()]
    for file in files:
        place = address if file == path else f"{address}/{file.relative_to(path).as_posix()}"
        with fsspec.open(place, "wb") as stream:
            stream.write(file.read_bytes())


def parquet(path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_pylist(ROWS), path)
    return path


def arrow(path):
    import pyarrow as pa

    table = pa.Table.from_pylist(ROWS)
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table)
    return path


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("c.jsonl", lambda path: write(path, *ROWS)),
        ("c.jsonl.gz", lambda path: write(path, *ROWS)),
        ("c.tsv", lambda path: write(path, "_id\ttitle\ttext\n", "a\tT\train\n", "b\t\tünd snow\n")),
        ("c.csv.gz", lambda path: write(path, "_id,title,text\n", "a,T,rain\n", 'b,,"ünd snow"\n')),
        ("c.parquet", parquet),
        ("c.arrow", arrow),
    ],
)
def test_every_kind_of_file_is_read(tmp_path, store, name, make):
    path = make(tmp_path / name)
    put(path, f"memory://bucket/{name}")
    assert list(read_documents(f"memory://bucket/{name}")) == READ
    assert list(read_documents(f"file://{path}")) == READ
    assert is_corpus(f"memory://bucket/{name}") and is_corpus(f"file://{path}")
    assert not is_corpus(f"memory://bucket/other/{name}") and not is_corpus("opensearch://host:9200/name")


def test_collections_are_read_from_folders_and_archives(tmp_path, store):
    folder = tmp_path / "toy"
    write(folder / "corpus.jsonl.gz", *ROWS)
    write(folder / "queries.jsonl", {"_id": "q", "text": "wet"})
    write(folder / "qrels" / "test.tsv", "query-id\tcorpus-id\tscore\n", "q\ta\t1\n")
    put(folder, "memory://bucket/toy")
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        for member in sorted(folder.rglob("*.*")):
            file.write(member, member.relative_to(tmp_path).as_posix())
    store.pipe("/bucket/toy.zip", archive.getvalue())
    expected = read_collection(folder)
    for address in ("memory://bucket/toy", "memory://bucket/toy.zip", f"file://{folder}"):
        assert read_collection(address) == expected
        assert list(read_documents(address)) == READ
    assert "splits here: test" in message(read_collection, "memory://bucket/toy", "dev")


def test_folders_of_parquet_files_are_read_in_order(tmp_path, store):
    for number in (1, 0):
        put(parquet(tmp_path / "p.parquet"), f"memory://bucket/many/p-{number}.parquet")
    with pytest.raises(InputError, match=r"memory://bucket/many:3: id 'a' occurs already in line 1"):
        list(read_documents("memory://bucket/many"))


def test_saved_datasets_are_read(tmp_path, store):
    import datasets

    datasets.Dataset.from_list([{"_id": "a", "text": "rain"}]).save_to_disk(tmp_path / "saved")
    put(tmp_path / "saved", "memory://bucket/saved")
    assert list(read_documents("memory://bucket/saved")) == [("a", "rain")]


def test_lines_come_as_they_do_from_a_file(store):
    store.pipe("/x.txt", b"\xef\xbb\xbfone\r\ntwo\n\nl\xffst")
    lines = read_lines("memory://x.txt")
    assert [next(lines) for _ in range(3)] == [(1, "one"), (2, "two"), (3, "")]
    with pytest.raises(InputError, match=r"memory://x\.txt:4: not UTF-8"):
        next(lines)


def test_a_path_that_was_made_of_an_address_means_the_same(tmp_path, store):
    from pathlib import Path

    store.pipe("/bucket/c.txt", b"one\n")
    assert list(read_documents(Path("memory://bucket/c.txt"))) == [("1", "one")]
    path = write(tmp_path / "c.txt", "one\n")
    assert input_path(Path(f"file://{path}")) == input_path(f"file://{path}") == path


@pytest.mark.parametrize(
    ("address", "problem"),
    [
        ("memory://bucket/none.jsonl", "memory://bucket/none.jsonl: no such file; check the path"),
        ("memory://bucket/none.parquet", "memory://bucket/none.parquet: no such file; check the path"),
        (
            "zz://bucket/c.jsonl",
            "zz://bucket/c.jsonl: fsspec knows no zz://; give a path",
        ),
        ("ftp://ada:secret@host/c.jsonl", "ftp://…: give no names and passwords in an address"),
    ],
)
def test_what_cannot_be_had_is_said_in_one_line(store, address, problem):
    text = message(read_documents, address)
    assert text.startswith(problem)
    assert "secret" not in text


def test_a_missing_package_is_named_with_its_command(monkeypatch, store):
    import sys

    monkeypatch.setitem(sys.modules, "s3fs", None)
    expected = "s3://bucket/c.jsonl: this needs 's3fs', which is not installed: pip install s3fs"
    assert message(read_documents, "s3://bucket/c.jsonl") == expected


def test_a_place_that_does_not_answer_is_no_missing_file(monkeypatch, store):
    def refuse(*_, **__):
        raise PermissionError("Access Denied")

    monkeypatch.setattr(type(store), "info", refuse)
    text = message(read_documents, "memory://bucket/c.jsonl")
    assert text.startswith("memory://bucket/c.jsonl: cannot be reached (Access Denied); check address")
