"""What a record is: one rule for files, saved data sets, lookups and collections."""

import json
import pickle

import pytest
from data_files import message, write
from datasets import Dataset, disable_progress_bars

from st_l0.data import open_texts, read_collection, read_documents
from st_l0.data.records import Fields, document_of

disable_progress_bars()


def readers(folder, *records):
    """What each reader makes of the same records, or its complaint without the place."""
    folder.mkdir()
    beir = folder / "beir"
    write(beir / "corpus.jsonl", *records)
    write(beir / "queries.jsonl", {"_id": "q", "text": "q"})
    write(beir / "qrels" / "test.tsv", "query-id\tcorpus-id\tscore\n", "q\t1\t1\n")
    Dataset.from_list(list(records)).save_to_disk(folder / "saved")
    Dataset.from_list(list(records)).to_parquet(folder / "c.parquet")

    def looked_up(source):
        texts = open_texts(source, "corpus")
        return {identifier: texts[identifier] for identifier in texts.ids()}

    return {
        "read_documents": dict(read_documents(beir)),
        "read_documents, saved": dict(read_documents(folder / "saved")),
        "read_documents, parquet": dict(read_documents(folder / "c.parquet")),
        "read_collection": read_collection(beir).corpus,
        "open_texts": looked_up(beir),
        "open_texts, saved": looked_up(folder / "saved"),
        "open_texts, parquet": looked_up(folder / "c.parquet"),
    }


@pytest.mark.parametrize(
    ("records", "expected"),
    [
        ([{"docid": "1", "contents": "x"}, {"docid": "2", "contents": "y"}], {"1": "x", "2": "y"}),
        ([{"doc_id": 1, "title": "T", "body": "x"}], {"1": "T x"}),
        ([{"document_id": "1", "text": "x"}], {"1": "x"}),
        ([{"passage_id": "1", "passage": "x"}], {"1": "x"}),
        ([{"DocID": " 1 ", "Title": "T", "Text": "x"}], {"1": "T x"}),
        ([{"_id": "1", "docid": "9", "text": "x", "contents": "whole"}], {"1": "x"}),
        ([{"id": "1", "docid": "1", "text": "x"}], {"1": "x"}),
        # null counts as absent, a column of nulls too
        ([{"_id": "1", "title": None, "text": "x"}], {"1": "x"}),
        ([{"_id": "1", "title": "T", "text": None}], {"1": "T"}),
        ([{"_id": None, "id": "1", "text": None, "contents": "x"}], {"1": "x"}),
        (
            [{"_id": "1", "text": "x", "contents": None}, {"_id": "2", "text": None, "contents": "y"}],
            {"1": "x", "2": "y"},
        ),
        # what is said about a document is left alone
        ([{"_id": "1", "title": "T", "url": "https://a.b/c", "author_id": 5, "text": "x"}], {"1": "T x"}),
        ([{"_id": "1", "title": "Heart", "price": 3.5, "brand": "Acme and sons"}], {"1": "Heart"}),
    ],
)
def test_every_reader_reads_the_same(tmp_path, records, expected):
    found = readers(tmp_path / "data", *records)
    assert found == dict.fromkeys(found, expected)


ID = "id_field (--id-field, or in a recipe data.columns.corpus_id)"
TEXT = "text_fields (--text-field, or in a recipe data.columns.corpus_text)"


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        (
            {"product_id": "7", "text": "x"},
            f"no _id, but product_id, which may be one; name the id with {ID}; empty, it stands for the "
            "number of the line",
        ),
        ({"cord_uid": "7", "text": "x"}, "no _id, but cord_uid, which may be one"),
        ({"pmid": "7", "text": "x"}, "no _id, but pmid, which may be one"),
        ({"slug": "rain", "text": "x"}, "no _id, but slug, which may be one"),
        ({"id": 1, "docid": "D1", "text": "x"}, f"has id and docid, ids that differ; name one with {ID}"),
        (
            {"_id": "1", "contents": "x", "body": "y"},
            f"has contents and body, two texts; name one with {TEXT}",
        ),
        (
            {"_id": "1", "title": "T", "abstract": "x"},
            f"has a title and no text, but abstract, which may be one; name the fields with {TEXT}",
        ),
        (
            {"_id": "1", "title": "T", "notes": "a long text of more than eight words stands here"},
            "has a title and no text, but notes",
        ),
        (
            {"_id": "1", "lyrics": "x"},
            "none of the fields title, text (but _id, lyrics), so no text; name it with",
        ),
        ({"doc_id": " ", "text": "x"}, "doc_id is ' '; give a string or an integer"),
    ],
)
def test_what_may_be_id_or_text_is_refused(tmp_path, record, expected):
    path = write(tmp_path / "c.jsonl", record)
    assert message(read_documents, path).startswith(f"{path}:1: {expected}")
    Dataset.from_list([record]).to_parquet(tmp_path / "c.parquet")
    assert expected in message(read_documents, tmp_path / "c.parquet")


def test_fields_are_named(tmp_path):
    records = [
        {"sku": "7", "name": "T", "abstract": "x", "text": "y"},
        {"sku": 8, "name": None, "abstract": "z"},
    ]
    path = write(tmp_path / "c.jsonl", *records)
    options = {"id_field": "sku", "text_fields": ["name", "abstract"]}
    assert list(read_documents(path, **options)) == [("7", "T x"), ("8", "z")]
    assert list(read_documents(path, **options | {"id_field": ""})) == [("1", "T x"), ("2", "z")]
    write(tmp_path / "beir" / "corpus.jsonl", *records)
    assert [document.id for document in read_documents(tmp_path / "beir", **options)] == ["7", "8"]
    columns = {"corpus_id": "sku", "corpus_title": "name", "corpus_text": "abstract"}
    Dataset.from_list([{**record, "sku": str(record["sku"])} for record in records]).save_to_disk(
        tmp_path / "saved"
    )
    for source in (path, tmp_path / "beir", tmp_path / "saved"):
        texts = open_texts(source, "corpus", columns=columns)
        assert {identifier: texts[identifier] for identifier in texts.ids()} == {"7": "T x", "8": "z"}
    expected = f"{path}:1: has no uid (but sku, name, abstract, text); name the id with {ID}"
    assert message(read_documents, path, **options | {"id_field": "uid"}) == expected


def test_documents_in_python():
    records = [{"docid": 1, "text": "x", "title": float("nan")}, {"docid": 2, "text": "y", "title": "T"}]
    expected = [("1", "x"), ("2", "T y")]
    dataset = Dataset.from_list([{"docid": 1, "text": "x", "title": None}, records[1]])
    assert list(read_documents(records)) == list(read_documents(dataset)) == expected
    assert list(read_documents(records, text_fields="text", id_field="")) == [("1", "x"), ("2", "y")]
    assert open_texts(dataset, "corpus")["2"] == "T y"
    assert message(read_documents, [records[0], {**records[1], "docid": "1"}]) == (
        "row:2: id '1' occurs already in line 1"
    )
    assert message(read_documents, ["a text"]) == "row 1: is str; give a dictionary"
    assert "of the type dict; give a path" in message(read_documents, records[0])
    assert "of the type list; give a path or a Dataset" in message(open_texts, records, "corpus")


def test_queries_have_names_of_their_own(tmp_path):
    for number, record in enumerate(({"query_id": 7, "query": "x"}, {"qid": "7", "question": "x"})):
        path = write(tmp_path / f"{number}.jsonl", record)
        Dataset.from_list([record]).save_to_disk(tmp_path / f"saved{number}")
        for source in (path, tmp_path / f"saved{number}"):
            assert open_texts(source, "queries")["7"] == "x"
    folder = tmp_path / "pylate"  # lists of files, as they come from the Hub
    folder.mkdir()
    Dataset.from_list([{"document_id": 3, "text": "x"}]).to_parquet(folder / "train-00000-of-00001.parquet")
    assert open_texts(folder, "corpus")["3"] == "x"


def test_a_cache_of_other_fields_is_not_taken(tmp_path):
    path = write(tmp_path / "c.jsonl", json.dumps({"a": "1", "b": "2", "text": "x"}) + "\n")
    assert list(open_texts(path, "corpus", columns={"corpus_id": "a"}).ids()) == ["1"]
    assert list(open_texts(path, "corpus", columns={"corpus_id": "b"}).ids()) == ["2"]


def test_a_document_is_a_pair_that_knows_its_title():
    for record, title in [
        ({"_id": "a", "title": "Rain", "text": "It falls."}, "Rain"),
        ({"_id": "a", "Title": "Rain", "contents": ""}, "Rain"),
        ({"_id": "a", "title": "", "text": "It falls."}, ""),
        ({"_id": "a", "title": None, "text": "It falls."}, ""),
        ({"_id": "a", "text": "It falls."}, ""),
    ]:
        document = document_of("corpus.jsonl", 1, record)
        assert (document.title, document.text[: len(title)]) == (title, title)
        assert tuple(document) == (document.id, document.text)
        assert pickle.loads(pickle.dumps(document)).title == title
    only = Fields(texts=("text",))
    assert document_of("c", 1, {"_id": "a", "title": "Rain", "text": "It falls."}, only).title == ""
