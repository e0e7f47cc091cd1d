"""An output replaces nothing but its own kind, and says so before the work."""

import errno
import json
import os
import stat
from pathlib import Path

import pytest

from st_l0.errors import InputError
from st_l0.utils.files import (
    MARK,
    FileKind,
    check_file,
    check_folder,
    check_writable,
    hold_folder,
    replace_file,
)

TABLE = FileKind("a table", lambda path: isinstance(json.loads(path.read_text()), dict))
posix = pytest.mark.skipif(os.name == "nt", reason="needs the devices of a Unix")


def refusal(call, *args, **kwargs):
    with pytest.raises(InputError) as caught:
        call(*args, **kwargs)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@posix
def test_the_root_is_no_output():
    for check in (lambda: check_folder("/", "toy"), lambda: check_file("/", TABLE)):
        assert refusal(check).startswith("/: is the root of a disk")


@pytest.mark.parametrize("old", [None, "", '{"old": 1}'])
def test_what_a_file_may_replace(tmp_path, old):
    path = tmp_path / "deep" / "table.json"
    if old is not None:
        path.parent.mkdir()
        path.write_text(old)
    assert check_file(path, TABLE) == path
    assert path.exists() == (old is not None)  # looked at only
    with replace_file(path, TABLE) as new:
        new.write_text("{}")
    assert path.read_text() == "{}"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("old", ["[1]", "text", '{"a": 1}\n{"b": 2}', "[" * 100_000, "\udcff"])
def test_what_a_file_may_not_replace(tmp_path, old):
    path = tmp_path / "thesis.json"
    path.write_bytes(old.encode("utf-8", "surrogateescape"))
    before = path.read_bytes()
    expected = f"{path}: is not a table, and would be lost; give another path, or remove it"
    assert refusal(check_file, path, TABLE) == expected
    with pytest.raises(InputError), replace_file(path, TABLE):
        raise AssertionError("the body must not run")
    assert path.read_bytes() == before


@posix
def test_devices_pipes_and_folders_are_no_place_for_a_file(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("/dev/full")
    (tmp_path / "circle").symlink_to("circle")
    for path in ("/dev/full", "/dev/null", tmp_path / "pipe", tmp_path / "link"):
        for call in (lambda at: check_file(at, TABLE), lambda at: replace_file(at).__enter__()):
            assert refusal(call, path) == f"{path}: is a device or pipe; give the path of a file"
    assert refusal(check_file, tmp_path, TABLE) == f"{tmp_path}: is a folder; give the path of a file"
    assert "give another path" in refusal(check_file, tmp_path / "circle", TABLE)
    assert stat.S_ISCHR(Path("/dev/full").stat().st_mode)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["circle", "link", "pipe"]


def test_a_link_stays_and_what_it_points_to_is_replaced(tmp_path):
    (tmp_path / "there").mkdir()
    target, link = tmp_path / "there" / "table.json", tmp_path / "link.json"
    link.symlink_to(target)
    for content in ('{"a": 1}', '{"b": 2}'):  # first it points to nothing
        with replace_file(link, TABLE) as new:
            assert new.parent == target.parent  # so that the rename is atomic
            new.write_text(content)
        assert link.is_symlink()
        assert target.read_text() == content


def test_no_input_is_replaced(tmp_path):
    source = tmp_path / "corpus.jsonl"
    source.write_text('{"text": 1}')  # of the right kind, as it happens
    (tmp_path / "soft").symlink_to(source)
    (tmp_path / "hard").hardlink_to(source)
    for path in (source, tmp_path / "soft", tmp_path / "hard"):
        expected = f"{path}: is what the output is made of; give another path"
        assert refusal(check_file, path, TABLE, inputs=["owner/name", source]) == expected


def test_a_place_where_nothing_can_be_written(tmp_path):
    (tmp_path / "file").touch()
    below = tmp_path / "file" / "x" / "table.json"
    assert refusal(check_file, below, TABLE).startswith(
        f"{tmp_path / 'file'}: nothing can be written there ("
    )
    assert refusal(check_folder, below, "thing").startswith(f"{tmp_path / 'file'}: nothing can be written")
    for path in (tmp_path / ("n" * 300), tmp_path / "new" / ("n" * 245), tmp_path / ("n" * 300) / "x"):
        refusal(check_file, path, TABLE)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_of_others(tmp_path):
    tmp_path.chmod(0o500)
    try:
        assert "(Permission denied)" in refusal(check_file, tmp_path / "new" / "x.json", TABLE)
    finally:
        tmp_path.chmod(0o700)


@pytest.mark.parametrize(("number", "kind"), [(errno.ENOSPC, OSError), (errno.EROFS, InputError)])
def test_a_full_disk_is_no_error_of_the_input(tmp_path, monkeypatch, number, kind):
    def fail(*args):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "open", fail)
    with pytest.raises((OSError, InputError)) as caught:
        check_writable(tmp_path / "new")
    assert type(caught.value) is kind
    if kind is OSError:
        assert caught.value.filename == str(tmp_path)


def test_a_folder_that_holds_an_input(tmp_path):
    (tmp_path / "out" / "part").mkdir(parents=True)
    (tmp_path / "out" / MARK).write_text('{"kind": "thing"}')
    check_folder(tmp_path / "out", "thing", inputs=["owner/name", tmp_path / "elsewhere"])
    for inside in (tmp_path / "out", tmp_path / "out" / "part"):
        expected = f"{tmp_path / 'out'}: is or holds what the output is made of; give another folder"
        assert refusal(check_folder, tmp_path / "out", "thing", inputs=[inside]) == expected


def test_one_process_makes_a_folder(tmp_path):
    with hold_folder(tmp_path / "new" / "out", "thing") as target:
        assert target == tmp_path / "new" / "out"
        text = refusal(hold_folder(target, "thing").__enter__)
        assert text.startswith(f"{target}: process {os.getpid()} on ")
        with hold_folder(tmp_path / "new" / "other", "thing"):
            pass
    assert not list((tmp_path / "new").iterdir())
