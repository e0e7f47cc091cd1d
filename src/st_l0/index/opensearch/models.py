"""Models that run inside of OpenSearch, by its plugin ml-commons: registered, deployed, asked."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from st_l0.errors import InputError, ServerError
from st_l0.index.opensearch.server import NotFoundError, Server

_CHUNK = 10_000_000  # bytes of a request; the server takes no more
_UPLOAD = "plugins.ml_commons.allow_registering_model_via_local_file"
_ML_NODES_ONLY = "plugins.ml_commons.only_run_on_ml_node"
_PATIENCE = 300.0  # seconds that a step may take on the server
_PIPELINE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,199}")


class Deployed(NamedTuple):
    """A model that runs on the server; ``reused`` if it was registered before."""

    id: str
    reused: bool


def deploy(
    server: Server, archive: bytes, *, function: str, name: str, on_data_nodes: bool = False, **config: Any
) -> Deployed:
    """Register a model, unless the server has it, and deploy it; what was begun is gone on with.

    The setting that lets files be registered is put back, also after a failure or Ctrl-C. The one that lets
    models run on data nodes stays: with it the server takes them down. So it is changed only where that was
    asked for, and put back only if no model came to run.

    Args:
        server: The cluster.
        archive: The model's zip.
        function: What it does, such as ``"SPARSE_TOKENIZE"``.
        name: Its name, to which a digest of the zip is added: names are unique there.
        on_data_nodes: Let models run on data nodes where no node has the role ``ml``.
        **config: More keys of the registration.

    Raises:
        InputError: The plugin is not there; no node may run it and ``on_data_nodes`` is off; or the server
            refuses the model.
        ServerError: The server failed.
    """
    settings = server.request("GET", "/_cluster/settings", include_defaults=True, flat_settings=True)
    if _value(settings, _UPLOAD) is None:
        raise InputError(f"{server.place}: has no plugin ml-commons: install it, or encode on the client")
    digest = hashlib.sha256(archive).hexdigest()
    found = _find(server, digest, function)
    with _room(server, settings, on_data_nodes):
        if found is not None and found[1] != "REGISTERING":
            model = found[0]
        else:
            with _changed(server, settings, _UPLOAD, "true"):
                model = found[0] if found else _begin(server, archive, digest, function, name, config)
                _upload(server, model, archive)
        _run(server, model)  # also what says that it runs: after a restart of its node it may not
    return Deployed(model, found is not None)


def predict(server: Server, model: str, texts: Sequence[str], *, ids: bool) -> list[dict[str, float]]:
    """What a model of the function ``SPARSE_TOKENIZE`` makes of texts: token → weight, or id → weight."""
    body = {
        "text_docs": list(texts),
        "parameters": {"sparse_embedding_format": "TOKEN_ID" if ids else "WORD"},
    }
    answer = server.request("POST", f"/_plugins/_ml/_predict/sparse_tokenize/{model}", body)
    return [one["output"][0]["dataAsMap"]["response"][0] for one in answer["inference_results"]]


def check_pipeline(server: Server, pipeline: str) -> None:
    """Refuse a search pipeline that `make_default` would not replace.

    Raises:
        InputError: ``pipeline`` is no name, or there is such a one that does something else too.
    """
    if not _PIPELINE.fullmatch(pipeline):
        raise InputError(f"{pipeline!r:.60} is no name of a pipeline: give letters, digits, - and _")
    try:
        there = server.request("GET", f"/_search/pipeline/{pipeline}")[pipeline]
    except NotFoundError:
        return
    kinds = [kind for part in there.values() if isinstance(part, list) for one in part for kind in one]
    others = [kind for kind in kinds if kind != "neural_query_enricher"]
    if others:
        raise InputError(
            f"{server.place}: search pipeline {pipeline} has a {others[0]} too, which would be lost: "
            "give another name"
        )


def make_default(server: Server, pipeline: str, model: str) -> None:
    """Make a search pipeline in which a query with ``query_text`` alone goes through this model."""
    enricher = {"neural_query_enricher": {"default_model_id": model}}
    server.request("PUT", f"/_search/pipeline/{pipeline}", {"request_processors": [enricher]})


def _find(server: Server, digest: str, function: str) -> tuple[str, str] | None:
    """Id and state of a model with these bytes: one that is registered rather than one that was begun."""
    terms = [{"term": {"model_content_hash_value": digest}}, {"term": {"algorithm": function}}]
    try:
        answer = server.request(
            "POST",
            "/_plugins/_ml/models/_search",
            {"query": {"bool": {"filter": terms, "must_not": {"exists": {"field": "chunk_number"}}}}},
        )
    except NotFoundError:  # no model was ever registered
        return None
    models = [(hit["_id"], str(hit["_source"].get("model_state"))) for hit in answer["hits"]["hits"]]
    return min(models, key=lambda model: (model[1] == "REGISTERING", model[0]), default=None)


def _begin(
    server: Server, archive: bytes, digest: str, function: str, name: str, config: dict[str, Any]
) -> str:
    content = {
        "name": f"{name}-{digest[:12]}",
        "version": "1",
        "function_name": function,
        "model_format": "TORCH_SCRIPT",
        "model_content_size_in_bytes": len(archive),
        "model_content_hash_value": digest,
        "total_chunks": -(-len(archive) // _CHUNK),
    }
    return str(server.request("POST", "/_plugins/_ml/models/_register_meta", content | config)["model_id"])


def _upload(server: Server, model: str, archive: bytes) -> None:
    for number, start in enumerate(range(0, len(archive), _CHUNK)):  # one that is there is replaced
        chunk = archive[start : start + _CHUNK]
        server.request("POST", f"/_plugins/_ml/models/{model}/upload_chunk/{number}", chunk)
    _wait(server, f"/_plugins/_ml/models/{model}", "model_state", ("REGISTERING",))


def _run(server: Server, model: str) -> None:
    task = server.request("POST", f"/_plugins/_ml/models/{model}/_deploy")["task_id"]
    done = _wait(server, f"/_plugins/_ml/tasks/{task}", "state", ("CREATED", "RUNNING"))
    if done["state"] != "COMPLETED":
        said = " ".join(str(done.get("error") or done["state"]).split())
        raise ServerError(f"{server.place}: model {model} cannot be deployed: {said:.300}")


def _wait(server: Server, path: str, key: str, states: tuple[str, ...]) -> dict[str, Any]:
    """Ask until the state is none of these."""
    end = time.monotonic() + _PATIENCE
    while True:
        answer: dict[str, Any] = server.request("GET", path)
        if answer[key] not in states:
            return answer
        if time.monotonic() > end:
            raise ServerError(f"{server.place}: {path} says {answer[key]} for {_PATIENCE:.0f} seconds")
        time.sleep(0.1)


@contextmanager
def _room(server: Server, settings: dict[str, Any], on_data_nodes: bool) -> Iterator[None]:
    """See to it that there is a node which may run models."""
    nodes = server.request("GET", "/_nodes", filter_path="nodes.*.roles")["nodes"]
    if _value(settings, _ML_NODES_ONLY) == "false" or any("ml" in one["roles"] for one in nodes.values()):
        yield
        return
    if not on_data_nodes:
        raise InputError(
            f"{server.place}: no node has the role ml, and {_ML_NODES_ONLY} is true: give one that role, "
            "or let data nodes run models (--on-data-nodes), which sets it to false for good"
        )
    try:
        _set(server, settings, _ML_NODES_ONLY, "false")
        yield
    except BaseException:
        _set(server, settings, _ML_NODES_ONLY, None)
        raise


@contextmanager
def _changed(server: Server, settings: dict[str, Any], key: str, value: str) -> Iterator[None]:
    """A setting of the cluster has another value while the body runs."""
    if _value(settings, key) == value:
        yield
        return
    try:
        _set(server, settings, key, value)
        yield
    finally:
        _set(server, settings, key, None)


def _set(server: Server, settings: dict[str, Any], key: str, value: str | None) -> None:
    """Set it, or give it back what it had; what is transient hides what is persistent."""
    kind = "transient" if key in settings["transient"] else "persistent"
    wanted = settings[kind].get(key) if value is None else value
    server.request("PUT", "/_cluster/settings", {kind: {key: wanted}})


def _value(settings: dict[str, Any], key: str) -> str | None:
    found = (settings[kind][key] for kind in ("transient", "persistent", "defaults") if key in settings[kind])
    return next(map(str, found), None)
