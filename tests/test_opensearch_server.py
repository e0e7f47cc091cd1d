"""The server of the tests: it ends with whoever started it, and leaves nothing behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from opensearch_server import UnavailableError, java_home

HERE = Path(__file__).parent
# Nothing is fetched or started: what ends with us is a plain command.
STARTS = """
import os, subprocess, sys, time
sys.path.insert(0, sys.argv[1])
from opensearch_server import _REMOVE_AT_THE_END, _UNTIL_WE_END
options = {"stdin": subprocess.PIPE, "start_new_session": True}
subprocess.Popen(("sh", "-c", _REMOVE_AT_THE_END, sys.argv[2]), **options)
guard = subprocess.Popen(("sh", "-c", _UNTIL_WE_END, "sh", "sleep", "600"), stdout=subprocess.PIPE, **options)
print(guard.stdout.readline().decode().strip(), flush=True)
time.sleep(600)
"""


def runs(pid):
    state = subprocess.run(("ps", "-o", "stat=", "-p", str(pid)), capture_output=True, text=True, check=False)
    return state.stdout.strip()[:1] not in ("", "Z")


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_it_ends_with_the_process_that_started_it(tmp_path, how):
    folder = tmp_path / "data"
    (folder / "inside").mkdir(parents=True)
    starter = subprocess.Popen(
        (sys.executable, "-c", STARTS, str(HERE), str(folder)),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    pid = int(starter.stdout.readline())
    assert runs(pid) and folder.exists()
    os.kill(starter.pid, how)
    starter.communicate()
    end = time.monotonic() + 60
    while (runs(pid) or folder.exists()) and time.monotonic() < end:
        time.sleep(0.02)
    assert not runs(pid) and not folder.exists()


def test_only_a_new_java_will_do(tmp_path, monkeypatch):
    for name, version in (("old", "17.0.15"), ("new", "25.0.1")):
        (tmp_path / name / "bin").mkdir(parents=True)
        (tmp_path / name / "bin" / "java").touch()
        (tmp_path / name / "release").write_text(f'IMPLEMENTOR="x"\nJAVA_VERSION="{version}"\n')
    monkeypatch.setattr(Path, "glob", lambda folder, pattern: iter(()))
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "old"))
    monkeypatch.delenv("OPENSEARCH_JAVA_HOME", raising=False)
    with pytest.raises(UnavailableError, match="OPENSEARCH_JAVA_HOME"):
        java_home()
    monkeypatch.setenv("OPENSEARCH_JAVA_HOME", str(tmp_path / "new"))
    assert java_home() == tmp_path / "new"


def test_a_running_server_answers(opensearch):
    import json
    from urllib.request import urlopen

    with urlopen(opensearch, timeout=10) as answer:
        assert json.load(answer)["version"]["distribution"] == "opensearch"
