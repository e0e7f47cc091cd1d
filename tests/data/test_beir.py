from __future__ import annotations

import gzip
import json
import logging
import os
from pathlib import Path

import pytest

from st_l0.data import (
    Collection,
    is_corpus,
    open_texts,
    read_collection,
    read_documents,
    write_collection,
)
from st_l0.errors import InputError

CORPUS = [
    {"_id": "d1", "title": "Cats", "text": "sleep a lot"},
    {"_id": "d2", "title": "", "text": "dogs bark"},
    {"_id": "d3", "text": "", "title": "Only a title"},
    {"_id": "d4", "text": ""},
]
QUERIES = [
    {"_id": "q1", "text": "sleepy cats"},
    {"_id": "q2", "text": "unjudged"},
    {"_id": "q3", "text": "naïve 猫"},
]
QRELS = ["query-id\tcorpus-id\tscore", "q3\td2\t0", "q1\td1\t2", "q1\td2\t-1"]
DATA = Path(os.environ["ST_L0_DATA"]) / "eval" if "ST_L0_DATA" in os.environ else None


def _write(path, text, compress=False):
    path.parent.mkdir(parents=True, exist_ok=True)
    content = text if isinstance(text, bytes) else text.encode()
    if compress:
        path.with_name(path.name + ".gz").write_bytes(gzip.compress(content))
    else:
        path.write_bytes(content)


def _lines(records):
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


def _folder(folder, corpus=None, queries=None, qrels=None, compress=False):
    _write(folder / "corpus.jsonl", _lines(CORPUS) if corpus is None else corpus, compress)
    _write(folder / "queries.jsonl", _lines(QUERIES) if queries is None else queries, compress)
    _write(folder / "qrels" / "test.tsv", "\n".join(QRELS) + "\n" if qrels is None else qrels, compress)
    return folder


def _refused(folder, file, *parts, split="test"):
    """The one-line message, which must start with the file and its line."""
    with pytest.raises(InputError) as caught:
        read_collection(folder, split)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"{folder / file}")
    for part in parts:
        assert part in message
    return message


@pytest.mark.parametrize("compress", [False, True])
def test_reads_beir_layout(tmp_path, compress):
    collection = read_collection(_folder(tmp_path / "pets", compress=compress))
    assert collection.name == "pets"
    assert collection.corpus == {"d1": "Cats sleep a lot", "d2": "dogs bark", "d3": "Only a title", "d4": ""}
    assert collection.titles == {"d1": "Cats", "d3": "Only a title"}
    assert list(collection.documents) == list(collection.corpus.items())
    assert [document.title for document in collection.documents] == ["Cats", "", "Only a title", ""]
    write_collection(collection, tmp_path / "again")
    assert read_collection(tmp_path / "again").titles == collection.titles
    assert collection.queries == {"q1": "sleepy cats", "q3": "naïve 猫"}  # q2 was not judged
    assert collection.qrels == {"q1": {"d1": 2, "d2": -1}, "q3": {"d2": 0}}


def test_integer_ids_and_windows_line_ends(tmp_path):
    corpus = _lines([{"_id": 7, "text": "x"}])
    folder = _folder(tmp_path, corpus, qrels="query-id\tcorpus-id\tscore\r\nq1\t7\t1\r\n\r\n")
    collection = read_collection(folder)
    assert collection.corpus == {"7": "x"}
    assert collection.qrels == {"q1": {"7": 1}}


def test_other_splits(tmp_path):
    folder = _folder(tmp_path)
    _write(folder / "qrels" / "dev.tsv", "query-id\tcorpus-id\tscore\nq2\td1\t1\n", compress=True)
    assert read_collection(folder, "dev").queries == {"q2": "unjudged"}
    _refused(folder, "qrels/train.tsv", "splits here: dev, test", split="train")


@pytest.mark.parametrize("file", ["corpus.jsonl", "queries.jsonl", "qrels/test.tsv"])
def test_missing_file(tmp_path, file):
    folder = _folder(tmp_path)
    (folder / file).unlink()
    _refused(folder, file, "no such file")


def test_missing_folder(tmp_path):
    _refused(tmp_path / "nowhere", "", "no such folder")


@pytest.mark.parametrize("file", ["corpus.jsonl", "queries.jsonl"])
@pytest.mark.parametrize(
    ("second_line", "problem"),
    [
        (b'{"text": "x"}', "no _id"),
        (b'{"_id": null, "text": "x"}', "no _id"),
        (b'{"_id": " ", "text": "x"}', "_id is ' '"),
        (b'{"_id": true, "text": "x"}', "_id is True"),
        (b'{"_id": "x"}', "no text"),
        (b'{"_id": "x", "text": ["x"]}', "text is list"),
        (b'{"_id": "same", "text": "x"}', "id 'same' occurs already in line 1"),
        (b'{"_id": "x", "text": ', "invalid JSON"),
        (b'["x"]', "expected a JSON object"),
        (b'{"_id": "x", "text": "\xff"}', "not UTF-8"),
    ],
)
def test_bad_line(tmp_path, file, second_line, problem):
    folder = _folder(tmp_path)
    _write(folder / file, b'{"_id": "same", "text": "x"}\n' + second_line + b"\n")
    _refused(folder, file, f"{file}:2:", problem)


def test_title_that_is_not_text(tmp_path):
    _refused(_folder(tmp_path, '{"_id": "d", "title": 3, "text": "x"}\n'), "corpus.jsonl:1:", "title is int")


@pytest.mark.parametrize(
    ("file", "problem"),
    [("corpus.jsonl", "is empty"), ("queries.jsonl", "no queries"), ("qrels/test.tsv", "no judgements")],
)
def test_empty_file(tmp_path, file, problem):
    folder = _folder(tmp_path)
    _write(folder / file, "")
    _refused(folder, file, problem)


@pytest.mark.parametrize("file", ["corpus.jsonl", "queries.jsonl", "qrels/test.tsv"])
def test_truncated_gzip(tmp_path, file):
    folder = _folder(tmp_path)
    content = gzip.compress((folder / file).read_bytes())
    (folder / file).unlink()
    (folder / f"{file}.gz").write_bytes(content[:-12])
    _refused(folder, f"{file}.gz:", "cannot be read")


def test_judged_documents_outside_the_corpus_are_counted(tmp_path, caplog):
    folder = _folder(tmp_path, qrels=f"{QRELS[0]}\nq1\td1\t1\nq1\tlost\t1\nq3\tlost\t1\nq3\tgone\t1\n")
    with caplog.at_level(logging.WARNING):
        collection = read_collection(folder)
    assert collection.qrels["q3"] == {"lost": 1, "gone": 1}
    assert [record.getMessage() for record in caplog.records] == [
        f"{folder / 'qrels/test.tsv'}: 2 of 3 judged documents are not in the corpus; they count as not found"
    ]


def test_complete_corpus_gives_no_warning(tmp_path, caplog):
    read_collection(_folder(tmp_path))
    assert not caplog.records


def test_writes_what_it_reads(tmp_path):
    collection = read_collection(_folder(tmp_path / "pets"))
    write_collection(collection, tmp_path / "copies" / "pets")
    assert read_collection(tmp_path / "copies" / "pets") == collection


def test_line_separators_in_texts_survive(tmp_path):
    text = "one\u2028two\x85three\nfour\tfive"
    collection = Collection("odd", {"d": text}, {"q": text}, {"q": {"d": 1}})
    write_collection(collection, tmp_path / "odd")
    assert read_collection(tmp_path / "odd") == collection


def test_write_keeps_what_exists(tmp_path):
    (tmp_path / "precious.txt").write_text("keep")
    with pytest.raises(InputError, match="exists already"):
        write_collection(Collection("c", {"d": "x"}, {"q": "x"}, {"q": {"d": 1}}), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["precious.txt"]


@pytest.mark.parametrize("identifier", ["", "a\tb", "a\n", " a"])
def test_ids_that_a_table_cannot_hold_are_refused(tmp_path, identifier):
    with pytest.raises(InputError, match="cannot be written"):
        write_collection(Collection("c", {identifier: "x"}, {"q": "x"}, {"q": {"d": 1}}), tmp_path / "c")
    assert not list(tmp_path.iterdir())


def test_a_failed_write_leaves_nothing(tmp_path):
    collection = Collection("c", {"d": "half a pair: \ud800"}, {"q": "x"}, {"q": {"d": 1}})
    with pytest.raises(UnicodeEncodeError):
        write_collection(collection, tmp_path / "c")
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(DATA is None or not DATA.is_dir(), reason="ST_L0_DATA does not name the real collections")
@pytest.mark.parametrize(
    ("name", "documents", "queries", "pairs"),
    [
        ("nfcorpus", 3395, 323, 12334),
        ("cranfield", 1400, 225, 1837),
        ("med", 1033, 30, 696),
        ("npl", 11429, 93, 2083),
        ("wikiqa", 10474, 243, 2350),
    ],
)
def test_real_collections(name, documents, queries, pairs):
    collection = read_collection(DATA / name)
    assert (len(collection.corpus), len(collection.queries)) == (documents, queries)
    assert sum(map(len, collection.qrels.values())) == pairs


def test_index_and_evaluation_see_the_same_ids_and_texts(tmp_path):
    rows = [
        {"_id": " a ", "title": "T", "text": " body "},
        {"_id": 7, "text": "seven"},
        {"id": "b", "title": None, "text": ""},
        {"_id": "c", "title": "A title alone"},
        {"_id": "d", "title": "", "text": "no title\n"},
    ]
    folder = _folder(
        tmp_path, _lines(rows), _lines([{"id": 1, "text": "q"}]), f"{QRELS[0]}\n1\ta\t1\n 1 \t7\t2\n"
    )
    expected = {"a": "T  body ", "7": "seven", "b": "", "c": "A title alone", "d": "no title\n"}
    assert read_collection(folder).corpus == expected
    assert dict(read_documents(folder)) == expected
    assert dict(read_documents(folder / "corpus.jsonl")) == expected
    texts = open_texts(folder, "corpus")
    assert {identifier: texts[identifier] for identifier in texts.ids()} == expected
    collection = read_collection(folder)
    assert (collection.queries, collection.qrels) == ({"1": "q"}, {"1": {"a": 1, "7": 2}})
    assert open_texts(folder, "queries")["1"] == "q"


def test_a_record_without_an_id_is_refused_by_all(tmp_path):
    folder = _folder(tmp_path, _lines([{"_id": "a", "text": "x"}, {"text": "no id"}]))
    for read in (
        read_collection,
        lambda path: list(read_documents(path)),
        lambda path: open_texts(path, "corpus"),
    ):
        with pytest.raises(InputError, match=r"corpus\.jsonl:2: no _id; give every line one"):
            read(folder)


def _hub(folder, frames):
    """A collection as the Hub has it: a folder of parquet files for each part."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    for name, rows in frames.items():
        path = folder / f"{name}-00000-of-00001.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(rows), path)
    return folder


def test_a_collection_of_the_hub(tmp_path):
    qrels = [
        {"query-id": "q1", "corpus-id": "d1", "score": 1.0},
        {"query-id": "q3", "corpus-id": "d2", "score": 0.0},
    ]
    parts = {"corpus/a": CORPUS[:2], "corpus/b": CORPUS[2:], "queries/queries": QUERIES, "qrels/test": qrels}
    folder = _hub(tmp_path / "pets", parts)
    collection = read_collection(folder)
    assert collection == read_collection(_folder(tmp_path / "2" / "pets", qrels="q1\td1\t1\nq3\td2\t0\n"))
    assert dict(read_documents(folder)) == collection.corpus
    _refused(folder, "qrels/dev.tsv", "splits here: test", split="dev")
    lists = _hub(tmp_path / "nano", parts | {"qrels/train": [{"query-id": "q1", "corpus-id": "d1"}]})
    assert read_collection(lists, "train").qrels == {"q1": {"d1": 1}}


def _zip(path, files):
    import zipfile

    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def _files(folder, inside):
    return {
        f"{inside}{path.relative_to(folder).as_posix()}": path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize("inside", ["", "pets/", "some/where/pets/"])
@pytest.mark.parametrize("compress", [False, True])
def test_a_collection_in_a_zip_archive(tmp_path, inside, compress):
    folder = _folder(tmp_path / "pets", compress=compress)
    archive = _zip(tmp_path / "pets.zip", _files(folder, inside) | {"__MACOSX/pets/._corpus.jsonl": "junk"})
    expected = read_collection(folder)
    assert read_collection(archive) == expected
    assert dict(read_documents(archive)) == expected.corpus
    texts = open_texts(archive, "queries")
    assert [texts[identifier] for identifier in ("q1", "q2")] == ["sleepy cats", "unjudged"]
    assert is_corpus(archive)


def test_archives_of_other_kinds(tmp_path):
    folder = _folder(tmp_path / "pets")
    several = _zip(tmp_path / "many.zip", _files(folder, "a/b/") | _files(folder, "a/c/"))
    with pytest.raises(
        InputError, match=r"many\.zip: holds several collections; give one, such as .*many\.zip/a/b"
    ):
        read_collection(several)
    assert read_collection(several / "a" / "c").corpus == read_collection(folder).corpus
    one = _zip(tmp_path / "one.zip", {"x/documents.txt": "one\ntwo\n"})
    assert list(read_documents(one)) == [("1", "one"), ("2", "two")]
    with pytest.raises(InputError, match="holds no corpus"):
        list(read_documents(_zip(tmp_path / "two.zip", {"a.txt": "x", "b.txt": "y"})))
    broken = tmp_path / "broken.zip"
    broken.write_bytes(several.read_bytes()[:200])
    for read in (
        read_collection,
        lambda path: list(read_documents(path)),
        lambda path: open_texts(path, "corpus"),
    ):
        with pytest.raises(InputError, match="cannot be read as zip"):
            read(broken)
    content = bytearray(_zip(tmp_path / "bad.zip", _files(folder, "")).read_bytes())
    content[len("PK") + 28 + len("corpus.jsonl") + 20] ^= 1
    (tmp_path / "bad.zip").write_bytes(content)
    with pytest.raises(InputError, match=r"bad\.zip/.*cannot be read"):
        read_collection(tmp_path / "bad.zip")


@pytest.mark.parametrize("kind", ["jsonl", "json", "tsv", "csv", "parquet"])
@pytest.mark.parametrize("archive", [False, True])
def test_parts_in_other_files(tmp_path, kind, archive):
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder = tmp_path / "pets"
    for name, rows in (("corpus", {"007": "cats", "7": "dogs, say"}), ("queries", {"q1": "a cat"})):
        path = folder / f"{name}.{kind}"
        folder.mkdir(exist_ok=True)
        records = [{"_id": identifier, "text": text} for identifier, text in rows.items()]
        match kind:
            case "parquet":
                pq.write_table(pa.Table.from_pylist(records), path)
            case "jsonl":
                path.write_text(_lines(records))
            case "json":
                path.write_text(json.dumps(records, indent=1))
            case "tsv":  # MS MARCO's: no names
                path.write_text("".join(f"{identifier}\t{text}\n" for identifier, text in rows.items()))
            case "csv":
                path.write_text("id,text\n" + "".join(f'{key},"{text}"\n' for key, text in rows.items()))
    _write(folder / "qrels" / "test.tsv", "q1\t007\t1\n")
    source = _zip(tmp_path / "pets.zip", _files(folder, "pets/")) if archive else folder
    collection = read_collection(source)
    assert collection.corpus == {"007": "cats", "7": "dogs, say"}
    assert (collection.queries, collection.qrels) == ({"q1": "a cat"}, {"q1": {"007": 1}})
    assert dict(read_documents(source)) == collection.corpus
    assert open_texts(source, "corpus")["7"] == "dogs, say"
    assert open_texts(source, "queries")["q1"] == "a cat"


@pytest.mark.parametrize(
    ("queries", "judgements", "split"),
    [
        ("queries.dev.tsv", "qrels.dev.tsv", "dev"),
        ("topics.tsv", "qrels.txt", "test"),
        ("queries.tsv", "qrels", "test"),
        ("topics.test.tsv", "test.qrels", "test"),
        ("topics.tsv", "qrels/test.trec", "test"),
    ],
)
def test_a_collection_as_trec_has_it(tmp_path, queries, judgements, split):
    """Names, four columns, scores with a point, ids that are numbers."""
    (tmp_path / "collection.tsv").write_text("7\train falls\n8\tsnow\n")
    (tmp_path / queries).write_text("301\twet\n302\tcold\n")
    (tmp_path / judgements).parent.mkdir(exist_ok=True)
    (tmp_path / judgements).write_text("301 0 7 1.0\n301 0 8 0\n302 Q0 8 2\n")
    found = read_collection(tmp_path, split)
    assert found.corpus == {"7": "rain falls", "8": "snow"}
    assert found.queries == {"301": "wet", "302": "cold"}
    assert found.qrels == {"301": {"7": 1, "8": 0}, "302": {"8": 2}}
