"""Many queries at once, each answered by every part of the index, or not at all."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from st_l0.errors import ServerError
from st_l0.index.opensearch.record import ID, State, read
from st_l0.index.opensearch.server import Server, complaint

_QUERIES = 32  # of a request
_BYTES = 4 << 20
_TOGETHER = 4  # requests on the way; the server has threads of its own for the queries of one
_PAUSES = (0.05, 0.1, 0.3, 1.0, 2.0, 4.0, 8.0)
_WANTED = ",".join(
    f"responses.{part}"
    for part in (
        "hits.hits.sort",
        "hits.hits._score",
        "hits.hits.fields",
        "_shards",
        "timed_out",
        "status",
        "error",
    )
)


class Found(NamedTuple):
    """The hits of one query, best first: score and id."""

    hits: list[tuple[float, str]]


class Searcher:
    """Sends searches to one index.

    An answer counts when as many shards took part as the index has: while a shard has no copy, a server says
    200, no failures, and leaves its documents out.

    Args:
        server: Where.
        state: The index.
        preference: Which copies answer: the same string, the same copies, which do not agree on ties or,
            after updates, on statistics of words.
    """

    def __init__(self, server: Server, state: State, preference: str) -> None:
        self._server, self._state = server, state
        self._preference = preference

    def search(self, bodies: Sequence[str], *, statistics: bool) -> list[Found]:
        """Answer searches.

        Args:
            bodies: Each as `as_body` wrote it.
            statistics: Whether those of words are gathered from all shards first.

        Raises:
            InputError: The server refuses one.
            ServerError: A part of the index does not answer.
        """
        header = {"preference": self._preference, "allow_partial_search_results": False}
        if statistics:
            header["search_type"] = "dfs_query_then_fetch"
        line = json.dumps(header)
        groups = list(_groups(bodies))
        if len(groups) < 2:
            return [found for group in groups for found in self._ask(line, group)]
        with ThreadPoolExecutor(min(_TOGETHER, len(groups)), "st_l0-opensearch") as pool:
            return [
                found for some in pool.map(lambda group: self._ask(line, group), groups) for found in some
            ]

    def _ask(self, header: str, bodies: Sequence[str]) -> list[Found]:
        found: dict[int, Found] = {}
        left = list(range(len(bodies)))
        why = ""
        for pause in (*_PAUSES, None):
            text = "".join(f"{header}\n{bodies[place]}\n" for place in left)
            answers = self._server.request("POST", f"{self._state.root}/_msearch", text, filter_path=_WANTED)
            again = []
            for place, answer in zip(left, answers["responses"], strict=True):
                problem = self._problem(answer)
                if problem is None:
                    found[place] = Found([_hit(one) for one in answer.get("hits", {}).get("hits", ())])
                else:
                    again.append(place)
                    why = problem
            left = again
            if not left:
                return [found[place] for place in range(len(bodies))]
            if pause is not None:
                time.sleep(pause * random.uniform(0.5, 1))
        raise self._incomplete(why)

    def _problem(self, answer: dict[str, Any]) -> str | None:
        """Why an answer does not count; None if it does."""
        status = answer.get("status", 200)
        if status != 200:
            error = complaint(self._server.place, status, answer)
            if not isinstance(error, ServerError):
                raise error
            return str(error)
        shards = answer["_shards"]
        if answer.get("timed_out"):
            return "the search took too long"
        if not shards["successful"] == shards["total"] == self._state.shards:
            return f"{shards['successful']} of {self._state.shards} shards answered"
        return None

    def _incomplete(self, why: str) -> ServerError:
        current = read(self._server, self._state.name)
        if current is None:
            return ServerError(f"{self._server.place}: the index {self._state.name} is gone: open it again")
        return ServerError(
            f"{self._server.place}: {why}, so hits would be missing, and none are given; "
            "try again when the cluster is whole (GET /_cluster/health)"
        )

    def count(self) -> int:
        """How many documents there are; errors as for `search`."""
        why = ""
        for pause in (*_PAUSES, None):
            answer = self._server.request("POST", f"{self._state.root}/_count", preference=self._preference)
            why = self._problem(answer) or ""
            if not why:
                return int(answer["count"])
            if pause is not None:
                time.sleep(pause * random.uniform(0.5, 1))
        raise self._incomplete(why)

    def explain(self, clause: dict[str, Any], id: str, *, statistics: bool) -> dict[str, Any] | None:
        """The server's account of a document's score, None if it is no hit; errors as for `search`."""
        body = {
            "explain": True,
            "_source": False,
            "query": {
                "bool": {"should": [clause], "minimum_should_match": 1, "filter": [{"term": {ID: id}}]}
            },
        }
        params = {"search_type": "dfs_query_then_fetch"} if statistics else {}
        answer = self._server.request(
            "POST",
            f"{self._state.root}/_search",
            body,
            preference=self._preference,
            allow_partial_search_results=False,
            **params,
        )
        problem = self._problem(answer)
        if problem is not None:
            raise self._incomplete(problem)
        return next((hit["_explanation"] for hit in answer["hits"]["hits"]), None)

    def pages(self, body: str, size: int) -> Found:
        """Answer a search of more hits than the server gives at once, from one state of the index.

        Args:
            body: As for `search`; its size is that of a page.
            size: Hits in all.

        Raises:
            InputError: The server refuses it.
            ServerError: A part of the index does not answer.
        """
        page = json.loads(body)
        hits: list[tuple[float, str]] = []
        point = self._open_point()
        try:
            while len(hits) < size:
                page |= {
                    "pit": {"id": point, "keep_alive": "2m"},
                    "size": min(page["size"], size - len(hits)),
                }
                answer = self._server.request("POST", "/_search", page, allow_partial_search_results=False)
                problem = self._problem(answer)
                if problem is not None:
                    raise self._incomplete(problem)
                found = answer["hits"]["hits"]
                hits += map(_hit, found)
                if len(found) < page["size"]:
                    break
                page["search_after"] = found[-1]["sort"]
        finally:
            self._server.request("DELETE", "/_search/point_in_time", {"pit_id": [point]})
        return Found(hits)

    def _open_point(self) -> str:
        why = ""
        for pause in (*_PAUSES, None):
            answer = self._server.request(
                "POST",
                f"{self._state.root}/_search/point_in_time",
                keep_alive="2m",
                allow_partial_pit_creation=False,
                preference=self._preference,
            )
            shards = answer["_shards"]
            # A search over it would count the missing ones as not there at all.
            if shards["successful"] == shards["total"] == self._state.shards:
                return str(answer["pit_id"])
            why = f"{shards['successful']} of {self._state.shards} shards answered"
            self._server.request("DELETE", "/_search/point_in_time", {"pit_id": [answer["pit_id"]]})
            if pause is not None:
                time.sleep(pause * random.uniform(0.5, 1))
        raise self._incomplete(why)


def _hit(hit: dict[str, Any]) -> tuple[float, str]:
    if "sort" in hit:
        score, id = hit["sort"]
        return float(score), id
    return float(hit["_score"]), hit["fields"][ID][0]


def _groups(bodies: Sequence[str]) -> Iterator[list[str]]:
    group: list[str] = []
    size = 0
    for body in bodies:
        if group and (len(group) >= _QUERIES or size + len(body) > _BYTES):
            yield group
            group, size = [], 0
        group.append(body)
        size += len(body)
    if group:
        yield group
