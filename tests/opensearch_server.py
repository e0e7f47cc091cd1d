"""A real OpenSearch on loopback, for tests, benchmarks and `make opensearch`.

The official distribution and its four plugins come from Maven Central once, into a folder outside the
checkout (``ST_L0_OPENSEARCH_CACHE``). A server has its own ports and a temporary folder, and ends with the
process that started it, however that ends. Nothing is imported but the standard library.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

VERSION = "3.6.0"  # of later and earlier ones Maven Central lacks one plugin or another
_CORE = f"org.opensearch.distribution.integ-test-zip:opensearch:{VERSION}:zip"
# In the order in which they need each other.
_PLUGINS = ("opensearch-job-scheduler", "opensearch-knn", "opensearch-ml-plugin", "neural-search")
_COPY = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy"
_JAVA = 21  # the oldest that it runs on
_START = 600  # seconds; 13 on an idle machine
# What is started ends when we do, also killed: the system closes the pipe that it reads from. Its output goes
# to the log: nobody reads the pipe that its number came through, and a full one stops the server.
_UNTIL_WE_END = '"$@" </dev/null >&2 & echo $!; exec >/dev/null; cat; kill -9 $! 2>/dev/null; wait'
_REMOVE_AT_THE_END = (
    'cat >/dev/null; for n in 1 2 3 4 5 6 7 8 9; do rm -rf "$0" 2>/dev/null && exit; sleep 0.3; done'
)


class UnavailableError(RuntimeError):
    """There is no server to be had here; the message says why."""


def java_home() -> Path:
    """Folder of a JDK that OpenSearch runs on: of its variable, Java's own, or where systems put JDKs."""
    named = [os.environ[name] for name in ("OPENSEARCH_JAVA_HOME", "JAVA_HOME") if os.environ.get(name)]
    usual = [
        *sorted(Path("/usr/lib/jvm").glob("*"), reverse=True),
        *sorted(Path("/opt").glob("*j[dr][ke]*"), reverse=True),
        *sorted(Path("/Library/Java/JavaVirtualMachines").glob("*/Contents/Home"), reverse=True),
    ]
    for folder in [*map(Path, named), *usual]:
        release = folder / "release"
        if (folder / "bin" / "java").exists() and release.exists():
            version = re.search(r'JAVA_VERSION="(\d+)', release.read_text(encoding="utf-8"))
            if version and int(version[1]) >= _JAVA:
                return folder.resolve()
    raise UnavailableError(f"no JDK of version {_JAVA} or later was found: set OPENSEARCH_JAVA_HOME")


def can_be_had() -> bool:
    """Whether this machine has what it takes, so that a server that is missing is a fault."""
    try:
        java_home()
    except UnavailableError:
        return False
    return shutil.which("mvn") is not None


def _cache() -> Path:
    given = os.environ.get("ST_L0_OPENSEARCH_CACHE")
    if given:
        return Path(given)
    if os.geteuid() == 0:  # the server runs as another user, who may not look into root's home
        return Path("/var/cache/st-l0-opensearch")
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "st-l0-opensearch"


def distribution(*, plugins: bool = True) -> Path:
    """Folder of the unpacked distribution, fetched if it is not there yet; of many processes one does it.

    Args:
        plugins: With k-NN, ml-commons and neural-search; without, the server's core alone.
    """
    folder = _cache() / (f"opensearch-{VERSION}" + ("" if plugins else "-core"))
    if folder.exists():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # released by the system when we end
        if not folder.exists():
            beside = folder.parent / f"{folder.name}.unpacking"
            shutil.rmtree(beside, ignore_errors=True)
            _unpack(beside, plugins)
            next(beside.glob("opensearch-*")).rename(folder)
            shutil.rmtree(beside)
    return folder


def _unpack(beside: Path, plugins: bool) -> None:
    zips = beside / "zips"
    zips.mkdir(parents=True)
    artifacts = [_CORE]
    if plugins:
        artifacts += [f"org.opensearch.plugin:{name}:{VERSION}.0:zip" for name in _PLUGINS]
    for artifact in artifacts:
        _run("mvn", "-B", "-q", _COPY, f"-Dartifact={artifact}", f"-DoutputDirectory={zips}")
    with zipfile.ZipFile(zips / f"opensearch-{VERSION}.zip") as archive:
        for member in archive.infolist():
            Path(archive.extract(member, beside)).chmod(member.external_attr >> 16 or 0o755)
    home = next(beside.glob("opensearch-*"))
    for name in _PLUGINS if plugins else ():
        file = zips / f"{name}-{VERSION}.0.zip"
        _run(str(home / "bin" / "opensearch-plugin"), "install", "-b", file.as_uri())
    shutil.rmtree(zips)
    _run("chmod", "-R", "a+rX", str(beside))


def _run(*command: str) -> None:
    if shutil.which(command[0]) is None:
        raise UnavailableError(f"{command[0]} is not installed")
    env = {**os.environ, "OPENSEARCH_JAVA_HOME": str(java_home())}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        said = " ".join((done.stdout + done.stderr).split())
        raise UnavailableError(f"{' '.join(command)} failed: {said[-500:]}")


class Node:
    """One server process; `pid` takes any signal."""

    def __init__(
        self, home: Path, folder: Path, http: int, transport: int, settings: dict, heap: str
    ) -> None:
        self.folder, self.http, self.url = folder, http, f"http://127.0.0.1:{http}"
        self.log = folder / "log"
        self._home, self._heap = home, heap
        self._guard: subprocess.Popen | None = None
        shutil.copytree(home / "config", folder / "config")
        own = {
            "node.name": folder.name,
            "network.host": "127.0.0.1",
            "http.port": http,
            "transport.port": transport,
            "path.data": str(folder / "data"),
            "path.logs": str(folder / "logs"),
            **settings,
        }
        if (home / "plugins" / "opensearch-ml").exists():
            # It refuses models for a while where the heap is as full as a small one may be.
            own["plugins.ml_commons.jvm_heap_memory_threshold"] = 100
        lines = (f"{name}: {json.dumps(value)}\n" for name, value in own.items())
        (folder / "config" / "opensearch.yml").write_text("".join(lines), encoding="utf-8")
        for name in ("data", "logs", "tmp"):
            (folder / name).mkdir()
        options = (
            folder / "config" / "jvm.options"
        )  # whose paths begin in the distribution, which stays clean
        text = re.sub(r"(?<==)(?=logs/|data$)", f"{folder}/", options.read_text(encoding="utf-8"), flags=re.M)
        options.write_text(text, encoding="utf-8")
        if os.geteuid() == 0:
            _run("chown", "-R", "nobody:nogroup", str(folder))

    def start(self) -> None:
        """Start it, or start it again with the data that it had; does not wait for it."""
        self.kill()
        env = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder),
            "OPENSEARCH_JAVA_HOME": str(java_home()),
            "OPENSEARCH_JAVA_OPTS": f"-Xms{self._heap} -Xmx{self._heap}",
            "OPENSEARCH_PATH_CONF": str(self.folder / "config"),
            "OPENSEARCH_TMPDIR": str(self.folder / "tmp"),
        }
        other = (
            ("setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups") if os.geteuid() == 0 else ()
        )
        with self.log.open("ab") as log:
            self._guard = subprocess.Popen(
                ("sh", "-c", _UNTIL_WE_END, "sh", *other, str(self._home / "bin" / "opensearch")),
                cwd=self.folder,
                env=env,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,  # Ctrl-C is ours
            )
        assert self._guard.stdout is not None
        self.pid = int(self._guard.stdout.readline())

    def kill(self) -> None:
        """End it at once, as a power cut does; its data stay."""
        if self._guard is not None:
            self._guard.communicate()  # closes its input
            self._guard = None

    def stop(self) -> None:
        """End it as its administrator does."""
        if self._guard is not None:
            os.kill(self.pid, signal.SIGTERM)
            while _alive(self.pid):
                time.sleep(0.05)
            self.kill()

    def ask(self, path: str, seconds: float = 5) -> dict:
        """What it answers to a GET, from JSON."""
        with urllib.request.urlopen(self.url + path, timeout=seconds) as answer:
            return json.load(answer)


def _alive(pid: int) -> bool:
    """Whether a process still runs; one that ended and that its parent has not asked for does not."""
    state = subprocess.run(("ps", "-o", "stat=", "-p", str(pid)), capture_output=True, text=True, check=False)
    return state.stdout.strip()[:1] not in ("", "Z")


class Cluster:
    """Nodes that know each other; `url` is the first one's."""

    def __init__(self, nodes: list[Node]) -> None:
        self.nodes = nodes
        self.url = nodes[0].url

    def wait(self, count: int | None = None, node: int = 0) -> None:
        """Until ``count`` nodes (all of them, if None) are there, as ``node`` sees it."""
        count = len(self.nodes) if count is None else count
        asked = self.nodes[node]
        end = time.monotonic() + _START
        while time.monotonic() < end:
            try:
                if asked.ask("/_cluster/health")["number_of_nodes"] == count:
                    return
            except OSError:
                if not _alive(asked.pid):
                    break
            time.sleep(0.2)
        log = asked.log.read_text(encoding="utf-8", errors="replace")
        raise RuntimeError(f"OpenSearch did not start; the end of its log: {log[-3000:]}")


@contextmanager
def running(
    nodes: int = 1,
    *,
    plugins: bool = True,
    heap: str | None = None,
    port: int | None = None,
    settings: dict | None = None,
) -> Iterator[Cluster]:
    """A cluster of its own on loopback while the body runs.

    Args:
        nodes: How many.
        plugins: With k-NN, ml-commons and neural-search; without, the server's core alone.
        heap: Memory a node, as Java takes it; None: 1g, or 512m where there are several.
        port: Of the first node; None: any free one.
        settings: More lines for each node's ``opensearch.yml``.

    Raises:
        UnavailableError: No server can be had here.
    """
    home = distribution(plugins=plugins)
    java_home()
    with ExitStack() as stack:
        root = Path(tempfile.mkdtemp(prefix="st-l0-opensearch-"))
        root.chmod(0o755)
        janitor = subprocess.Popen(
            ("sh", "-c", _REMOVE_AT_THE_END, str(root)), stdin=subprocess.PIPE, start_new_session=True
        )
        stack.callback(janitor.communicate)
        transports = _free_ports(nodes)
        together: dict = {"cluster.name": root.name, "discovery.type": "single-node"}
        if nodes > 1:
            del together["discovery.type"]
            together["discovery.seed_hosts"] = [f"127.0.0.1:{number}" for number in transports]
            together["cluster.initial_cluster_manager_nodes"] = [f"node-{one}" for one in range(nodes)]
        made = []
        https = _free_ports(nodes)
        https[0] = port or https[0]
        for number in range(nodes):
            (root / f"node-{number}").mkdir()
            given = {**together, **(settings or {})}
            memory = heap or ("1g" if nodes == 1 else "512m")
            made.append(Node(home, root / f"node-{number}", https[number], transports[number], given, memory))
        cluster = Cluster(made)
        for node in made:
            stack.callback(node.kill)
            node.start()
        cluster.wait()
        yield cluster


@contextmanager
def running_or_skipped(nodes: int = 1, **options: object) -> Iterator[Cluster]:
    """The same for a test, which is skipped, with the reason, where none can be had; in CI it fails."""
    import pytest

    try:
        with running(nodes, **options) as cluster:  # type: ignore[arg-type]
            yield cluster
    except UnavailableError as error:
        if os.environ.get("CI") and can_be_had():
            raise
        pytest.skip(f"no OpenSearch: {error}")


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def main() -> None:
    """`make opensearch`: a server until Ctrl-C."""
    parser = argparse.ArgumentParser(
        description="Run OpenSearch on loopback until Ctrl-C; its data go with it."
    )
    parser.add_argument("--port", type=int, default=9200)
    parser.add_argument("--nodes", type=int, default=1)
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        with running(given.nodes, port=given.port) as cluster:
            print(f"OpenSearch {VERSION} at {cluster.url} — Ctrl-C ends it and removes its data", flush=True)
            signal.pause()
    except UnavailableError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main()
