"""What only an index on OpenSearch has: settings, fields, filters, replacing, limits; on a real server."""

import json
import os
import pickle
import socket
import urllib.error
import urllib.request

import numpy as np
import pytest

from st_l0.errors import InputError, ServerError
from st_l0.index import BM25, check_target, open_index
from st_l0.index.opensearch import OpenSearchIndex, opening, searching
from st_l0.index.opensearch.documents import truncate

VECTORS = np.array([[1, 0, 2], [0, 3, 0], [2, 0, 0], [0, 0, 0]], dtype=np.float32)
IDS = ["a", "b", "c", "empty"]


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(opening, "_GRACE", 0.0)
    monkeypatch.setattr(searching, "_PAUSES", (0.01, 0.01))


@pytest.fixture
def call(opensearch):
    """Function: method, path, body → what the server answers."""

    def call(method, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            f"{opensearch}{path}", data, {"Content-Type": "application/json"}, method=method
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)

    return call


@pytest.fixture
def index(opensearch_target):
    index = OpenSearchIndex(opensearch_target)
    index.add(IDS, VECTORS, ["A", "B", None, ""])
    return index


def ids_of(index, query=(1.0, 1.0, 1.0), **options):
    (hits,) = index.search(np.array(query, np.float32), **options)
    return hits.ids.tolist()


def test_an_existing_index_keeps_what_it_is(opensearch_target):
    first = open_index(opensearch_target, vocabulary_size=3, metadata={"a": None, "b": 1.5}, bm25="english")
    first.bm25_weight = 2.5
    again = open_index(opensearch_target, metadata={"other": 1}, create=False)
    assert (again.vocabulary_size, again.metadata) == (3, {"a": None, "b": 1.5})
    assert (again.bm25, again.bm25_weight) == (BM25("english", lengths="lucene"), 2.5)
    check_target(opensearch_target)
    for options, message in (
        ({"vocabulary_size": 4}, "3 dimensions, not 4"),
        ({"bm25": BM25(k1=0.9, lengths="lucene")}, "words of"),
        ({"bm25": BM25()}, "lengths='lucene'"),
    ):
        with pytest.raises(InputError, match=message):
            open_index(opensearch_target, **options)


def test_no_index_is_made_where_none_is_wanted(opensearch_target):
    with pytest.raises(InputError, match="no index of that name"):
        open_index(opensearch_target, create=False)
    check_target(opensearch_target)


def test_an_index_of_others_is_left_alone(opensearch_target, call):
    name = opensearch_target.rpartition("/")[2]
    call("PUT", f"/{name}", {})
    for use in (open_index, check_target):
        with pytest.raises(InputError, match="did not make"):
            use(opensearch_target)


def test_an_alias_of_several_indices_is_refused(index, opensearch_target, call):
    name = opensearch_target.rpartition("/")[2]
    call("PUT", f"/{name}-other", {"aliases": {name: {}}})
    with pytest.raises(InputError, match="2 indices"):
        open_index(opensearch_target)


def test_settings_of_a_new_index(opensearch_target, call):
    index = open_index(f"{opensearch_target}?shards=3&replicas=0")
    settings = call("GET", f"/{index.name}/_settings")[index.name]["settings"]["index"]
    assert (settings["number_of_shards"], settings["number_of_replicas"]) == ("3", "0")
    index.add(IDS, VECTORS)
    assert ids_of(index) == ["a", "b", "c"]  # 3, 3, 2: ties by id over all shards
    assert len(index) == 4


def test_a_document_has_what_the_mapping_knows(index, call):
    stored = call("GET", f"/{index.name}/_doc/a")["_source"]
    assert stored == {"id": "a", "entries": 2, "text": "A", "emb": {"0": 1, "2": 2}}
    assert call("GET", f"/{index.name}/_doc/empty")["_source"] == {"id": "empty", "entries": 0, "text": ""}
    with pytest.raises(urllib.error.HTTPError):
        call("PUT", f"/{index.name}/_doc/x", {"other": 1})


def test_weights_are_kept_with_nine_bits(opensearch_target):
    weights = np.random.default_rng(3).uniform(1e-3, 5, (1, 40)).astype(np.float32)
    index = OpenSearchIndex(opensearch_target)
    index.add([7], weights)
    parts = index.explain(np.ones((1, 40)), 7)
    assert [parts[token][1] for token in range(40)] == pytest.approx(truncate(weights[0]).tolist(), rel=1e-7)
    assert np.all(truncate(weights) <= weights) and np.all(truncate(weights) > weights * (1 - 2**-8))


def test_filters_by_fields(opensearch_target):
    index = OpenSearchIndex(opensearch_target)
    fields = [{"lang": "en", "tag": ["x", "y"]}, {"lang": "de"}, {"lang": "en", "tag": "z"}, {}]
    index.add(IDS, VECTORS, fields=fields)
    assert ids_of(index, filter={"lang": "en"}) == ["a", "c"]
    assert ids_of(index, filter={"lang": ["de", "fr"]}) == ["b"]
    assert ids_of(index, filter={"lang": "en", "tag": ["y", "q"]}) == ["a"]
    assert ids_of(index, filter={"lang": "en"}, ids=["c", "b"]) == ["c"]
    assert ids_of(index, filter={"nothing": "en"}) == []
    for bad in ([{}] * 3, [1, 2, 3, 4], [{"a*": "x"}] * 4, [{"a": 1}] * 4):
        with pytest.raises(InputError):
            index.update(IDS, VECTORS, fields=bad)


def test_a_filter_of_more_ids_than_the_server_takes(index, call):
    call("PUT", f"/{index.name}/_settings", {"index.max_terms_count": 2})
    index.refresh()
    assert ids_of(index, ids=["c", "x", "y", "b", "a"]) == ["a", "b", "c"]
    assert ids_of(index, ids=["c", "x", "y", "b", "a"], k=2) == ["a", "b"]


def test_more_hits_than_the_server_gives_at_once(opensearch_target, call):
    index = OpenSearchIndex(f"{opensearch_target}?shards=2")
    weights = np.random.default_rng(4).integers(1, 4, (60, 1)).astype(np.float32)
    index.add(list(range(60)), weights)
    call("PUT", f"/{index.name}/_settings", {"index.max_result_window": 7})
    index.refresh()
    best = sorted(range(60), key=lambda id: (-weights[id, 0], str(id)))
    assert ids_of(index, [1.0], k=100) == best
    assert ids_of(index, [1.0], k=30) == best[:30]
    assert ids_of(index, [1.0], k=7) == best[:7]


def test_more_tokens_than_the_server_allows(opensearch_target):
    index = OpenSearchIndex(opensearch_target)
    vectors = np.ones((2, 1500), np.float32)
    vectors[1] /= 2
    index.add(["a", "b"], vectors)
    query = np.full(1500, 0.1, np.float32)
    query[:10] = 1
    with pytest.raises(InputError, match=r"indices\.query\.bool\.max_clause_count"):
        index.search(query)
    assert ids_of(index, query, prune=0.5) == ["a", "b"]
    # Refused by the server itself, whose limit another client would meet.
    index._neural = True
    with pytest.raises(InputError, match=r"indices\.query\.bool\.max_clause_count"):
        index.server.request(
            "POST",
            f"/{index.name}/_search",
            {"query": {"neural_sparse": {"emb": {"query_tokens": {str(one): 1.0 for one in range(1500)}}}}},
        )


def test_heavy_queries_are_scaled(index):
    (hits,) = index.search(np.array([1e6, 10.0, 0.0], np.float32))
    assert [(hit.id, hit.score) for hit in hits] == [("c", 2e6), ("a", 1e6), ("b", 30.0)]


def test_pruned_queries(index):
    assert ids_of(index, [1.0, 0.4, 0.3], prune=0.35) == ["c", "b", "a"]  # 2, 1.2, 1
    with pytest.raises(InputError, match="prune"):
        index.search(np.ones(3), prune=1.5)


def test_two_phases(opensearch_target):
    index = OpenSearchIndex(opensearch_target)
    # The second token is light: of the first phase the first one alone decides.
    vectors = np.array([[1.0, 0.0], [0.9, 9.0], [0.8, 0.0], [0.0, 40.0]], np.float32)
    index.add(IDS, vectors)
    query = np.array([10.0, 0.5])
    assert ids_of(index, query) == ["empty", "b", "a", "c"]
    assert ids_of(index, query, k=2, two_phase={"expansion_rate": 1.0}) in (["a", "b"], ["b", "a"])
    (hits,) = index.search(query, k=3, two_phase=True)
    assert hits.ids.tolist() == ["b", "a", "c"] and hits.scores[0] == pytest.approx(13.5, rel=5e-3)
    with pytest.raises(InputError, match="max_window_size"):
        index.search(query, k=5000, two_phase=True)
    with pytest.raises(InputError, match="no 'speed'"):
        index.search(query, two_phase={"speed": 1})


def test_sparse_vector(opensearch_target):
    index = OpenSearchIndex(f"{opensearch_target}?vectors=sparse_vector")
    index.add(["empty"], VECTORS[3:])  # the first one, of all: an empty object would spoil the field
    index.add(IDS[:3], VECTORS[:3])
    assert ids_of(index) == ["a", "b", "c"]
    assert ids_of(index, [4, 1, 0], k=2, seismic={"heap_factor": 2.0}) == ["c", "a"]
    assert ids_of(index, ids=["c", "b", "nobody"]) == ["b", "c"]
    assert index.explain(np.array([3.0, 5.0, 2.0]), "a") == {2: (2.0, 2.0), 0: (3.0, 1.0)}
    for options, message in (
        ({"filter": {"lang": "en"}}, "filter"),
        ({"two_phase": True}, "rank_features"),
    ):
        with pytest.raises(InputError, match=message):
            index.search(VECTORS, **options)
    with pytest.raises(InputError, match="sparse_vector"):
        OpenSearchIndex(opensearch_target).search(VECTORS, two_phase=True)


def test_sparse_vector_takes_no_words_and_no_large_vocabulary(opensearch_target):
    with pytest.raises(InputError, match="rank_features"):
        open_index(f"{opensearch_target}?vectors=sparse_vector", bm25="english")
    index = open_index(f"{opensearch_target}?vectors=sparse_vector")
    large = np.zeros((1, 40_000), np.float32)
    large[0, 32_768] = 1
    with pytest.raises(InputError, match="32,768"):
        index.add(["a"], large)


def test_features_named_by_tokens(opensearch_target, call):
    tokens = [".", "a.b", "plain"]
    index = OpenSearchIndex(opensearch_target, tokens=tokens)
    index.add(IDS, VECTORS)
    assert call("GET", f"/{index.name}/_doc/a")["_source"]["emb"] == {".": 1, "plain": 2}
    assert ids_of(index) == ["a", "b", "c"]
    assert ids_of(index, [1, 0, 0]) == ["c", "a"]
    assert index.explain(VECTORS[0], "a") == {2: (2.0, 2.0), 0: (1.0, 1.0)}
    assert ids_of(pickle.loads(pickle.dumps(index))) == ["a", "b", "c"]
    unnamed = open_index(opensearch_target)
    for use in (lambda: unnamed.search(VECTORS), lambda: unnamed.update(IDS, VECTORS)):
        with pytest.raises(InputError, match="give the tokens"):
            use()
    with pytest.raises(InputError, match="other names"):
        unnamed.name_features(["x", "y", "z"])
    unnamed.name_features(tokens)
    assert ids_of(unnamed) == ["a", "b", "c"]
    with pytest.raises(InputError, match="other names"):
        OpenSearchIndex(opensearch_target, tokens=["x", "y", "z"])
    for bad in (["a", "a"], ["a", ""]):
        with pytest.raises(InputError, match="tokens"):
            OpenSearchIndex(opensearch_target, tokens=bad)


@pytest.mark.parametrize(
    ("ids", "vectors", "texts", "message"),
    [
        (["new"], [[1, -1, 0]], None, "negative weight"),
        (["x" * 513], [[1, 0, 0]], None, "512"),
        ([""], [[1, 0, 0]], None, "bytes"),
        (["\ud800"], [[1, 0, 0]], None, "surrogate"),
        (["new"], [[1, 0, 0]], ["\ud800"], "surrogate"),
    ],
)
def test_what_the_server_would_not_keep_is_refused(index, ids, vectors, texts, message):
    with pytest.raises(InputError, match=message) as caught:
        index.update(ids, np.array(vectors, np.float32), texts)
    assert "\n" not in str(caught.value) and len(index) == 4


def test_texts_are_fetched_when_one_is_read(index, monkeypatch):
    (hits,) = index.search(np.array([4.0, 1.0, 0.0]), k=2)
    asked = []
    request = index.server.request
    monkeypatch.setattr(
        index.server, "request", lambda *args, **kwargs: asked.append(args) or request(*args, **kwargs)
    )
    assert hits.as_run() == {"c": 8.0, "a": 4.0} and asked == []
    assert [hit.text for hit in hits] == [None, "A"] and hits[1].text == "A"
    assert len(asked) == 1


def test_an_index_takes_the_place_of_another(index, opensearch_target):
    assert ids_of(index) == ["a", "b", "c"]  # which shows to all what was written
    other = open_index(opensearch_target)
    with index.replacing() as new:
        new.add([1, 2], VECTORS[:2])
        assert ids_of(other) == ["a", "b", "c"] and ids_of(new) == [1, 2]
    assert index.name == new.name and index.name.endswith("-000002")
    assert ids_of(index) == ids_of(other) == [1, 2]  # the other one finds out by itself
    with pytest.raises(ValueError, match="no reason"), index.replacing() as new:
        raise ValueError("no reason")
    assert ids_of(index) == [1, 2]
    assert open_index(opensearch_target, create=False).missing([1, 3]) == [3]


def test_settings_of_a_load_are_put_back(index, call):
    def settings():
        found = call("GET", f"/{index.name}/_settings")[index.name]["settings"]["index"]
        return found.get("refresh_interval"), found["number_of_replicas"]

    before = settings()
    with index.bulk_settings(replicas=False):
        assert settings() == ("-1", "0")
        index.send(index.items(["new"], VECTORS[:1]))
    assert settings() == before
    assert index.missing(["new"]) == [] and "new" in ids_of(index)


def test_settings_of_a_killed_load_are_put_back_when_the_index_is_opened(index, opensearch_target, call):
    pid = os.fork()
    if pid == 0:
        inner = open_index(opensearch_target)
        with inner.bulk_settings():
            os._exit(0)
    os.waitpid(pid, 0)

    def refresh():
        return call("GET", f"/{index.name}/_settings")[index.name]["settings"]["index"].get(
            "refresh_interval"
        )

    assert refresh() == "-1"
    opened = open_index(opensearch_target, create=False)
    assert refresh() is None and opened.look().record.loading is None


QUESTIONS = {
    "search": lambda index: index.search(np.ones(1)),
    "pages": lambda index: index.search(np.ones(1), k=20_000),
    "len": len,
    "explain": lambda index: index.explain(np.ones(1), 3),
}


@pytest.mark.parametrize("question", QUESTIONS)
def test_an_answer_without_a_part_of_the_index_does_not_count(opensearch_target, question):
    index = OpenSearchIndex(f"{opensearch_target}?shards=2&replicas=0")
    index.add(list(range(20)), np.ones((20, 1), np.float32))
    assert len(index) == 20
    index._preference = "_shards:0"  # 200, one shard in all, none failed: as while another has no copy
    with pytest.raises(ServerError, match="1 of 2 shards answered") as caught:
        QUESTIONS[question](index)
    assert "\n" not in str(caught.value)


def test_a_part_that_is_nowhere_is_an_error(opensearch_target, call, monkeypatch):
    for module in ("server", "searching", "writing"):  # which wait for a copy to come back
        monkeypatch.setattr(f"st_l0.index.opensearch.{module}._PAUSES", (0.01,))
    index = OpenSearchIndex(f"{opensearch_target}?shards=2&replicas=0")
    index.add([1, 2], np.ones((2, 1), np.float32))
    impatient = OpenSearchIndex(f"{opensearch_target}?timeout=4")
    state = call("GET", f"/{index.name}")[index.name]
    call("DELETE", f"/{index.name}")
    settings = {"number_of_shards": 2, "routing.allocation.require._name": "nobody"}
    body = {"settings": {"index": settings}, "mappings": state["mappings"], "aliases": state["aliases"]}
    call("PUT", f"/{index.name}?wait_for_active_shards=0", body)
    for question in QUESTIONS.values():
        with pytest.raises(ServerError) as caught:
            question(impatient)
        assert "\n" not in str(caught.value)


def test_a_node_that_is_gone_hides_no_other(opensearch, opensearch_target):
    with socket.socket() as one:  # nobody listens there
        one.bind(("127.0.0.1", 0))
        hosts = [f"127.0.0.1:{one.getsockname()[1]}", opensearch.partition("://")[2]]
        name = opensearch_target.rpartition("/")[2]
        for _ in range(8):  # whom a client asks first is drawn
            assert len(open_index(f"opensearch+http://{','.join(hosts)}/{name}")) == 0
        with pytest.raises(InputError, match="is this the address"):
            open_index(f"opensearch+http://{hosts[0]},{hosts[0]}/index")


def test_an_index_that_takes_no_documents_says_so(index, opensearch_target, call):
    call("PUT", f"/{index.name}/_settings", {"index.blocks.read_only_allow_delete": True})
    for use in (lambda: index.add(["new"], VECTORS[:1]), lambda: check_target(opensearch_target)):
        with pytest.raises(ServerError, match="takes no documents"):
            use()
    assert ids_of(index) == ["a", "b", "c"]


def test_a_client_of_ones_own(opensearch, opensearch_target):
    from opensearchpy import OpenSearch

    index = OpenSearchIndex(opensearch_target.rpartition("/")[2], client=OpenSearch(opensearch))
    index.add(IDS, VECTORS)
    assert ids_of(index) == ["a", "b", "c"]
    with pytest.raises(InputError, match="client of its own"):
        pickle.dumps(index)
    with pytest.raises(InputError, match="no name of an index"):
        OpenSearchIndex("a,b", client=OpenSearch(opensearch))
