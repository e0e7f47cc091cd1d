"""Whatever fails, the old content stays and nothing is left over."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from st_l0.errors import InputError
from st_l0.utils.files import MARK, check_folder, replace_file, replace_folder, sync


class Stop(BaseException):
    """Like KeyboardInterrupt: no `except Exception` or `except OSError` sees it."""


def tree(folder):
    return {
        str(path.relative_to(folder)): path.read_text()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != MARK
    }


def write_folder(target, content="new"):
    with replace_folder(target, "thing") as temporary:
        assert temporary.parent == target.parent
        assert list(temporary.iterdir()) == []
        (temporary / "part").mkdir()
        (temporary / "part" / "a.txt").write_text(content)


@pytest.fixture
def old_folder(tmp_path):
    target = tmp_path / "model"
    target.mkdir()
    (target / "old.txt").write_text("old")
    (target / MARK).write_text('{"kind": "thing"}')
    return target


def test_file_is_written_and_replaced(tmp_path):
    target = tmp_path / "deep" / "file.txt"
    for content in ("one", "two"):
        with replace_file(target) as temporary:
            assert temporary.parent == target.parent
            assert temporary != target
            assert target.exists() == (content == "two")
            temporary.write_text(content)
        assert tree(tmp_path) == {"deep/file.txt": content}
    with replace_file(str(target)) as temporary:
        temporary.write_text("three")
    assert tree(tmp_path) == {"deep/file.txt": "three"}


@pytest.mark.parametrize("error", [ValueError, Stop])
@pytest.mark.parametrize("exists", [True, False])
def test_file_stays_when_the_body_fails(tmp_path, exists, error):
    target = tmp_path / "file.txt"
    if exists:
        target.write_text("old")
    with pytest.raises(error), replace_file(target) as temporary:
        temporary.write_text("half")
        raise error
    assert tree(tmp_path) == ({"file.txt": "old"} if exists else {})


def test_file_stays_when_nothing_was_written(tmp_path):
    target = tmp_path / "file.txt"
    target.write_text("old")
    with pytest.raises(FileNotFoundError), replace_file(target):
        pass
    assert tree(tmp_path) == {"file.txt": "old"}


@pytest.mark.parametrize("error", [OSError, Stop])
@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_file_stays_when_a_step_fails(tmp_path, monkeypatch, step, error):
    def fail(*args):
        raise error("no space left on device")

    target = tmp_path / "file.txt"
    target.write_text("old")
    with pytest.raises(error), replace_file(target) as temporary:
        temporary.write_text("new")
        if step == "fsync":
            monkeypatch.setattr(os, "fsync", fail)
        else:
            monkeypatch.setattr(Path, "replace", fail)
    assert tree(tmp_path) == {"file.txt": "old"}


def test_file_is_on_the_disk_before_it_takes_its_place(tmp_path, monkeypatch):
    steps = []
    replace, fsync = Path.replace, os.fsync
    monkeypatch.setattr(Path, "replace", lambda *args: (steps.append("replace"), replace(*args)))
    monkeypatch.setattr(os, "fsync", lambda descriptor: (steps.append("fsync"), fsync(descriptor)))
    with replace_file(tmp_path / "file.txt") as temporary:
        temporary.write_text("new")
    assert steps == ["fsync", "replace", "fsync"]


def test_sync_bears_with_folders_only(tmp_path, monkeypatch):
    def fail(descriptor):
        raise OSError("not supported")

    (tmp_path / "file.txt").write_text("x")
    monkeypatch.setattr(os, "fsync", fail)
    sync(tmp_path)
    with pytest.raises(OSError, match="not supported"):
        sync(tmp_path / "file.txt")


def test_folder_is_written_and_replaced(tmp_path, old_folder):
    write_folder(old_folder)
    assert tree(tmp_path) == {"model/part/a.txt": "new"}
    write_folder(tmp_path / "deep" / "other")
    assert tree(tmp_path) == {"deep/other/part/a.txt": "new", "model/part/a.txt": "new"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["deep", "model"]


@pytest.mark.parametrize("error", [ValueError, Stop])
def test_folder_stays_when_the_body_fails(tmp_path, old_folder, error):
    with pytest.raises(error), replace_folder(old_folder, "thing") as temporary:
        (temporary / "a.txt").write_text("half")
        raise error
    assert tree(tmp_path) == {"model/old.txt": "old"}
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize("error", [OSError, Stop])
@pytest.mark.parametrize("failing", [1, 2])
def test_folder_stays_when_a_rename_fails(tmp_path, old_folder, monkeypatch, failing, error):
    rename, calls = Path.rename, []

    def sometimes(self, target):
        calls.append(target)
        if len(calls) == failing:
            raise error("cannot rename")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", sometimes)
    with pytest.raises(error, match="cannot rename"):
        write_folder(old_folder)
    assert len(calls) >= failing
    assert tree(tmp_path) == {"model/old.txt": "old"}
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize("error", [OSError, Stop])
def test_a_new_folder_that_cannot_be_put_in_place_leaves_nothing(tmp_path, monkeypatch, error):
    def fail(self, target):
        raise error("cannot rename")

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(error, match="cannot rename"):
        write_folder(tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_changes_nothing(tmp_path, old_folder, monkeypatch):
    def fail(self, *args, **kwargs):
        raise OSError("read-only file system")

    monkeypatch.setattr(Path, "mkdir", fail)
    with pytest.raises(OSError, match="read-only"):
        write_folder(old_folder)
    assert tree(tmp_path) == {"model/old.txt": "old"}


def test_the_old_folder_is_whole_until_the_new_one_is_in_place(tmp_path, old_folder, monkeypatch):
    rename, states = Path.rename, []

    def watched(self, target):
        states.append(sorted(tree(tmp_path).values()))
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", watched)
    write_folder(old_folder)
    assert states == [["new", "old"], ["new", "old"]]


def test_a_folder_of_something_else_stays(tmp_path, old_folder):
    for mark in (None, "", "[]", "{}", '{"kind": "other"}', "\x00"):
        (old_folder / MARK).unlink(missing_ok=True)
        if mark is not None:
            (old_folder / MARK).write_text(mark)
        with pytest.raises(InputError, match="holds files that are no thing of st-l0"):
            write_folder(old_folder)
        assert tree(tmp_path) == {"model/old.txt": "old"}
    with pytest.raises(InputError, match="is no folder"):
        write_folder(old_folder / "old.txt")
    assert tree(tmp_path) == {"model/old.txt": "old"}


def test_an_empty_folder_and_an_earlier_output_are_replaced(tmp_path):
    (tmp_path / "model").mkdir()
    for content in ("one", "two"):
        write_folder(tmp_path / "model", content)
        assert tree(tmp_path) == {"model/part/a.txt": content}
    (tmp_path / "link").symlink_to(tmp_path / "model")
    write_folder(tmp_path / "link", "three")
    assert (tmp_path / "link").is_symlink()
    assert tree(tmp_path / "model") == {"part/a.txt": "three"}


@pytest.mark.parametrize(("renames", "content"), [(1, "old"), (2, "new")])
def test_a_kill_between_the_renames_leaves_one_under_its_name_at_the_next_start(
    tmp_path, old_folder, renames, content
):
    script = f"""
import os, signal
from pathlib import Path
from st_l0.utils.files import replace_folder
rename, calls = Path.rename, []
def dying(self, target):
    rename(self, target)
    calls.append(target)
    if len(calls) == {renames}:
        os.kill(os.getpid(), signal.SIGKILL)
Path.rename = dying
with replace_folder({str(old_folder)!r}, "thing") as folder:
    (folder / "old.txt").write_text("new")
"""
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == -signal.SIGKILL
    assert old_folder.exists() == (renames == 2)
    check_folder(old_folder, "thing")
    assert tree(old_folder) == {"old.txt": content}
    assert not list(tmp_path.glob(".model.old-*"))
