"""One holder at a time, released by whatever ends it."""

import errno
import os
import re
import signal
import threading
import time

import pytest

from st_l0.errors import InputError
from st_l0.utils import locks
from st_l0.utils.locks import hold

fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


def held_by_child(file):
    """Pid of a process that holds the lock until it is killed."""
    source, sink = os.pipe()
    pid = os.fork()
    if pid == 0:
        with hold(file, "is testing"):
            os.write(sink, b"!")
            time.sleep(60)
        os._exit(1)
    os.read(source, 1)
    return pid


def test_the_second_is_refused_and_told_who_is_there(tmp_path):
    file = tmp_path / ".lock"
    with hold(file, "is testing"):
        with pytest.raises(InputError) as caught, hold(file, "is testing"):
            pass
        assert re.fullmatch(
            rf"{tmp_path}: process {os.getpid()} on \S+ is testing; wait for it, or give another output",
            str(caught.value),
        )
    assert not list(tmp_path.iterdir())
    with hold(file, "is testing"):
        pass


@fork
def test_death_releases(tmp_path):
    file = tmp_path / ".lock"
    pid = held_by_child(file)
    with pytest.raises(InputError, match=rf"process {pid} on "), hold(file, "is testing"):
        pass
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    assert file.exists()  # what it left is no lock
    with hold(file, "is testing"):
        pass
    assert not file.exists()


@fork
def test_a_worker_does_not_keep_the_lock_of_a_dead_holder(tmp_path):
    file, (source, sink) = tmp_path / ".lock", os.pipe()
    pid = os.fork()
    if pid == 0:
        with hold(file, "is testing"):
            worker = os.fork()
            if worker == 0:
                time.sleep(60)
                os._exit(1)
            os.write(sink, str(worker).encode())
            time.sleep(60)
        os._exit(1)
    worker = int(os.read(source, 20))
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    with hold(file, "is testing"):
        os.kill(worker, 0)  # it lives
    os.kill(worker, signal.SIGKILL)


@fork
def test_waiting_is_said_and_ends(tmp_path, caplog):
    file = tmp_path / ".lock"
    pid = held_by_child(file)
    timer = threading.Timer(0.3, lambda: os.kill(pid, signal.SIGKILL))
    timer.start()
    start = time.monotonic()
    with hold(file, "is testing", seconds=float("inf")):
        assert time.monotonic() - start > 0.2
    os.waitpid(pid, 0)
    (record,) = caplog.records
    assert f"waiting, process {pid} on " in record.getMessage()


def test_never_two_at_once(tmp_path):
    file, inside, most = tmp_path / ".lock", [], []

    def work():
        for _ in range(20):
            with hold(file, "is testing", seconds=30):
                inside.append(1)
                most.append(len(inside))
                inside.pop()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 80


def test_without_locks_the_file_is_the_lock(tmp_path, monkeypatch):
    def missing(descriptor):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(locks, "_lock", missing)
    file = tmp_path / ".lock"
    with hold(file, "is testing"):
        expected = rf"or remove {file}, if that one has ended"
        with pytest.raises(InputError, match=expected), hold(file, "is testing"):
            pass
        assert file.exists()
    assert not file.exists()


@pytest.mark.skipif(not hasattr(os, "O_NOFOLLOW"), reason="needs a Unix")
def test_a_link_in_its_place_is_not_followed(tmp_path):
    (tmp_path / "thesis").write_text("of years")
    (tmp_path / ".lock").symlink_to(tmp_path / "thesis")
    with pytest.raises(OSError, match="symbolic links"), hold(tmp_path / ".lock", "is testing"):
        pass
    assert (tmp_path / "thesis").read_text() == "of years"


def test_other_errors_are_errors(tmp_path, monkeypatch):
    def broken(descriptor):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(locks, "_lock", broken)
    with pytest.raises(OSError, match="Input/output error"), hold(tmp_path / ".lock", "is testing"):
        pass
    with pytest.raises(FileNotFoundError), hold(tmp_path / "missing" / ".lock", "is testing"):
        pass
