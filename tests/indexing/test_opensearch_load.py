"""A load into a real server: every document once, whatever the server does and whoever is killed."""

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from loads import VOCABULARY, Numbered, ask, documents, expected, held

from st_l0.errors import InputError, ServerError
from st_l0.index import EmbeddedIndex, open_index
from st_l0.index.opensearch.pipeline import Pipeline
from st_l0.index.opensearch.writing import Item, send
from st_l0.indexing.index import index_corpus

pytestmark = pytest.mark.opensearch
BLOCK = {"index.blocks.read_only_allow_delete": True}


@pytest.fixture(scope="module")
def node():
    """One node of the server's core, whose queue of writes is short and whose bodies are small."""
    from opensearch_server import running_or_skipped

    settings = {
        "thread_pool.write.size": 1,
        "thread_pool.write.queue_size": 1,
        "http.max_content_length": "200kb",
    }
    with running_or_skipped(plugins=False, heap="256m", settings=settings) as cluster:
        yield cluster.nodes[0]


@pytest.fixture
def target(node, request):
    """Function: the name of the test, and of its index, to the address of it."""
    name = request.node.name.split("[")[0].replace("test_", "")[:40]
    yield f"opensearch+http://127.0.0.1:{node.http}/{name}?replicas=0"
    ask(node.url, f"/{name}-*?ignore_unavailable=true", method="DELETE")


def name_of(target):
    return target.partition("?")[0].rpartition("/")[2]


def opened(target):
    return open_index(target, vocabulary_size=VOCABULARY)


def load(index, some, model=None, **options):
    return index_corpus(model or Numbered(), some, index, progress=False, **{"chunk_size": 250, **options})


def refresh_interval(node, target):
    (found,) = ask(node.url, f"/{name_of(target)}/_settings").values()
    return found["settings"]["index"].get("refresh_interval")


def test_all_documents_are_there_and_found_though_the_queue_was_full(node, target):
    some = documents(4000)
    index = opened(target)
    assert load(index, some) == 4000
    assert held(node.url, name_of(target)) == expected(some)
    assert len(index) == 4000 and load(index, some) == 0
    embedded = EmbeddedIndex(vocabulary_size=VOCABULARY)
    load(embedded, some)
    queries = Numbered().encode_document([f"query {number}" for number in range(20)])
    for ours, theirs in zip(index.search(queries, 5), embedded.search(queries, 5), strict=True):
        assert ours.scores.tolist() == pytest.approx(theirs.scores.tolist(), rel=1e-6)
    pools = ask(node.url, "/_nodes/stats/thread_pool")["nodes"].values()
    assert sum(pool["thread_pool"]["write"]["rejected"] for pool in pools) > 0


def test_the_caller_goes_on_while_the_server_writes_and_waits_when_enough_is_under_way(node, target):
    index = opened(target)
    given = []

    def wake():
        given.append("awake")
        os.kill(node.pid, signal.SIGCONT)

    with index.loading() as add:
        os.kill(node.pid, signal.SIGSTOP)
        timer = threading.Timer(3, wake)
        timer.start()
        for start in range(0, 5000, 250):
            some = documents(250, start)
            texts = [one.text for one in some]
            add([one.id for one in some], Numbered().encode_document(texts), texts)
            given.append(start)
    timer.join()
    assert given.index("awake") == 8  # four requests under way, four that wait
    assert held(node.url, name_of(target)) == expected(documents(5000))


def test_what_the_server_refuses_is_in_the_file_and_all_else_in_the_index(node, target, tmp_path):
    index, file = opened(target), tmp_path / "refused.jsonl"
    some = documents(600)
    some[77] = some[77]._replace(text="x" * 300_000 + " 77")
    with pytest.raises(InputError, match=r"1 documents were refused, all others are in the index") as caught:
        load(index, some, refused=file)
    assert "'d77'" in str(caught.value) and "http.max_content_length" in str(caught.value)
    assert str(file) in str(caught.value) and "\n" not in str(caught.value)
    (row,) = map(json.loads, file.read_text().splitlines())
    assert (row["id"], row["status"]) == ("d77", 413)
    assert held(node.url, name_of(target)) == expected(some[:77] + some[78:])
    assert refresh_interval(node, target) is None
    # The next run tries it again, and takes the file away once it is in.
    some[77] = documents(1, 77)[0]
    assert load(index, some, refused=file) == 1
    assert not file.exists()
    assert held(node.url, name_of(target)) == expected(documents(600))


def test_a_server_refuses_single_documents_of_a_request(node, target, tmp_path):
    index = opened(target)
    good, bad = b'{"id":"%d","text":"t","emb":{"1":1.0}}', b'{"id":"%d","stranger":1}'
    items = [Item("index", str(number), (bad if number % 10 == 3 else good) % number) for number in range(50)]

    def sender(some, stopped):
        return send(index.server, index.state, some, stopped=stopped)

    file = tmp_path / "refused.jsonl"
    with (
        pytest.raises(InputError, match="5 documents were refused"),
        Pipeline(sender, "here", file) as pipeline,
    ):
        pipeline.submit(lambda: [items])
    rows = sorted(map(json.loads, file.read_text().splitlines()), key=lambda row: int(row["id"]))
    assert [row["id"] for row in rows] == ["3", "13", "23", "33", "43"]
    assert {row["type"] for row in rows} == {"strict_dynamic_mapping_exception"}
    assert all("stranger" in row["reason"] for row in rows)
    assert len(held(node.url, name_of(target))) == 45


def test_a_file_of_something_else_is_not_replaced(target, tmp_path):
    file = tmp_path / "notes.jsonl"
    file.write_text('{"id": "mine"}\n')
    with pytest.raises(InputError, match=r"notes\.jsonl: is not a file of refused documents"):
        load(opened(target), documents(3), refused=file)
    with pytest.raises(InputError, match="only a server refuses single documents"):
        load(EmbeddedIndex(), documents(3), refused=tmp_path / "new.jsonl")


def test_a_full_disk_stops_the_load_and_the_next_one_goes_on(node, target):
    index, some = opened(target), documents(3000)
    begun = threading.Event()

    def block():
        begun.wait(60)
        ask(node.url, f"/{name_of(target)}/_settings", BLOCK, "PUT")

    thread = threading.Thread(target=block)
    thread.start()

    def first():
        if not begun.is_set():
            begun.set()
        elif thread.is_alive():
            thread.join()

    with pytest.raises(ServerError, match="closed for writing, as by a disk that is nearly full") as caught:
        load(index, some, Numbered(first))
    assert "\n" not in str(caught.value)
    left = len(index.missing([one.id for one in some]))
    assert left > 0
    with pytest.raises(ServerError, match=r"index\.blocks"):
        load(index, some)
    ask(node.url, f"/{name_of(target)}/_settings", {"index.blocks.read_only_allow_delete": None}, "PUT")
    assert load(index, some) == left
    assert held(node.url, name_of(target)) == expected(some)
    assert refresh_interval(node, target) is None


def test_a_node_that_is_killed_and_comes_back_has_every_document_once(node, target):
    index, some = opened(target), documents(5000)
    encoded = []

    def at(when, what):
        encoded.append(when)
        if len(encoded) == when:
            what()

    def restart():
        os.kill(node.pid, signal.SIGKILL)
        node.start()

    assert load(index, some, Numbered(lambda: at(8, restart))) == 5000
    assert held(node.url, name_of(target)) == expected(some)
    assert refresh_interval(node, target) is None


def test_a_server_that_does_not_answer_in_time_has_every_document_once(node, target):
    opened(target)
    index, some = opened(f"{target}&timeout=2"), documents(4000)
    calls = []

    def stop():
        calls.append(1)
        if len(calls) == 4:
            os.kill(node.pid, signal.SIGSTOP)
            threading.Timer(5, os.kill, (node.pid, signal.SIGCONT)).start()

    assert load(index, some, Numbered(stop)) == 4000
    assert held(node.url, name_of(target)) == expected(some)


def test_a_server_that_is_gone_is_given_up_after_a_while(node, target, monkeypatch):
    opened(target)
    index, some = opened(f"{target}&timeout=2"), documents(3000)
    monkeypatch.setattr("st_l0.index.opensearch.pipeline._PATIENCE", 2.0)
    calls = []

    def stop():
        calls.append(1)
        if len(calls) == 2:
            os.kill(node.pid, signal.SIGSTOP)

    try:
        with pytest.raises(ServerError, match=r"took none of|no answer in time") as caught:
            load(index, some, Numbered(stop))
    finally:
        os.kill(node.pid, signal.SIGCONT)
    assert "\n" not in str(caught.value)
    index = opened(target)
    load(index, some)
    assert held(node.url, name_of(target)) == expected(some)


# Arguments: address and number of documents; each chunk prints a line.
LOADER = """
import sys
from loads import VOCABULARY, Numbered, documents
from st_l0.index import open_index
from st_l0.indexing.index import index_corpus
index = open_index(sys.argv[1], vocabulary_size=VOCABULARY)
model = Numbered(lambda: print("chunk", flush=True))
print(index_corpus(model, iter(documents(int(sys.argv[2]))), index, chunk_size=100, progress=False))
"""


@pytest.mark.parametrize("chunks", [3, 17])
def test_a_loader_that_is_killed_goes_on_where_it_was(node, target, chunks):
    here = Path(__file__).parent
    command = (sys.executable, "-c", LOADER, target, "3000")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(here), *sys.path])}
    loader = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    for _ in range(chunks):
        assert loader.stdout.readline() == "chunk\n"
    loader.kill()
    loader.communicate()
    assert refresh_interval(node, target) == "-1"
    again = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    *lines, added = again.stdout.split("\n")[:-1]
    assert 0 < int(added) <= 3000
    assert len(lines) <= 30
    assert held(node.url, name_of(target)) == expected(documents(3000))
    assert refresh_interval(node, target) is None


def test_who_opens_it_after_a_loader_was_killed_finds_what_it_wrote(node, target):
    here = Path(__file__).parent
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(here), *sys.path])}
    command = (sys.executable, "-c", LOADER, target, "100000")
    loader = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    for _ in range(20):
        loader.stdout.readline()
    loader.kill()
    loader.communicate()
    index = open_index(target, create=False)
    assert refresh_interval(node, target) is None
    assert len(index) > 0
