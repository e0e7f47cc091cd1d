"""Queries that the server encodes: the query side of a model on OpenSearch, for clients without one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from st_l0.encoder.queries import QueryEncoder
from st_l0.errors import InputError, ServerError
from st_l0.index.opensearch.address import Address
from st_l0.index.opensearch.models import check_pipeline, deploy, make_default, predict
from st_l0.index.opensearch.record import VECTORS, read
from st_l0.index.opensearch.server import Server
from st_l0.indexing.identity import OTHER
from st_l0.indexing.query_archive import NO_WEIGHT, query_archive

ANALYZER = "bert-uncased"
_TOLERANCE = 1e-6  # of a weight, relative to the larger one
_PROBES = (
    "what is sparse retrieval?",
    "Größe, café, naïve; don't!",
    "日本語 テキスト 한국어",
    "😀 [SEP] [MASK] zzzzqqqq",
    "a.b e.g. 3.14",
)
_BATCH = 2_000  # tokens of one analysis; the server allows 10,000 with what they are split into


class ServerQueries(NamedTuple):
    """How a client without a model searches an index.

    Attributes:
        model: Id of the model on the server; None with the built-in analyzer.
        reused: The server had it already.
        pipeline: The search pipeline in which it is the default, if one was made.
        query: The body of a search, with ``query_text`` to be replaced.
        path: Where to send it.
    """

    model: str | None
    reused: bool
    pipeline: str | None
    query: dict[str, Any]
    path: str


def register(
    model: str | Path,
    target: str,
    *,
    pipeline: str | None = None,
    analyzer: bool = False,
    on_data_nodes: bool = False,
) -> ServerQueries:
    """Let the server encode the queries of an index, so that clients send texts.

    Tokenizer and table go there as a model of the function ``SPARSE_TOKENIZE``; the same ones are not sent
    twice. Then the server is asked for the vectors of a few texts, which have to be those of the model.

    Args:
        model: Folder or Hub id of the model that made the index.
        target: An index on OpenSearch.
        pipeline: Name of a search pipeline in which the model becomes the default.
        analyzer: Upload nothing, and use the server's own analyzer, if its vocabulary and weights are those
            of the model.
        on_data_nodes: Let the cluster's data nodes run models, where no node has the role ``ml``; the setting
            stays.

    Raises:
        InputError: There is no such index or it is another model's, the server cannot do what the model does,
            or it has no room for models.
        ServerError: The server failed.
    """
    if not str(target).startswith("opensearch"):
        raise InputError(f"{target}: is no index on OpenSearch; give opensearch://host:9200/name")
    address = Address.parse(str(target))
    server = Server.connect(address)
    state = read(server, address.name)
    if state is None:
        raise InputError(f"{address}: there is no such index; make it first")
    record = state.record
    encoder = QueryEncoder.from_pretrained(model)
    made_with = record.metadata.get("query_fingerprint")
    if made_with not in (None, encoder.query_fingerprint()):
        place = record.metadata.get("model")
        raise InputError(f"{address} was made with a model of {OTHER} (then at {place}): use that one")
    by_id = record.tokens is None
    seismic = record.vectors == "sparse_vector"  # for which the server asks a model for ids by itself
    if analyzer and pipeline is not None:
        raise InputError("a pipeline has a default model, not an analyzer: give one of the two")
    if analyzer:
        if by_id or seismic:
            raise InputError(
                f"{address}: names its features by token ids, which the analyzer does not know: "
                "register the model without --analyzer"
            )
        _check_analyzer(server, encoder, str(model))
        return ServerQueries(None, True, None, _search(analyzer=ANALYZER), f"/{address.name}/_search")
    if pipeline is not None:
        check_pipeline(server, pipeline)
    archive = query_archive(encoder, str(model), ids=by_id)
    deployed = deploy(
        server, archive, function="SPARSE_TOKENIZE", name="st-l0-queries", on_data_nodes=on_data_nodes
    )
    _prove(server, deployed.id, encoder, by_id, seismic)
    if pipeline is None:
        query, path = _search(model_id=deployed.id), f"/{address.name}/_search"
    else:
        make_default(server, pipeline, deployed.id)
        query, path = _search(), f"/{address.name}/_search?search_pipeline={pipeline}"
    return ServerQueries(deployed.id, deployed.reused, pipeline, query, path)


def _search(**how: str) -> dict[str, Any]:
    return {"query": {"neural_sparse": {VECTORS: {"query_text": "what is sparse retrieval?", **how}}}}


def _prove(server: Server, model: str, encoder: QueryEncoder, by_id: bool, seismic: bool) -> None:
    """Make sure that the server's vectors are the encoder's."""
    for text, found in zip(_PROBES, predict(server, model, _PROBES, ids=seismic), strict=True):
        vector = encoder.encode_query([text])
        rows = vector.indices.tolist()
        names = map(str, rows) if by_id or seismic else map(encoder.tokenizer.convert_ids_to_tokens, rows)
        expected = dict(zip(map(str, names), vector.data.tolist(), strict=True))
        if difference := _difference(expected, found):
            raise ServerError(f"{server.place}: model {model} makes something else of {text!r}: {difference}")


def _difference(expected: Mapping[str, float], found: Mapping[str, float]) -> str | None:
    """Where two vectors differ, by more than rounding."""
    for token in {**expected, **found}:
        mine, other = expected.get(token, 0.0), found.get(token, 0.0)
        if abs(mine - other) > max(_TOLERANCE * max(mine, other), 2 * NO_WEIGHT):
            return f"{token!r} weighs {other:.7g}, not {mine:.7g}"
    return None


def _check_analyzer(server: Server, encoder: QueryEncoder, source: str) -> None:
    """Refuse the built-in analyzer unless it gives every token of the vocabulary the weight that it has here.

    Raises:
        InputError: It does not.
    """
    weight_of = {token: encoder.query_weights[row] for token, row in encoder.tokenizer.get_vocab().items()}
    texts = iter(_texts_of_tokens(encoder))
    while batch := list(islice(texts, _BATCH)):
        tokens = _analyze(server, batch)
        ours = {
            str(encoder.tokenizer.convert_ids_to_tokens(row)): None
            for text in batch
            for row in encoder.tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).ids
        }
        for token in ours.keys() | tokens.keys():
            weight = float(weight_of.get(token, np.nan))
            if token not in tokens or not abs(tokens[token] - weight) <= _TOLERANCE * max(weight, 1e-3):
                here = "is no token" if token not in ours else f"weighs {weight:.6g}"
                there = f"weighs {tokens[token]:.6g}" if token in tokens else "is no token"
                raise InputError(
                    f"{source}: {token!r} {here}, and {there} in the server's analyzer {ANALYZER}: "
                    "register the model without --analyzer"
                )


def _texts_of_tokens(encoder: QueryEncoder) -> Iterator[str]:
    """Texts in which every token that can occur does."""
    tokenizer = encoder.tokenizer.backend_tokenizer
    special = set(encoder.tokenizer.all_special_ids)
    for token, row in encoder.tokenizer.get_vocab().items():
        if row in special:
            continue
        for text in (token, *(f"{start}{token.removeprefix('##')}" for start in ("a", "1", "qz", "я"))):
            if row in tokenizer.encode(text, add_special_tokens=False).ids:
                yield text
                break


def _analyze(server: Server, texts: Sequence[str]) -> dict[str, float]:
    body = {"analyzer": ANALYZER, "text": list(texts), "explain": True, "attributes": ["payload"]}
    found = server.request("POST", "/_analyze", body)["detail"]["analyzer"]["tokens"]
    return {one["token"]: _payload(one.get("payload")) for one in found}


def _payload(text: str | None) -> float:
    """The number of bytes such as "[3f 80 0 0]", big-endian; without any a token weighs 1."""
    if not text:
        return 1.0
    return float(np.frombuffer(bytes(int(one, 16) for one in text.strip("[]").split()), ">f4")[0])
