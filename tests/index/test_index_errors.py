import json
import shutil

import numpy as np
import pytest

from st_l0.errors import InputError
from st_l0.index import EmbeddedIndex, open_index
from st_l0.index.embedded.manifests import seal

EYE = np.eye(3, dtype=np.float32)


@pytest.fixture(params=["memory", "folder"])
def index(request, tmp_path):
    index = EmbeddedIndex(None if request.param == "memory" else tmp_path / "index")
    index.add(["a", "b"], EYE[:2])
    return index


@pytest.fixture
def folder(tmp_path):
    index = EmbeddedIndex(tmp_path / "index")
    index.add(["a", "b"], EYE[:2], ["A", "B"])
    index.delete(["b"])
    return tmp_path / "index"


def refused(function, *words):
    with pytest.raises(InputError) as caught:
        function()
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert str(word) in message


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda i: i.add(["c", "c"], EYE[:2]), ["'c'", "more than once"]),
        (lambda i: i.update(["c", "c"], EYE[:2]), ["'c'", "more than once"]),
        (lambda i: i.delete(["a", "a"]), ["'a'", "more than once"]),
        (lambda i: i.add(["c", "b"], EYE[:2]), ["'b'", "already", "update()"]),
        (lambda i: i.delete(["a", "nobody"]), ["'nobody'", "nothing was deleted"]),
        (lambda i: i.add(["c"], EYE), ["1 ids", "3 vectors"]),
        (lambda i: i.update(["c", "d"], EYE[:1]), ["2 ids", "1 vectors"]),
        (lambda i: i.add(["c", "d"], EYE[:2], ["C"]), ["2 ids", "1 texts"]),
        (lambda i: i.add(["c", "d"], EYE[:2], "CD"), ["one text", "list of texts"]),
        (lambda i: i.add(["c", 4], EYE[:2]), ["all str or all int", "int and str"]),
        (lambda i: i.add([4, 5], EYE[:2]), ["str ids", "4 is int"]),
        (lambda i: i.update([4], EYE[:1]), ["str ids", "4 is int"]),
        (lambda i: i.add([1.5], EYE[:1]), ["float"]),
        (lambda i: i.add([True], EYE[:1]), ["bool"]),
        (lambda i: i.add([None], EYE[:1]), ["NoneType"]),
        (lambda i: i.add([2**63], EYE[:1]), ["64 bits"]),
        (lambda i: i.add("c", EYE[:1]), ["list of ids", "'c'"]),
        (lambda i: i.add(["c"], np.array([[np.nan, 0, 1]])), ["vector 0", "not finite"]),
        (lambda i: i.add(["c", "d"], np.array([[0, 0, 1], [0, np.inf, 1]])), ["vector 1", "not finite"]),
        (lambda i: i.add(["c"], np.eye(1, 4)), ["4 dimensions", "index 3"]),
        (lambda i: i.search(np.eye(1, 4)), ["4 dimensions", "index 3"]),
        (lambda i: i.search(np.array([np.nan, 0, 1])), ["not finite"]),
        (lambda i: i.search(EYE, k=0), ["k must be a whole number of at least 1", "0"]),
        (lambda i: i.search(EYE, mask=np.array([True])), ["2 booleans", "shape (1,)"]),
        (lambda i: i.search(EYE, mask=np.array([1, 0])), ["2 booleans", "int"]),
        (lambda i: i.search(EYE, ids=[1]), ["str ids", "1"]),
        (lambda i: i.search(EYE, ids="a"), ["list of ids"]),
        (lambda i: i.search("red fish"), ["is a text, no vector", "encode"]),
        (lambda i: i.search(["red fish"]), ["is a text, no vector", "encode"]),
        (lambda i: i.explain("red fish", "a"), ["is a text, no vector"]),
        (lambda i: i.add(["c"], ["red fish"]), ["is a text, no vector"]),
        (lambda i: i.search(""), ["is a text, no vector"]),
        (lambda i: i.explain(EYE[0], "nobody"), ["'nobody'"]),
        (lambda i: i.explain(np.eye(1, 4), "a"), ["4 dimensions"]),
    ],
)
def test_bad_input_is_refused_in_one_line_and_changes_nothing(index, call, words):
    refused(lambda: call(index), *words)
    assert index.ids().tolist() == ["a", "b"]
    index.add(["c"], EYE[2:])  # and the index goes on working
    assert [hits.ids.tolist() for hits in index.search(EYE)] == [["a"], ["b"], ["c"]]


def test_str_ids_are_refused_by_an_index_of_int_ids():
    index = EmbeddedIndex()
    index.add([1], EYE[:1])
    refused(lambda: index.add(["1"], EYE[:1]), "int ids", "'1' is str")
    assert "1" not in index


@pytest.mark.parametrize("metadata", [{"a": object()}, {"a": {1, 2}}])
def test_metadata_must_be_json(metadata):
    refused(lambda: EmbeddedIndex(metadata=metadata), "metadata", "JSON")


def test_vocabulary_size_is_checked(folder, tmp_path):
    refused(lambda: EmbeddedIndex(vocabulary_size=0), "at least 1")
    refused(lambda: EmbeddedIndex(folder, vocabulary_size=4), folder, "3 dimensions, not 4")
    told = EmbeddedIndex(vocabulary_size=5)
    refused(lambda: told.add(["a"], EYE[:1]), "3 dimensions", "index 5")
    EmbeddedIndex(tmp_path / "new")
    late = EmbeddedIndex(tmp_path / "new", vocabulary_size=5)
    refused(lambda: late.add(["a"], EYE[:1]), "3 dimensions", "index 5")
    EmbeddedIndex(tmp_path / "new").add(["a"], EYE[:1])
    refused(lambda: late.add(["b"], np.eye(1, 5)), "5 dimensions", "index 3")


@pytest.mark.parametrize("target", ["elasticsearch://localhost:9200/x", "https://localhost/x"])
def test_engines_that_are_not_there(target):
    refused(lambda: open_index(target), target.partition(":")[0], "no engine", "folder")


def test_no_index_and_none_to_be_made(tmp_path):
    refused(lambda: open_index(tmp_path / "none", create=False), tmp_path / "none", "no index here")
    assert not (tmp_path / "none").exists()
    (tmp_path / "empty").mkdir()
    refused(lambda: open_index(tmp_path / "empty", create=False), "no index here")


def test_what_is_not_an_index_is_left_alone(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_text("miaow")
    (tmp_path / "file").write_text("text")
    index = EmbeddedIndex()
    for place in (tmp_path / "photos", tmp_path / "file"):
        refused(lambda place=place: open_index(place), place, "not an index")
        refused(lambda place=place: open_index(place, create=False), place, "not an index")
        refused(lambda place=place: index.save(place), place, "not an index")
    assert [path.name for path in (tmp_path / "photos").iterdir()] == ["cat.jpg"]
    refused(lambda: open_index(tmp_path / "file" / "below"), "below", "cannot write")


def test_an_empty_folder_becomes_an_index(tmp_path):
    assert len(open_index(tmp_path)) == 0


def test_a_folder_that_cannot_be_written(folder, monkeypatch):
    def denied(*arguments, **options):
        raise PermissionError(13, "Permission denied")

    index = EmbeddedIndex(folder)
    monkeypatch.setattr("pathlib.Path.mkdir", denied)
    refused(lambda: index.add(["c"], EYE[:1]), folder, "cannot write", "Permission denied")
    refused(lambda: open_index(folder.parent / "new"), "new", "cannot write")
    assert open_index(folder).ids().tolist() == ["a"]  # reading needs no such right


def test_an_index_that_vanished_is_not_made_anew(folder):
    index = EmbeddedIndex(folder)
    shutil.rmtree(folder)
    refused(lambda: index.add(["c"], EYE[:1]), folder, "no index here")
    refused(index.refresh, folder, "no index here")
    assert not folder.exists()
    assert index.search(EYE)[0].ids.tolist() == ["a"]  # what was mapped is still there


def test_saving_onto_itself(folder):
    refused(lambda: EmbeddedIndex(folder).save(folder / ".." / "index"), "elsewhere")


def edit(manifest, **changes):
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | changes))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda m: m.write_text(m.read_text()[:-9]), ["damaged", "not JSON"]),
        (lambda m: m.write_bytes(b""), ["damaged", "not JSON"]),
        (lambda m: m.write_bytes(b"\xff\xfe"), ["damaged", "not JSON"]),
        (lambda m: m.write_text("[]"), ["not the manifest of an index"]),
        (lambda m: m.write_text('{"manifest_version": 3}'), ["not the manifest of an index"]),
        (lambda m: edit(m, version=3), ["version 3 is not supported"]),
        (lambda m: edit(m, segments=None), ["damaged"]),
        (lambda m: edit(m, segments=[{}]), ["damaged"]),
        (lambda m: edit(m, metadata=[]), ["damaged"]),
        (lambda m: edit(m, vocabulary_size="3"), ["damaged"]),
        (lambda m: edit(m, id_kind=None), ["damaged"]),
        (lambda m: m.write_text(m.read_text().replace('"name": "', '"name": "../')), ["damaged"]),
        (lambda m: m.write_text(m.read_text().replace('"postings": ', '"postings": -')), ["damaged"]),
        (lambda m: m.write_text(m.read_text().replace('"text_bytes": 2', '"text_bytes": "x"')), ["damaged"]),
    ],
)
def test_a_manifest_that_cannot_be_used(folder, damage, words):
    index = EmbeddedIndex(folder)
    damage(folder / "manifest.json")
    files = sorted(folder.rglob("*"))
    refused(lambda: open_index(folder), folder, *words)
    refused(lambda: index.add(["c"], EYE[:1]), folder, *words)
    refused(lambda: EmbeddedIndex().save(folder), folder, *words)
    assert set(files) <= {*folder.rglob("*"), folder / ".lock"}


def test_a_manifest_that_tells_other_sizes_than_the_files(folder):
    manifest = folder / "manifest.json"
    manifest.write_bytes(seal(json.loads(manifest.read_text().replace('"documents": 2', '"documents": 3'))))
    refused(lambda: open_index(folder), folder, ".npy is damaged")


@pytest.mark.parametrize(
    "name",
    ["indptr", "rows", "weights", "id_bytes", "id_offsets", "text_bytes", "text_offsets", "deleted"],
)
@pytest.mark.parametrize("damage", ["cut", "longer", "empty", "missing", "other type"])
def test_a_file_that_cannot_be_used(folder, name, damage):
    (path,) = folder.glob(f"*{name}*" if name == "deleted" else f"segment-*/{name}.npy")
    content = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        changed = content.replace(b"'<", b"'>").replace(b"|u1", b"|i1")
        path.write_bytes(
            {"cut": content[:-1], "longer": content + b"\0", "empty": b"", "other type": changed}[damage]
        )
    refused(lambda: EmbeddedIndex(folder), path, "restore the index from a copy or build it again")


def test_offsets_that_lead_astray(folder):
    (path,) = folder.glob("segment-*/indptr.npy")
    path.write_bytes(path.read_bytes()[:-8] + (99).to_bytes(8, "little"))
    refused(lambda: EmbeddedIndex(folder), path, "damaged")


def test_a_manifest_that_is_no_file(tmp_path):
    from st_l0.index.embedded.checking import check_index

    (tmp_path / "index" / "manifest.json").mkdir(parents=True)
    (tmp_path / "file").write_text("x")
    for path, said in ((tmp_path / "index", "is not an index"), (tmp_path / "file" / "below", "no index")):
        with pytest.raises(InputError, match=said):
            check_index(path)
