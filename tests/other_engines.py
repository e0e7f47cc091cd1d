"""Other engines, really run, on nothing but the files that were written for them.

Each function takes the folder of a format and gives ``{query: [(score, document), …]}``, best first. An
engine that is not there is skipped by whoever asks `unavailable`.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import urllib.request
from importlib.util import find_spec
from pathlib import Path

from opensearch_server import java_home

Run = dict[str, list[tuple[float, str]]]
_BATCH = 100  # lines; two a document


def unavailable(engine: str) -> str | None:
    """Why an engine cannot be run here; None if it can."""
    if engine == "anserini":
        named = os.environ.get("ST_L0_ANSERINI_JAR")
        return None if named else "ST_L0_ANSERINI_JAR names no anserini-…-fatjar.jar (Pyserini has one)"
    module = {"seismic": "seismic", "qdrant": "qdrant_edge"}[engine]
    return None if find_spec(module) else f"{module} is not installed"


def lines(path: Path) -> list[dict]:
    """The JSON lines of a file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def by_guide(folder: Path, k: int = 10, **replaced: str) -> Run:
    """What the Python of a guide finds, as it stands there or with other settings.

    In a process of its own: Seismic prints, and file names are relative to the folder.
    """
    text = (folder / "README.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"^```python\n(.*?)^```", text, re.M | re.S)
    code = code.replace("[:10]", f"[:{k}]").replace("k=10", f"k={k}")
    for name, value in replaced.items():
        code, found = re.subn(rf"\b{name}=(len\(terms\)|\d+)", f"{name}={value}", code)
        assert found == 1
    with tempfile.TemporaryDirectory() as place:
        code += f"\njson.dump(run, open({place + '/run'!r}, 'w'))\n"
        done = subprocess.run((sys.executable, "-c", code), cwd=folder, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        found = json.loads(Path(place, "run").read_text(encoding="utf-8"))
    return {query: [(score, id) for score, id in hits] for query, hits in found.items()}


def qdrant(folder: Path, k: int = 10) -> Run:
    """Qdrant's core (Edge) on the points, the collection and the queries."""
    import qdrant_edge as core

    settings = json.loads((folder / "collection.json").read_text(encoding="utf-8"))["sparse_vectors"]
    vectors = {name: core.EdgeSparseVectorParams(**given) for name, given in settings.items()}

    def vector(given: dict) -> core.SparseVector:
        return core.SparseVector(given["indices"], given["values"])

    with tempfile.TemporaryDirectory() as place:
        shard = core.EdgeShard.create(place, core.EdgeConfig(sparse_vectors=vectors))
        points = [
            core.Point(
                one["id"], {name: vector(some) for name, some in one["vector"].items()}, one["payload"]
            )
            for one in lines(folder / "documents.jsonl")
        ]
        shard.update(core.UpdateOperation.upsert_points(points))
        shard.optimize()
        run: Run = {}
        for query in lines(folder / "queries.jsonl"):
            nearest = core.Query.Nearest(vector(query["query"]), using=query["using"])
            hits = shard.query(core.QueryRequest(limit=k, query=nearest, with_payload=True))
            run[query["id"]] = [(hit.score, hit.payload["id"]) for hit in hits]
        shard.close()
    return run


def anserini(folder: Path, k: int = 10) -> Run:
    """Anserini by the commands of the guide."""
    text = (folder / "README.md").read_text(encoding="utf-8").replace("\\\n", " ")
    commands = re.findall(r"^java -cp anserini-fatjar.jar (.*)$", text, re.M)
    assert len(commands) == 2
    with tempfile.TemporaryDirectory() as place:
        for command in commands:
            command = command.replace("-index index", f"-index {place}/index").replace(
                "run.txt", f"{place}/run"
            )
            command = command.replace("-hits 1000", f"-hits {k}").replace("-threads 8", "-threads 1")
            java = (str(java_home() / "bin" / "java"), "-cp", os.environ["ST_L0_ANSERINI_JAR"])
            done = subprocess.run((*java, *command.split()), cwd=folder, capture_output=True, text=True)
            assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
        run: Run = {}
        for line in Path(place, "run").read_text(encoding="utf-8").splitlines():
            query, _, document, _, score, _ = line.split(" ")
            run.setdefault(query, []).append((float(score), document))
    return run


def lucene_impacts(folder: Path, url: str, k: int = 10) -> Run:
    """Anserini's files in the Lucene of an OpenSearch: term frequencies times repetitions, summed."""
    similarity = {"type": "scripted", "script": {"source": "return query.boost * doc.freq;"}}
    field = {"type": "text", "analyzer": "whitespace", "similarity": "impact"}
    body = {
        "settings": {"similarity": {"impact": similarity}, "number_of_shards": 1, "number_of_replicas": 0},
        "mappings": {"properties": {"vector": field}},
    }
    _ask(f"{url}/impacts", body, "PUT")
    try:
        sent = []
        for file in sorted((folder / "documents").iterdir()):
            for one in lines(file):
                words = " ".join(f"{term} " * weight for term, weight in one["vector"].items())
                sent += [{"index": {"_id": one["id"]}}, {"vector": words}]
        _bulk(url, "impacts", "".join(json.dumps(one) + "\n" for one in sent))
        run: Run = {}
        for line in (folder / "queries.tsv").read_text(encoding="utf-8").splitlines():
            id, terms = line.split("\t")
            counts = {term: terms.split().count(term) for term in set(terms.split())}
            should = [{"term": {"vector": {"value": term, "boost": n}}} for term, n in counts.items()]
            run[id] = _search(url, "impacts", {"bool": {"should": should}}, k)
        return run
    finally:
        _ask(f"{url}/impacts", None, "DELETE")


def lucene_features(folder: Path, url: str, k: int = 10) -> Run:
    """Elasticsearch's files in the Lucene of an OpenSearch, whose name for the same field is another."""
    body = json.loads((folder / "index.json").read_text(encoding="utf-8"))
    fields = body["mappings"]["properties"]
    assert fields["emb"] == {"type": "sparse_vector", "index_options": {"prune": False}}
    fields["emb"] = {"type": "rank_features"}
    body["settings"] = {"number_of_shards": 1, "number_of_replicas": 0}
    _ask(f"{url}/features", body, "PUT")
    try:
        _bulk(url, "features", (folder / "documents.ndjson").read_text(encoding="utf-8"))
        run: Run = {}
        for query in lines(folder / "queries.jsonl"):
            asked = query["query"]["sparse_vector"]
            should = [
                {"rank_feature": {"field": f"{asked['field']}.{term}", "linear": {}, "boost": weight}}
                for term, weight in asked["query_vector"].items()
            ]
            run[query["id"]] = _search(url, "features", {"bool": {"should": should}}, k)
        return run
    finally:
        _ask(f"{url}/features", None, "DELETE")


def _search(url: str, index: str, query: dict, k: int) -> list[tuple[float, str]]:
    found = _ask(f"{url}/{index}/_search", {"size": k, "query": query, "_source": False})
    return [(hit["_score"], hit["_id"]) for hit in found["hits"]["hits"]]


def _bulk(url: str, index: str, text: str) -> None:
    rows = text.splitlines(keepends=True)
    for start in range(0, len(rows), _BATCH):
        some = "".join(rows[start : start + _BATCH]).encode()
        request = urllib.request.Request(
            f"{url}/{index}/_bulk", some, {"content-type": "application/x-ndjson"}
        )
        with urllib.request.urlopen(request, timeout=120) as answer:
            assert json.load(answer)["errors"] is False
    _ask(f"{url}/{index}/_refresh", {})


def _ask(url: str, body: dict | None, method: str | None = None) -> dict:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"content-type": "application/json"}, method=method)
    with urllib.request.urlopen(request, timeout=120) as answer:
        return json.load(answer)
