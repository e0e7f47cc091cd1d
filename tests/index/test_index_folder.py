"""A folder is whole at every moment: crashes, full disks, other readers and writers."""

import errno
import os
import shutil
import signal
import threading
from pathlib import Path

import numpy as np
import pytest
from index_model import VOCABULARY, Model, assert_same, exit_code, in_child, integers

import st_l0.utils.files
from st_l0.errors import InputError
from st_l0.index import EmbeddedIndex
from st_l0.index.embedded.arrays import Sink
from st_l0.index.embedded.storage import Folder

fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
EYE = np.eye(4, dtype=np.float32)


class Steps:
    """Counts what a commit asks of the file system and calls ``at_the_end`` before or after one such step."""

    def __init__(self, monkeypatch, last, after, at_the_end):
        self.count, self.last, self.after, self.at_the_end = 0, last, after, at_the_end
        for owner, name in (
            (os, "fsync"),
            (Path, "mkdir"),
            (Path, "replace"),
            (Path, "unlink"),
            (Path, "open"),
            (Sink, "append"),
            (Sink, "finish"),
        ):
            monkeypatch.setattr(owner, name, self.wrap(getattr(owner, name)))
        monkeypatch.setattr(shutil, "rmtree", self.wrap(shutil.rmtree))

    def wrap(self, function):
        def step(*arguments, **options):
            self.count += 1
            mine = self.count == self.last
            if mine and not self.after:
                self.at_the_end()
            result = function(*arguments, **options)
            if mine and self.after:
                self.at_the_end()
            return result

        return step


def build(path, bm25=None):
    """An index with two segments and a deletion, the model of it, and the model after `change`."""
    generator = np.random.default_rng(3)
    index, before, after = EmbeddedIndex(path, bm25=bm25), Model(), Model()
    for start in (0, 10):
        ids = [f"d{i}" for i in range(start, start + 10)]
        vectors = integers(generator, 10)
        index.add(ids, vectors, [id.upper() for id in ids])
        before.put(ids, vectors, [id.upper() for id in ids])
        after.put(ids, vectors, [id.upper() for id in ids])
    index.delete(["d1", "d11"])
    before.delete(["d1", "d11"])
    after.delete(["d1", "d11"])
    ids, vectors = ["d2", "d12", "new"], integers(generator, 3)
    texts = None if bm25 is None else ["d4 d4", "", "new words"]
    after.put(ids, vectors, texts)
    return index, before, after, lambda index: index.update(ids, vectors, texts)


def leftovers(path):
    """Files that the index at ``path`` does not need."""
    snapshot = EmbeddedIndex(path)._snapshot
    needed = {"manifest.json", ".lock"}
    needed |= {live.segment.name for live in snapshot.segments} | {
        live.deleted_name for live in snapshot.segments
    }
    return {entry.name for entry in path.iterdir()} - needed


def assert_whole(path, before, after, reported):
    """The index shows ``after`` if that was reported, else one of both, and the next writer cleans up."""
    index = EmbeddedIndex(path, create=False)
    new = "new" in index
    assert new or not reported
    model = after if new else before
    assert_same(index, model, np.random.default_rng(0))
    index.update(["d3"], model.rows["d3"][None], [model.texts["d3"]])
    assert len(index) == len(model.rows)
    assert leftovers(path) == set()


class Crash(BaseException):
    pass


def crash():
    raise Crash


def no_space():
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize(
    ("after_step", "failure", "merging", "bm25"),
    [
        (False, no_space, False, None),
        (False, no_space, True, None),
        (True, crash, False, None),
        (True, crash, True, None),
        (True, crash, True, "english"),
    ],
)
def test_an_error_at_any_step_leaves_the_old_state_or_the_new_one(
    tmp_path, request, merging, after_step, failure, bm25
):
    if merging:
        request.getfixturevalue("small_segments")
    outcomes = set()
    _, before, after, change = build(tmp_path / "start", bm25)
    stride = 1 if bm25 is None else 4
    for last in range(1, 300, stride):
        path = shutil.copytree(tmp_path / "start", tmp_path / str(last))
        index = EmbeddedIndex(path)
        with pytest.MonkeyPatch.context() as patch:
            steps = Steps(patch, last, after_step, failure)
            try:
                change(index)
                done = True
            except (Crash, OSError):
                done = False
        assert_same(index, after if "new" in index else before, np.random.default_rng(2))
        outcomes.add((done, "new" in EmbeddedIndex(path)))
        assert_whole(path, before, after, done)
        if steps.count < last:
            break
    assert last > 25  # every step was tried, or each fourth, up to the one that does not exist
    assert last - stride <= steps.count < last
    assert {(True, True), (False, False)} <= outcomes
    assert (True, False) not in outcomes


@fork
@pytest.mark.parametrize("merging", [False, True])
def test_death_at_any_step_leaves_the_old_state_or_the_new_one(tmp_path, request, merging):
    if merging:
        request.getfixturevalue("small_segments")
    codes = []
    _, before, after, change = build(tmp_path / "start")
    for last in range(1, 200):
        path = shutil.copytree(tmp_path / "start", tmp_path / str(last))

        def die(index=EmbeddedIndex(path), last=last):  # noqa: B008
            with pytest.MonkeyPatch.context() as patch:
                Steps(patch, last, False, lambda: os._exit(7))
                change(index)

        codes.append(exit_code(in_child(die)))
        assert_whole(path, before, after, reported=codes[-1] == 0)
        if codes[-1] == 0:
            break
    assert len(codes) > 25
    assert set(codes[:-1]) == {7}
    assert codes[-1] == 0


@pytest.mark.parametrize("last", range(1, 30, 4))
def test_a_crash_while_an_index_is_made_leaves_a_place_for_it(tmp_path, last):
    with pytest.MonkeyPatch.context() as patch:
        Steps(patch, last, False, crash)
        try:
            EmbeddedIndex(tmp_path / "index", vocabulary_size=4).save(tmp_path / "copy")
        except Crash:
            pass
        else:
            assert last > 9
    for name in ("index", "copy"):
        index = EmbeddedIndex(tmp_path / name)
        index.add(["a"], EYE[:1])
        assert leftovers(tmp_path / name) == set()


@fork
def test_killed_while_it_adds(tmp_path, generator, request):
    request.getfixturevalue("small_segments")
    vectors = integers(generator, 3)
    path = tmp_path / "index"
    EmbeddedIndex(path)
    first = 0
    for patience in (1, 2, 3, 7, 12, 20):
        source, sink = os.pipe()

        def add_forever(first=first, sink=sink):
            index = EmbeddedIndex(path)
            for batch in range(first, first + 10_000):
                index.add([3 * batch, 3 * batch + 1, 3 * batch + 2], vectors)
                os.write(sink, f"{batch}\n".encode())

        pid = in_child(add_forever)
        os.close(sink)
        with open(source) as lines:  # noqa: PTH123
            reported = [int(next(lines)) for _ in range(patience)]
            os.kill(pid, signal.SIGKILL)
            assert exit_code(pid) == -signal.SIGKILL
            reported += [int(line) for line in lines]
        index = EmbeddedIndex(path, create=False)
        # What was reported is there, and of what was not, all of a batch or nothing.
        assert len(index) in (3 * (reported[-1] + 1), 3 * (reported[-1] + 2))
        assert index.ids().tolist() == list(range(len(index)))
        first = len(index) // 3
    index.delete([0])
    assert leftovers(path) == set()


def test_a_file_size_limit_is_an_error_that_changes_nothing(tmp_path, generator):
    resource = pytest.importorskip("resource")
    index, before, _, _ = build(tmp_path / "index")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    many = integers(generator, 3000)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            index.add(range_of_ids := [f"m{i}" for i in range(3000)], many)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert leftovers(tmp_path / "index") == set()  # the space is free again at once
    assert_same(index, before, generator)
    assert_same(EmbeddedIndex(tmp_path / "index"), before, generator)
    index.add(range_of_ids, many)
    assert len(EmbeddedIndex(tmp_path / "index")) == 18 + 3000


def test_open_maps_the_files(tmp_path):
    path = tmp_path / "index"
    EmbeddedIndex(path).add(["a", "b"], EYE[:2], ["A", "B"])
    (live,) = EmbeddedIndex(path)._snapshot.segments
    segment, vectors = live.segment, live.segment.vectors
    arrays = [vectors.indptr, vectors.rows, vectors.values, segment.ids.blob, segment.texts.offsets]
    assert not any(array.flags.owndata or array.flags.writeable for array in arrays)
    assert [array.dtype.str for array in arrays] == ["<i8", "<i4", "<f4", "|u1", "<i8"]
    assert "row_of" not in vars(segment)  # nothing that grows with the index is made at open
    files = sorted((path / segment.name).glob("*.npy"))
    assert np.load(files[-1]).tolist() == [1.0, 1.0]
    assert [file.stem for file in files][-2:] == ["text_offsets", "weights"]


@pytest.mark.usefixtures("small_segments")
@pytest.mark.parametrize("bm25", [None, "english"])
def test_readers_keep_what_they_opened_until_they_refresh(tmp_path, generator, bm25):
    path = tmp_path / "index"
    index, before, after, change = build(path, bm25)
    reader = EmbeddedIndex(path)
    names = {live.segment.name for live in reader._snapshot.segments}
    change(index)
    for i in range(9):
        index.add([f"more{i}"], integers(generator, 1), ["more words"])
    index.delete([f"more{i}" for i in range(9)])
    assert names.isdisjoint(entry.name for entry in path.iterdir())  # merged away
    assert_same(reader, before, generator)
    reader.refresh()
    assert_same(reader, after, generator)


def test_a_segment_that_vanishes_while_opening_is_looked_for_in_the_next_manifest(tmp_path, monkeypatch):
    path = tmp_path / "index"
    index, _, _, _ = build(path)
    stale = Folder(path).read()
    index.update([f"d{i}" for i in range(20)], np.ones((20, VOCABULARY)))
    answers, read = [stale], Folder.read
    monkeypatch.setattr(Folder, "read", lambda folder: answers.pop() if answers else read(folder))
    assert len(EmbeddedIndex(path)) == 20
    assert answers == []


@fork
@pytest.mark.usefixtures("small_segments")
def test_another_process_sees_whole_commits_while_segments_merge(tmp_path):
    path = tmp_path / "index"
    writer = EmbeddedIndex(path)
    writer.add(range(6), np.full((6, 2), 1.0))

    def write():
        for version in range(2, 60):
            writer.update(range(6), np.full((6, 2), float(version)))
            writer.add([100 + version], np.eye(1, 2))

    pid = in_child(write)
    seen = set()
    reader = EmbeddedIndex(path)
    while os.waitpid(pid, os.WNOHANG)[0] == 0:
        for index in (reader, EmbeddedIndex(path)):
            scores = index.search(np.array([0.0, 1.0]), k=20)[0].scores.tolist()
            assert len(scores) == 6
            assert len(set(scores)) == 1
            assert len(index) - 6 in (scores[0] - 1, scores[0] - 2)
            seen.add(scores[0])
        reader.refresh()
    reader.refresh()
    assert reader.search(np.array([0.0, 1.0]))[0].scores.tolist() == [59.0] * 6
    assert len(reader) == 6 + 58
    assert seen


@fork
def test_a_second_writer_waits_then_gives_up(tmp_path, monkeypatch):
    path = tmp_path / "index"
    index = EmbeddedIndex(path)
    index.add(["a"], EYE[:1])
    (ready, tell_ready), (stop, tell_stop) = os.pipe(), os.pipe()

    def hold():
        with Folder(path).writing():
            os.write(tell_ready, b"!")
            os.read(stop, 1)

    pid = in_child(hold)
    os.read(ready, 1)
    monkeypatch.setattr("st_l0.index.embedded.storage.LOCK_SECONDS", 0.2)
    with pytest.raises(
        InputError, match=rf"process {pid} on \S+ is writing to the index \(waited 0\.2 s\); try later"
    ):
        index.add(["b"], EYE[1:2])
    assert EmbeddedIndex(path).ids().tolist() == ["a"]  # reading does not wait
    monkeypatch.setattr("st_l0.index.embedded.storage.LOCK_SECONDS", 60)
    thread = threading.Thread(target=index.add, args=(["b"], EYE[1:2]))
    thread.start()
    thread.join(0.2)
    assert thread.is_alive()  # it waits
    os.write(tell_stop, b"!")
    thread.join()
    assert exit_code(pid) == 0
    assert EmbeddedIndex(path).ids().tolist() == ["a", "b"]


def test_writers_do_not_lose_each_others_documents(tmp_path):
    first, second = EmbeddedIndex(tmp_path / "index"), EmbeddedIndex(tmp_path / "index")
    first.add(["a"], EYE[:1])
    second.add(["b"], EYE[1:2])
    with pytest.raises(InputError, match="'b' is in the index already"):
        first.add(["b"], EYE[1:2])
    assert first.ids().tolist() == ["a"]
    first.delete(["b"])
    assert (first.ids().tolist(), second.ids().tolist()) == (["a"], ["a", "b"])
    second.refresh()
    assert second.ids().tolist() == ["a"]


@pytest.mark.parametrize("place", ["memory", "folder"])
def test_threads_may_write_and_search_at_once(tmp_path, place):
    path = None if place == "memory" else tmp_path / "index"
    index = EmbeddedIndex(path, vocabulary_size=4, bm25="english")
    errors = []

    def work(number):
        try:
            for i in range(6):
                index.add([f"{number}-{i}"], EYE[:1], ["some word"])
                for hits in (*index.search(EYE[0], 100), *index.search(None, 100, texts=["words"], bm25=1)):
                    assert f"{number}-{i}" in hits.ids
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert sorted(index.ids()) == sorted(f"{number}-{i}" for number in range(4) for i in range(6))


@pytest.mark.parametrize("bm25", [None, "english"])
def test_save_makes_a_compact_copy_and_replaces_an_index(tmp_path, generator, bm25):
    index, before, _, _ = build(tmp_path / "index", bm25)
    EmbeddedIndex(tmp_path / "copy").add([1, 2], EYE[:2])
    reader = EmbeddedIndex(tmp_path / "copy")
    index.save(tmp_path / "copy")
    copy = EmbeddedIndex(tmp_path / "copy")
    assert_same(copy, before, generator)
    assert [live.deleted for live in copy._snapshot.segments] == [None]
    assert leftovers(tmp_path / "copy") == set()
    assert reader.ids().tolist() == [1, 2]
    EmbeddedIndex(metadata={"model": "m"}, vocabulary_size=9).save(tmp_path / "copy")
    empty = EmbeddedIndex(tmp_path / "copy")
    assert (len(empty), empty.metadata, empty.vocabulary_size) == (0, {"model": "m"}, 9)


def test_a_segment_that_is_mostly_deleted_is_rewritten(tmp_path):
    index = EmbeddedIndex(tmp_path / "index")
    index.add(list("abcd"), EYE)
    index.delete(["a", "c"])
    assert [len(live.segment) for live in index._snapshot.segments] == [4]
    index.delete(["d"])
    assert [len(live.segment) for live in index._snapshot.segments] == [1]
    assert index.search(EYE)[1].ids.tolist() == ["b"]


@pytest.mark.parametrize("bm25", [None, "english"])
def test_one_addition_beyond_the_limit_becomes_several_segments(monkeypatch, generator, bm25):
    monkeypatch.setattr("st_l0.index.embedded.merging.MAX_SIZE", 50)
    index, model = EmbeddedIndex(bm25=bm25), Model()
    vectors, texts = integers(generator, 60), [f"word {i % 7}" for i in range(60)]
    index.add(range(60), vectors, texts)
    model.put(range(60), vectors, texts)
    assert all(live.segment.size <= 50 for live in index._snapshot.segments)
    assert len(index._snapshot.segments) > 4
    assert_same(index, model, generator)


def test_files_are_flushed_before_the_manifest_names_them(tmp_path, monkeypatch):
    index = EmbeddedIndex(tmp_path / "index")
    index.add(["a", "b"], EYE[:2])
    log = []
    fsync, replace = os.fsync, Path.replace

    def logged_fsync(descriptor):
        log.append(Path(f"/dev/fd/{descriptor}").resolve() if Path("/dev/fd").exists() else None)
        fsync(descriptor)

    def logged_replace(path, target):
        log.append("replace")
        return replace(path, target)

    monkeypatch.setattr(st_l0.utils.files.os, "fsync", logged_fsync)
    monkeypatch.setattr(Path, "replace", logged_replace)
    index.update(["a", "c"], EYE[1:3])
    if None in log:
        pytest.skip("cannot tell which file a descriptor is")
    before = log[: log.index("replace")]
    new = index._snapshot.segments[-1].segment.name
    folder = (tmp_path / "index").resolve()
    needed = {*(folder / new).iterdir(), folder / new, folder, *folder.glob("*.deleted-*")}
    assert len(needed) == 8
    assert needed <= set(before)
    assert log[-1] == folder  # and the renaming itself


def test_updates_do_not_let_the_folder_grow(tmp_path):
    index = EmbeddedIndex(tmp_path / "index")
    ids, vectors = list(range(200)), np.random.default_rng(0).random((200, 50))

    def size():
        return sum(file.stat().st_size for file in (tmp_path / "index").rglob("*") if file.is_file())

    index.add(ids, vectors)
    once = size()
    for _ in range(40):
        index.update(ids, vectors)
    assert len(index) == 200
    assert size() < 2.5 * once
