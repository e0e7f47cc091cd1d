"""Open indexes hold no file descriptors, and travel to other processes."""

import copy
import gc
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from st_l0.errors import InputError
from st_l0.index import EmbeddedIndex, open_index
from st_l0.index.embedded.mapping import map_file

VECTORS = np.random.default_rng(0).random((300, 40), dtype=np.float32)


def found(index):
    return [(hit.id, hit.score, hit.text) for hit in index.search(VECTORS[:1], 5)[0]]


@pytest.mark.skipif(not Path("/dev/fd").is_dir(), reason="descriptors are listed in /dev/fd")
def test_an_open_index_holds_no_descriptor(tmp_path):
    def count():
        gc.collect()
        return sum(1 for _ in Path("/dev/fd").iterdir())

    before, held = count(), []
    for number in range(20):
        index = open_index(tmp_path / str(number))
        index.add(["a", "b"], np.eye(2, 8, dtype=np.float32), ["x", "y"])
        index.delete(["b"])
        held += [index, open_index(tmp_path / str(number), create=False)]
    assert count() == before
    assert [len(index.search(np.eye(1, 8))[0]) for index in held] == [1] * 40


def test_a_map_is_the_file_and_cannot_be_written(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(bytes(range(200)))
    mapped = map_file(path, 150)
    assert mapped.tolist() == list(range(150))
    with pytest.raises(ValueError, match="read-only"):
        mapped[0] = 1
    with pytest.raises(FileNotFoundError):
        map_file(tmp_path / "none", 1)


@pytest.mark.skipif(not Path("/proc/self/maps").is_file(), reason="maps are listed in /proc")
def test_a_map_lives_as_long_as_a_view_of_it(tmp_path):
    path = tmp_path / "a file of its own"
    path.write_bytes(bytes(5000))

    def mapped():
        gc.collect()
        return str(path) in Path("/proc/self/maps").read_text()

    view = map_file(path, 5000)[4096:].view("<i4")
    assert mapped()
    assert view.sum() == 0
    del view
    assert not mapped()


@pytest.mark.parametrize("way", [copy.copy, copy.deepcopy, lambda index: pickle.loads(pickle.dumps(index))])
def test_an_index_in_memory_is_copied(way):
    index = EmbeddedIndex()
    index.add(np.arange(300), VECTORS, [str(number) for number in range(300)])
    other = way(index)
    assert found(other) == found(index)
    other.delete([found(index)[0][0]])
    assert len(other) == 299
    assert len(index) == 300


@pytest.mark.parametrize("way", [copy.deepcopy, lambda index: pickle.loads(pickle.dumps(index))])
def test_an_index_in_a_folder_travels_as_its_path(tmp_path, monkeypatch, way):
    monkeypatch.chdir(tmp_path)
    index = open_index("index")
    index.add(np.arange(300), VECTORS)
    assert len(pickle.dumps(index)) < 1000
    other = way(index)
    assert found(other) == found(index)
    other.delete([7])
    index.refresh()
    assert 7 not in index


def test_another_process_of_another_folder_takes_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    index = open_index("index")
    index.add(np.arange(300), VECTORS)
    (tmp_path / "pickled").write_bytes(pickle.dumps(index))
    script = "import pickle, sys; print(len(pickle.load(open(sys.argv[1], 'rb'))))"
    done = subprocess.run(
        [sys.executable, "-c", script, tmp_path / "pickled"],
        capture_output=True,
        text=True,
        cwd="/",
        check=True,
    )
    assert done.stdout == "300\n"


def test_a_path_without_an_index_is_said(tmp_path):
    index = open_index(tmp_path / "index")
    index.add([1], VECTORS[:1])
    pickled = pickle.dumps(index)
    (tmp_path / "index").rename(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="there is no index here"):
        pickle.loads(pickled)
