import os
import pickle

import numpy as np
import pytest
from data_files import message, write
from datasets import Dataset, DatasetDict, disable_progress_bars, load_dataset

from st_l0.data import Texts, open_texts

DOCUMENTS = [
    {"_id": "d2", "title": "T", "text": "two"},
    {"_id": "d1", "title": "", "text": "one"},
    {"_id": "d10", "text": "ten"},
    {"_id": "é", "text": ""},
]
TEXTS = {"d2": "T two", "d1": "one", "d10": "ten", "é": ""}
QUERIES = [{"_id": 7, "text": "seven"}, {"_id": "5", "text": "five"}]

REPOSITORY = """---
configs:
- config_name: corpus
  data_files: [{split: corpus, path: corpus/*}]
- config_name: queries
  data_files: [{split: queries, path: queries/*}]
---
"""


def make_repository(folder):
    """What a data set such as BeIR/msmarco looks like on the Hub."""
    disable_progress_bars()
    for kind, rows in (("corpus", DOCUMENTS), ("queries", [{"_id": "7", "title": "", "text": "seven"}])):
        (folder / kind).mkdir(parents=True)
        Dataset.from_list(rows).to_parquet(folder / kind / "part.parquet")
    (folder / "README.md").write_text(REPOSITORY)
    return folder


def saved(folder, rows):
    disable_progress_bars()
    Dataset.from_list(rows).save_to_disk(folder)
    return folder


def parquet(path, rows):
    disable_progress_bars()
    Dataset.from_list(rows).to_parquet(path)
    return path


@pytest.fixture(
    params=["corpus.jsonl", "corpus.jsonl.gz", "x.jsonl", "x.jsonl.gz", "parquet", "saved", "repository"]
)
def corpus(request, tmp_path):
    """The same documents in every kind of source."""
    if request.param == "parquet":
        return parquet(tmp_path / "x.parquet", DOCUMENTS)
    if request.param == "saved":
        return saved(tmp_path / "saved", DOCUMENTS)
    if request.param == "repository":
        return make_repository(tmp_path / "clone")
    path = write(tmp_path / request.param, *DOCUMENTS)
    return tmp_path if path.name.startswith("corpus") else path


def test_every_source_gives_the_same_texts(corpus):
    texts = open_texts(str(corpus), "corpus")
    assert {identifier: texts[identifier] for identifier in texts.ids()} == TEXTS
    assert list(texts.ids()) == ["d2", "d1", "d10", "é"]  # in the order of the source
    assert len(texts) == 4
    assert all(identifier in texts for identifier in TEXTS)
    assert not any(other in texts for other in ("d", "d3", "d100", "", "a" * 500, "e", None, 1))


def test_queries_are_read_and_ids_are_compared_as_text(tmp_path):
    write(tmp_path / "queries.jsonl.gz", *QUERIES)
    write(tmp_path / "corpus.jsonl", *DOCUMENTS)
    queries = open_texts(tmp_path, "queries")
    assert {identifier: queries[identifier] for identifier in queries.ids()} == {"7": "seven", "5": "five"}
    numbers = open_texts(
        saved(tmp_path / "saved", [{"id": 12, "text": "x"}, {"id": -3, "text": "y"}]), "queries"
    )
    assert (numbers["12"], numbers["-3"], list(numbers.ids())) == ("x", "y", ["12", "-3"])


def test_a_name_of_the_hub_is_loaded(tmp_path, monkeypatch):
    make_repository(tmp_path / "stand-in")
    asked = []

    def load(name, *args, **kwargs):
        asked.append((name, *args, kwargs))
        return load_dataset(str(tmp_path / "stand-in"), *args, **kwargs)

    monkeypatch.setattr("datasets.load_dataset", load)
    monkeypatch.chdir(tmp_path)
    corpus, queries = (open_texts("BeIR/msmarco", kind) for kind in ("corpus", "queries"))
    assert asked == [
        ("BeIR/msmarco", "corpus", {"split": "corpus"}),
        ("BeIR/msmarco", "queries", {"split": "queries"}),
    ]
    assert {identifier: corpus[identifier] for identifier in corpus.ids()} == TEXTS
    assert queries["7"] == "seven"
    expected = "no document '7' in BeIR/msmarco; give the corpus it is from"
    assert message(corpus.__getitem__, "7") == expected


def test_what_the_hub_does_not_give_is_one_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = message(open_texts, "BeIR/msmarco", "corpus")
    assert text.startswith(
        "BeIR/msmarco: no such path, and the Hub does not give 'corpus', split 'corpus' (Couldn't reach"
    )
    assert text.endswith("check the name and the network")
    folder = make_repository(tmp_path / "clone")
    (folder / "README.md").write_text(REPOSITORY.replace("config_name: queries", "config_name: topics"))
    text = message(open_texts, folder, "queries")
    assert text.startswith(f"{folder}: the folder does not give 'queries', split 'queries' (BuilderConfig")


def test_many_ids_are_found_as_by_a_dict(tmp_path):
    generator = np.random.default_rng(3)
    # Numbers and words, of many lengths, one the beginning of another, some longer than the index keeps.
    ids = [str(number) for number in generator.permutation(8_000)]
    ids += [f"doc-{number:x}" for number in range(1_900)]
    ids += ["w" * length for length in range(1, 90)] + [
        "ä" * 16,
        "ä" * 17,
        "x\0",
        "x",
        "\0",
        "x\0\0",
        "日本",
    ]
    ids = [ids[index] for index in generator.permutation(len(ids))]
    known = {identifier: f"text of {index}" for index, identifier in enumerate(ids)}
    dataset = Dataset.from_dict({"_id": list(known), "text": list(known.values())})
    texts = Texts(dataset, "here", "corpus")
    assert len(texts) == len(known) > 9_990
    assert texts.read(texts.rows(list(known))) == list(known.values())
    assert list(texts.ids()) == list(known)
    others = [str(number) for number in range(8_000, 9_000)] + [
        "",
        "w" * 90,
        "x\0\0\0",
        "doc-",
        "ä" * 15,
        "日",
    ]
    assert not any(other in texts for other in others)
    assert message(texts.rows, ["0", "8000", "9000"]).startswith("no document '8000' in here")
    assert texts.read([]) == [] and texts.rows([]).tolist() == []


def test_texts_survive_pickling_and_are_not_in_the_pickle(tmp_path):
    rows = [{"_id": str(index), "text": f"{index} " + "long text " * 500} for index in range(300)]
    texts = open_texts(write(tmp_path / "c.jsonl", *rows), "corpus")
    pickled = pickle.dumps(texts)
    assert len(pickled) < 30_000  # the texts are 1,500,000 bytes
    again = pickle.loads(pickled)
    assert again["299"] == rows[299]["text"] and list(again.ids()) == [row["_id"] for row in rows]
    assert "no document '300'" in message(again.__getitem__, "300")


def test_a_file_is_read_once_until_it_changes(tmp_path, monkeypatch, own_cache):
    path = write(tmp_path / "c.jsonl", *DOCUMENTS)
    assert open_texts(path, "corpus")["d1"] == "one"
    arrow = list(own_cache.rglob("*.arrow"))
    assert len(arrow) == 1
    monkeypatch.chdir(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr("st_l0.data.corpus.read_records", None)  # reading again would fail
        assert open_texts("c.jsonl", "corpus")["d1"] == "one"
    status = path.stat()
    write(path, *DOCUMENTS[1:], {"_id": "d2", "title": "T", "text": "new"})
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert path.stat().st_size == status.st_size
    assert open_texts(path, "corpus")["d2"] == "T new"
    assert len(list(own_cache.rglob("*.arrow"))) == 2


def test_latin1_is_repaired_where_it_can_be(tmp_path):
    rows = [
        {"_id": "broken", "text": "cafÃ© â\x82¬"},
        {"_id": "whole", "text": "café"},
        {"_id": "plain", "text": "cafe"},
        {"_id": "beyond", "text": "cafÃ© €"},
        {"_id": "titled", "title": "Ã¼ber", "text": "naÃ¯ve"},
    ]
    path = write(tmp_path / "c.jsonl", *rows)
    repaired = open_texts(path, "corpus", repair_latin1=True)
    assert [repaired[row["_id"]] for row in rows] == ["café €", "café", "cafe", "cafÃ© €", "über naïve"]
    assert open_texts(path, "corpus")["broken"] == "cafÃ© â\x82¬"


def test_an_id_that_occurs_twice_is_refused(tmp_path):
    rows = [*DOCUMENTS, {"_id": "d1", "text": "again"}, {"_id": "d2", "text": "again"}]
    path = write(tmp_path / "corpus.jsonl", *rows)
    expected = f"{path}:5: id 'd1' occurs already in line 2"
    assert message(open_texts, path, "corpus") == message(open_texts, tmp_path, "corpus") == expected
    folder = saved(tmp_path / "saved", rows)
    assert message(open_texts, folder, "corpus") == f"{folder}:5: id 'd1' occurs already in row 2"


def test_sources_without_ids_or_texts_are_refused(tmp_path):
    def refused(name, *rows):
        return message(open_texts, saved(tmp_path / name, rows), "corpus").removeprefix(f"{tmp_path / name}:")

    assert refused("a", {"text": "x"}) == " has the columns text; give _id, and text or title"
    assert (
        refused("b", {"_id": "a", "lyrics": "x"})
        == " has the columns _id, lyrics; give _id, and text or title"
    )
    assert refused("c", {"_id": "a", "text": 3}) == " the column text does not hold strings; give texts"
    expected = "2: the id is None; give a string or an integer"
    assert refused("d", {"_id": "a", "text": "x"}, {"_id": None, "text": "y"}) == expected
    texts = open_texts(
        saved(tmp_path / "e", [{"_id": "a", "text": "x"}, {"_id": "b", "text": None}]), "corpus"
    )
    assert texts["a"] == "x"
    assert message(texts.__getitem__, "b").startswith(f"{tmp_path / 'e'}:2: none of the fields title, text")


def test_unusable_sources_are_refused(tmp_path):
    absent = tmp_path / "absent.jsonl"
    assert message(open_texts, absent, "corpus") == f"{absent}: no such file; check the path"
    assert (
        message(open_texts, "data/absent.jsonl", "corpus")
        == "data/absent.jsonl: no such file; check the path"
    )
    write(tmp_path / "corpus.jsonl", *DOCUMENTS)
    expected = f"{tmp_path}: neither a BEIR folder (no queries.jsonl[.gz]) nor a saved dataset"
    assert message(open_texts, tmp_path, "queries") == expected
    empty = write(tmp_path / "empty.jsonl", "\n")
    assert message(open_texts, empty, "corpus").startswith(f"{empty}: the corpus is empty")
    broken = write(tmp_path / "broken.jsonl", DOCUMENTS[0], "{\n")
    assert message(open_texts, broken, "corpus").startswith(f"{broken}:2: invalid JSON")
    disable_progress_bars()
    DatasetDict(train=Dataset.from_list(DOCUMENTS)).save_to_disk(tmp_path / "many")
    assert "several splits" in message(open_texts, tmp_path / "many", "corpus")
    nothing = Dataset.from_list(DOCUMENTS).select([])
    assert message(Texts, nothing, "here", "queries") == "here: is empty; give at least one query"


def test_rows_find_ids_whose_white_space_the_reader_dropped(tmp_path):
    write(tmp_path / "corpus.jsonl", {"_id": " a ", "text": "one"}, {"_id": "b", "text": "two"})
    texts = open_texts(tmp_path, "corpus")
    assert texts.read(texts.rows([" a ", "b", "a", " b"])) == ["one", "two", "one", "two"]
    folder = saved(tmp_path / "saved", [{"_id": " a", "text": "x"}, {"_id": "b ", "text": "y"}])
    kept = open_texts(folder, "corpus")
    assert kept.read(kept.rows([" a", "a", "b "])) == ["x", "x", "y"] and list(kept.ids()) == ["a", "b"]
    twice = saved(tmp_path / "twice", [{"_id": " a", "text": "x"}, {"_id": "a", "text": "y"}])
    assert message(open_texts, twice, "corpus") == f"{twice}:2: id 'a' occurs already in row 1"
