"""Damaged folders: what is wrong is said, or changes no answer; no process dies of it."""

import json
import os
import shutil
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
from index_model import VOCABULARY, Model, assert_same, integers
from typer.testing import CliRunner

from st_l0 import cli
from st_l0.errors import InputError
from st_l0.index import EmbeddedIndex
from st_l0.index.embedded import checksums
from st_l0.index.embedded.checking import check_index
from st_l0.index.embedded.checksums import Checksums
from st_l0.index.embedded.manifests import seal

fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
QUERIES = integers(np.random.default_rng(5), 5, negative=True)
WORDS = ["the tëxt of d7", "word", "d61 d62 d63"]
COPIES = 320  # of both kinds of ids together


def build(path, strings=True, bm25=None):
    """Three segments of up to 30 documents, two of them with deletions, with texts, and the model of it."""
    generator = np.random.default_rng(11)
    index, model = EmbeddedIndex(path, metadata={"model": "m"}, bm25=bm25), Model()
    for start in (0, 30, 60):
        ids = [f"d{i}" if strings else 7 * i for i in range(start, start + 30)]
        vectors, texts = integers(generator, 30), [f"the tëxt of {id}" for id in ids]
        if bm25 is not None:
            texts[3] += " word" * 300
        index.add(ids, vectors, texts)
        model.put(ids, vectors, texts)
    gone = [list(model.rows)[i] for i in (1, 20, 65)]
    index.delete(gone)
    model.delete(gone)
    return model


@pytest.fixture(params=[(True, None), (False, None), (True, "english")], ids=["str", "int", "words"])
def folder(request, tmp_path, monkeypatch):
    monkeypatch.setattr(checksums, "BLOCK", 64)  # so that these few documents have many blocks
    monkeypatch.setattr("st_l0.index.embedded.postings._FEW_POSTINGS", 0)
    build(tmp_path / "index", *request.param)
    return tmp_path / "index"


def without_checksums(path):
    """Make the manifest what it was before there were checksums, or, with words, one that has none."""
    manifest = json.loads((path / "manifest.json").read_text())
    if "words" in manifest:
        for entry in manifest["segments"]:
            entry |= {"checksums": None, "deleted_checksums": None}
        (path / "manifest.json").write_bytes(seal(manifest))
        return
    del manifest["checksum"]
    for entry in manifest["segments"]:
        del entry["checksums"], entry["deleted_checksums"]
    (path / "manifest.json").write_text(json.dumps(manifest, indent=1))


def answers(path):
    """All that an index tells; a refusal is told by its message."""
    try:
        index = EmbeddedIndex(path, create=False)
        found = [[tuple(hit) for hit in hits] for hits in index.search(QUERIES, 20)]
        explained = [index.explain(QUERIES[0], hits[0][0]) for hits in found]
        if index.bm25 is not None:
            found += [list(hits) for hits in index.search(None, 20, texts=WORDS, bm25=1)]
        return found, explained, index.ids().tolist(), index.metadata
    except InputError as error:
        return str(error)


def problems(path):
    try:
        return check_index(path).problems
    except InputError as error:
        return [str(error)]


def live_files(path):
    return sorted(file for file in path.rglob("*") if file.is_file() and not file.name.startswith("."))


def damage(path, generator):
    """Damage one file, or swap two; gives those that differ now."""
    files = live_files(path)
    file, other = (files[i] for i in generator.permutation(len(files))[:2])
    content = file.read_bytes()
    places = generator.integers(0, len(content), 2)
    kind = generator.integers(0, 8)
    if kind == 7:
        file.unlink()
        return [file]
    if kind == 6:
        alike = [one for one in files if one.name == file.name and one != file]
        other = alike[generator.integers(len(alike))] if alike else other
        swapped = other.read_bytes()
        other.write_bytes(content)
        file.write_bytes(swapped)
        return [] if swapped == content else [file, other]
    changed = bytearray(content)
    if kind in (0, 1):
        changed[places[0]] ^= 1 << generator.integers(8)
    elif kind == 2:
        changed[places[0]] ^= generator.integers(1, 256)
    elif kind == 3:
        changed = changed[: places[0]]
    elif kind == 4:
        changed += generator.bytes(1 + places[0])
    else:
        first, last = sorted(places.tolist())
        changed[first : last + 1] = bytes(last + 1 - first)
    file.write_bytes(changed)
    return [] if changed == content else [file]


def try_damage(start, number, seeds, clean, block):
    """What goes wrong with a copy of the folder ``start``, damaged in many ways, one after another."""
    checksums.BLOCK = block
    path = Path(shutil.copytree(start, start.with_name(f"copy-{number}")))
    before = {file: file.read_bytes() for file in live_files(path)}
    wrong, refused = [], 0
    for seed in seeds:
        files = damage(path, np.random.default_rng(seed))
        told, named = answers(path), problems(path)
        if isinstance(told, str):
            refused += 1
            if not files or str(path) not in told or "\n" in told:
                wrong.append((seed, files, told))
        elif clean is not None and told != clean:
            wrong.append((seed, files, "other answers"))
        if clean is not None:
            known = {str(file) for file in files if any(str(file) in line for line in named)}
            # A manifest that cannot be read tells nothing of the other files.
            expected = (
                {str(path / "manifest.json")} if path / "manifest.json" in files else set(map(str, files))
            )
            if known != expected or len(named) != len(expected):
                wrong.append((seed, files, named))
        for file in files:
            file.unlink(missing_ok=True)
            file.write_bytes(before[file])
    return wrong, refused


def try_all(folder, copies, clean):
    """Damage ``copies`` times in other processes; what went wrong, and how often it was refused."""
    # A process that dies breaks the pool, which is an error here.
    with ProcessPoolExecutor(2, get_context("fork")) as pool:
        numbers = range(4)
        work = [(folder, number, range(number, copies, 4), clean, checksums.BLOCK) for number in numbers]
        results = list(pool.map(try_damage, *zip(*work, strict=True)))
    return [wrong for result in results for wrong in result[0]], sum(result[1] for result in results)


@fork
def test_any_damage_is_named_or_changes_no_answer(folder):
    clean = answers(folder)
    assert all(clean[0])
    assert problems(folder) == []
    wrong, refused = try_all(folder, COPIES // 2, clean)
    assert wrong == []
    assert refused > COPIES // 3


@fork
def test_no_damage_kills_where_there_are_no_checksums(folder):
    clean = answers(folder)
    without_checksums(folder)
    assert answers(folder) == clean
    assert problems(folder) == []
    wrong, refused = try_all(folder, 50, None)
    assert wrong == []
    assert refused > 15


def find(folder, name):
    """The file of the first segment of the manifest."""
    manifest = json.loads((folder / "manifest.json").read_text())
    return folder / manifest["segments"][0]["name"] / f"{name}.npy"


def overwrite(file, dtype, item, value):
    array = np.memmap(file, dtype=dtype, mode="r+", offset=128)
    array[item] = value
    array.flush()


def refused(function, *words):
    with pytest.raises(InputError) as caught:
        function()
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert str(word) in message


def search(folder, size=VOCABULARY):
    return EmbeddedIndex(folder, create=False).search(np.ones(size))[0]


@pytest.mark.parametrize(
    ("name", "dtype", "item", "value", "reason"),
    [
        ("rows", "<i4", 0, 2**31 - 1, "rows out of range"),
        ("rows", "<i4", 0, -1, "rows out of range"),
        ("rows", "<i4", 1, 0, "rows out of range or order"),
        ("weights", "<f4", 3, np.nan, "a weight that is not finite"),
        ("weights", "<f4", 3, np.inf, "a weight that is not finite"),
        ("indptr", "<i8", 4, 2**40, "offsets that descend"),
        ("indptr", "<i8", 4, -1, "offsets that descend"),
        ("indptr", "<i8", 0, -1, "offsets out of range"),
        ("id_offsets", "<i8", 2, 2**40, "offsets that descend"),
        ("id_bytes", "|u1", 0, 0xC3, "not UTF-8"),
        ("text_offsets", "<i8", 2, -5, "offsets that descend"),
        ("text_bytes", "|u1", 0, 0xC3, "not UTF-8"),
        ("word_rows", "<i4", 0, 2**31 - 1, "rows out of range"),
        ("word_rows", "<i4", 1, -1, "rows out of range or order"),
        ("word_counts", "|u1", 3, 0, "a count of 0"),
        ("word_indptr", "<i4", 4, 2**30, "offsets that descend"),
        ("word_indptr", "<i4", 0, -1, "offsets out of range"),
        ("word_indptr", "<i4", -1, 2**30, "offsets out of range"),
        ("word_offsets", "<i4", 2, 2**30, "offsets that descend"),
        ("word_offsets", "<i4", -1, 2**30, "offsets out of range"),
        ("word_bytes", "|u1", 0, 0xFF, "words out of order"),
        ("word_lengths", "<i4", 2, -1, "a length below 0"),
        ("word_large_places", "<i4", 0, 2**30, "places out of range"),
        ("word_large_places", "<i4", 0, -1, "places out of range"),
        ("word_large_counts", "<i4", 0, 0, "a count below 255"),
    ],
)
@pytest.mark.parametrize("sealed", [True, False])
def test_numbers_that_lead_astray(tmp_path, name, dtype, item, value, reason, sealed):
    """Whoever changes the checksums as well must not be able to kill a process either."""
    bm25 = "english" if name.startswith("word") else None
    model = build(tmp_path / "index", bm25=bm25)
    path = tmp_path / "index"
    file = find(path, name)
    overwrite(file, dtype, item, value)

    def use():
        index = EmbeddedIndex(path, create=False)
        hits = index.search(np.ones(VOCABULARY), len(model.rows))[0]
        if bm25 is not None:
            index.search(None, texts=["the word tëxt d1"], bm25=1)
            index.save(tmp_path / "copy")
        return index.ids(), [hit.text for hit in hits]

    refused(use, file, "checksum differs" if not reason.startswith("offsets out") else reason)
    if sealed:
        manifest = json.loads((path / "manifest.json").read_text())
        found = Checksums()
        found.append(np.fromfile(file, dtype, offset=128))
        manifest["segments"][0]["checksums"][name] = found.values()
        (path / "manifest.json").write_bytes(seal(manifest))
    else:
        without_checksums(path)
    refused(use, file, reason)
    assert len(problems(path)) == 1
    assert f"{file} is damaged ({reason}" in problems(path)[0]
    if "bytes" not in name:  # nor is it copied to where it would be vouched for
        refused(lambda: EmbeddedIndex(path).save(tmp_path / "copy"), file)


@pytest.mark.parametrize("rows", [[1, 1], [20, 1], [-1, 20], [1, 30]])
def test_deleted_rows_that_lead_astray(tmp_path, rows):
    build(tmp_path / "index")
    without_checksums(tmp_path / "index")
    (file,) = (file for file in tmp_path.glob("index/*.deleted-*") if len(np.load(file)) == 2)
    overwrite(file, "<i4", [0, 1], rows)
    refused(lambda: search(tmp_path / "index"), file, "rows out of range or order")


def test_checksums_by_hand(monkeypatch):
    monkeypatch.setattr(checksums, "BLOCK", 9)
    found = Checksums()
    for piece in (b"1234", b"56789123", b"", b"456789ab"):
        found.append(np.frombuffer(piece, dtype=np.uint8))
    assert found.values() == [
        0xCBF43926,
        0xCBF43926,
        0x9E83486D,
    ]  # the check value of CRC-32, twice, and of "ab"


def test_checksums_of_pieces_are_those_of_the_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(checksums, "BLOCK", 64)
    build(tmp_path / "index")
    EmbeddedIndex(tmp_path / "index").save(tmp_path / "copy")  # merged, in other pieces
    (entry,) = json.loads((tmp_path / "copy" / "manifest.json").read_text())["segments"]
    for name, values in entry["checksums"].items():
        found = Checksums()
        found.append(np.load(tmp_path / "copy" / entry["name"] / f"{name}.npy"))
        assert values == found.values()
    assert len(entry["checksums"]["rows"]) > 10


def test_a_list_is_proven_when_it_is_first_used(tmp_path, monkeypatch):
    monkeypatch.setattr("st_l0.index.embedded.postings._FEW_POSTINGS", 0)
    index, path = EmbeddedIndex(tmp_path / "index"), tmp_path / "index"
    index.add(["a", "b"], np.array([[1.0, 0.0, 2.0], [0.0, 3.0, 0.0]]))
    without_checksums(path)
    overwrite(find(path, "rows"), "<i4", 2, 7)  # of token 2
    assert index.search(np.array([1.0, 1.0, 0.0]))[0].ids.tolist() == ["b", "a"]  # its own files are trusted
    index = EmbeddedIndex(path)
    assert index.search(np.array([1.0, 1.0, 0.0]))[0].ids.tolist() == ["b", "a"]
    for _ in range(2):
        refused(lambda: index.search(np.array([0.0, 0.0, 1.0])), find(path, "rows"))
        refused(lambda: index.explain(np.array([0.0, 0.0, 1.0]), "a"), find(path, "rows"))


def test_an_index_without_checksums_gets_them_for_what_is_new(tmp_path):
    path = tmp_path / "index"
    model = build(path)
    without_checksums(path)
    index, vectors = EmbeddedIndex(path), integers(np.random.default_rng(1), 2)
    index.add(["new", "newer"], vectors)
    model.put(["new", "newer"], vectors)
    assert_same(EmbeddedIndex(path), model, np.random.default_rng(0))
    assert check_index(path) == ([], len(model.rows), 4, 3)
    index.save(tmp_path / "copy")
    assert check_index(tmp_path / "copy") == ([], len(model.rows), 1, 0)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"checksum": ', '"checksun": '),
        ('"version": 1', '"version": 1.0'),
        ('"model": "m"', '"model": "n"'),
        ('"deleted_rows": 2', '"deleted_rows": 1'),
        ('"documents": 30', '"documents": 031'),
        ("{\n", "{ \n"),
        ("1", "[" * 100_000),
    ],
)
def test_an_edited_manifest(tmp_path, old, new):
    build(tmp_path / "index")
    manifest = tmp_path / "index" / "manifest.json"
    assert old in manifest.read_text()
    manifest.write_text(manifest.read_text().replace(old, new, 1))
    refused(lambda: search(tmp_path / "index"), manifest, "damaged")
    assert problems(tmp_path / "index") != []


@pytest.mark.parametrize("changes", [{"documents": 2**31}, {"postings": 2**31}, {"id_bytes": None}])
def test_an_entry_that_no_index_can_have(tmp_path, changes):
    build(tmp_path / "index")
    manifest = tmp_path / "index" / "manifest.json"
    content = json.loads(manifest.read_text())
    content["segments"][0] |= changes
    manifest.write_bytes(seal(content))
    refused(lambda: search(tmp_path / "index"), manifest, "unexpected fields")


def test_a_lost_manifest_takes_nothing_along(tmp_path):
    path = tmp_path / "index"
    build(path)
    opened, other = EmbeddedIndex(path), EmbeddedIndex()
    (path / "manifest.json").unlink()
    files = live_files(path)
    for call in (
        lambda: EmbeddedIndex(path),
        lambda: EmbeddedIndex(path, create=False),
        lambda: check_index(path),
        lambda: other.save(path),
        lambda: opened.add(["x"], np.ones((1, VOCABULARY))),
        lambda: opened.delete(["d2"]),
        opened.refresh,
    ):
        refused(call, path / "manifest.json", "missing", "segments", "restore")
        assert live_files(path) == files
    assert len(opened.search(np.ones(VOCABULARY))[0]) == 10


def test_a_copy_that_was_never_finished_is_replaced(tmp_path, monkeypatch):
    index = EmbeddedIndex(tmp_path / "index")
    index.add(["a"], np.ones((1, 3)))

    def killed(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("st_l0.index.embedded.storage.Folder.publish", killed)
        with pytest.raises(KeyboardInterrupt):
            index.save(tmp_path / "copy")
    assert list(tmp_path.glob("copy/segment-*"))
    index.save(tmp_path / "copy")
    assert search(tmp_path / "copy", 3).ids.tolist() == ["a"]
    assert len(list(tmp_path.glob("copy/segment-*"))) == 1
    assert not (tmp_path / "copy" / ".begun").exists()


def test_a_folder_in_the_place_of_a_file(tmp_path):
    build(tmp_path / "index")
    file = find(tmp_path / "index", "weights")
    file.unlink()
    file.mkdir()
    refused(lambda: search(tmp_path / "index"), file)
    assert [str(file) in problem for problem in problems(tmp_path / "index")] == [True]


def test_the_command_names_every_damaged_file(tmp_path):
    path = tmp_path / "index"
    build(path)

    def run():
        return CliRunner().invoke(cli.app, ["index", "--check", str(path)])

    result = run()
    assert (result.exit_code, result.stdout) == (
        0,
        f"{path}: the index is whole (87 documents, 3 segments)\n",
    )
    files = [find(path, "weights"), find(path, "text_bytes")]
    for file in files:
        overwrite(file, "|u1", 5, 77)
    result = run()
    assert (result.exit_code, result.stdout) == (2, "")
    assert [line.split(" is ")[0] for line in result.stderr.splitlines()] == [
        f"error: {file}" for file in files
    ]
    (path / "manifest.json").write_text("{}")
    result = run()
    assert result.exit_code == 2
    assert result.stderr.startswith(f"error: {path / 'manifest.json'} is not the manifest")
