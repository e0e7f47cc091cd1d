"""Three real nodes, of which one is killed: nothing is lost, and no search leaves hits out unsaid."""

import os
import signal
import threading
import time

import pytest
from loads import VOCABULARY, Numbered, ask, documents, expected, held

from st_l0.errors import ServerError
from st_l0.index import EmbeddedIndex, open_index
from st_l0.indexing.index import index_corpus

pytestmark = pytest.mark.opensearch


@pytest.fixture(scope="module")
def cluster():
    from opensearch_server import running_or_skipped

    settings = {"cluster.fault_detection.follower_check.timeout": "5s"}
    with running_or_skipped(3, plugins=False, heap="256m", settings=settings) as nodes:
        yield nodes


@pytest.fixture
def whole(cluster):
    """The cluster with all of its nodes, also after a test that killed one."""
    yield cluster
    for node in cluster.nodes:
        try:
            node.ask("/")
        except OSError:
            node.start()
    cluster.wait()


def address(cluster, name, settings):
    hosts = ",".join(f"127.0.0.1:{node.http}" for node in cluster.nodes)
    return f"opensearch+http://{hosts}/{name}?{settings}"


def holder(cluster, name, shard=0):
    """The number of the node that holds the primary of a shard."""
    rows = ask(cluster.url, f"/_cat/shards/{name}?format=json")
    found = next(row for row in rows if row["shard"] == str(shard) and row["prirep"] == "p")
    return int(found["node"].removeprefix("node-"))


def other(cluster, number):
    return cluster.nodes[(number + 1) % len(cluster.nodes)]


def green(cluster, name):
    ask(cluster.url, f"/_cluster/health/{name}?wait_for_status=green&timeout=120s")


def load(index, some, model=None):
    return index_corpus(model or Numbered(), some, index, progress=False, chunk_size=250)


def scores(results):
    return [list(zip(hits.ids.tolist(), hits.scores.tolist(), strict=True)) for hits in results]


def test_a_node_is_killed_while_documents_come(whole):
    index = open_index(address(whole, "ingest", "shards=2&replicas=1"), vocabulary_size=VOCABULARY)
    green(whole, "ingest")
    some, calls = documents(6000), []
    number = holder(whole, "ingest")

    def kill():
        calls.append(1)
        if len(calls) == 9:
            os.kill(whole.nodes[number].pid, signal.SIGKILL)

    assert load(index, some, Numbered(kill)) == 6000
    assert held(other(whole, number).url, "ingest") == expected(some)
    assert len(index) == 6000


def test_a_node_is_killed_while_searches_come(whole):
    index = open_index(address(whole, "search", "shards=2&replicas=1"), vocabulary_size=VOCABULARY)
    green(whole, "search")
    some = documents(1000)
    load(index, some)
    embedded = EmbeddedIndex(vocabulary_size=VOCABULARY)
    load(embedded, some)
    queries = Numbered().encode_document([f"query {number}" for number in range(0, 1000, 25)])
    wanted = [[score for _, score in hits] for hits in scores(embedded.search(queries, 10))]
    number = holder(whole, "search")
    killer = threading.Timer(0.5, os.kill, (whole.nodes[number].pid, signal.SIGKILL))
    killer.start()
    answered = failed = 0
    end = time.monotonic() + 12
    while time.monotonic() < end or answered < 10:
        try:
            found = index.search(queries, 10)
        except ServerError as error:
            assert "\n" not in str(error)
            failed += 1
            assert failed < 20
            continue
        # The same hits as ever, or no answer: in none of them is a part of the index left out.
        assert [[score for _, score in hits] for hits in scores(found)] == [
            pytest.approx(one, rel=1e-6) for one in wanted
        ]
        answered += 1
    killer.join()
    assert len(index) == 1000 and not index.missing([one.id for one in some])


def test_without_a_copy_nothing_is_answered_as_if_it_were_all(whole, monkeypatch):
    index = open_index(address(whole, "alone", "shards=3&replicas=0"), vocabulary_size=VOCABULARY)
    green(whole, "alone")
    some = documents(600)
    load(index, some[:500])
    queries = Numbered().encode_document(["query 7"])
    before = scores(index.search(queries, 10))
    impatient = open_index(address(whole, "alone", "timeout=10"))
    number = holder(whole, "alone", 1)
    os.kill(whole.nodes[number].pid, signal.SIGKILL)
    monkeypatch.setattr("st_l0.index.opensearch.pipeline._PATIENCE", 3.0)
    for module in ("server", "searching", "writing"):  # which wait for a copy to come back
        monkeypatch.setattr(f"st_l0.index.opensearch.{module}._PAUSES", (0.1, 0.5))
    ids = [one.id for one in some]
    for what in (
        lambda: impatient.search(queries, 10),
        lambda: len(impatient),
        lambda: impatient.missing(ids),
        lambda: load(impatient, some),
    ):
        with pytest.raises(ServerError) as caught:
            what()
        assert "\n" not in str(caught.value)
    whole.nodes[number].start()
    whole.wait()
    green(whole, "alone")
    assert load(index, some) == 100
    assert held(whole.url, "alone") == expected(some)
    after = scores(index.search(queries, 10))
    assert after[0][0] == before[0][0]
