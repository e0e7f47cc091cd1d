"""The demo as a web application: the page, and the JSON API that it speaks to."""

from __future__ import annotations

import ipaddress
import json
import socket
from collections.abc import Awaitable, Callable, Collection
from importlib.resources import files
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import QueryParams
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from st_l0.demo.openapi import describe
from st_l0.demo.service import Answer, Demo, Question
from st_l0.errors import InputError, ServerError
from st_l0.utils.terminal import printable, to_json

LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
_LARGEST_BODY = 1 << 18  # bytes
_FILES = {"/": ("page.html", "text/html"), "/style.css": ("style.css", "text/css")}
_FILES |= {"/script.js": ("script.js", "text/javascript")}
_HEADERS = {
    # Nothing but this server's own files; no markup of a document could load or run anything.
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}


def make_app(demo: Demo, hosts: Collection[str] | None = LOOPBACK) -> Starlette:
    """The application.

    Args:
        demo: What answers.
        hosts: What a browser may call this server; None for anything. On loopback a page of another site
            could otherwise have its own name resolve to here, and read the answers.
    """

    def get(work: Callable[[QueryParams], Answer]) -> Callable[[Request], Awaitable[Response]]:
        async def answer(request: Request) -> Response:
            return await _answer(lambda: work(request.query_params))

        return answer

    def search(params: QueryParams) -> Answer:
        given = _read(params, {"q", "prune", "bm25", "model", "k", "id", "filter", "explain"})
        fields: dict[str, list[str]] = {}
        for one in params.getlist("filter"):
            name, sign, value = one.partition("=")
            if not (name and sign):
                raise InputError(f"filter {one!r:.60} is none: give FIELD=VALUE")
            fields.setdefault(name, []).append(value)
        return demo.search(
            _question(given),
            _number(given, "k", 10, int),
            ids=params.getlist("id"),
            filter=fields,
            explain=_flag(given, "explain"),
        )

    def explain(params: QueryParams) -> Answer:
        given = _read(params, {"q", "prune", "bm25", "model", "id"})
        if "id" not in given:
            raise InputError("id is missing: name the document")
        return demo.explain(_question(given), given["id"])

    def encode_query(params: QueryParams) -> Answer:
        return demo.encode_query(_question(_read(params, {"q", "prune"})))

    async def encode_document(request: Request) -> Response:
        # No other site's form can send this type without being asked first.
        if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
            return _json({"error": "send the document as application/json"}, 415)
        body = b""
        async for chunk in request.stream():
            body += chunk
            if len(body) > _LARGEST_BODY:
                return _json({"error": f"the body is longer than {_LARGEST_BODY:,} bytes"}, 413)

        def work() -> Answer:
            try:
                given = json.loads(body)
            except ValueError:
                raise InputError("the body is no JSON: send {'text': …}") from None
            if not isinstance(given, dict) or not isinstance(given.get("text"), str):
                raise InputError("the body has no text: send {'text': …}")
            if given.keys() - {"text", "q", "prune"}:
                raise InputError("the body may have text, q and prune, and nothing else")
            rest = {name: str(given[name]) for name in ("q", "prune") if name in given}
            return demo.encode_document(given["text"], _question(rest))

        return await _answer(work)

    routes = [Route(path, _file(*what)) for path, what in _FILES.items()]
    routes += [
        Route("/about", get(lambda params: demo.about() if not _read(params, set()) else {})),
        Route("/search", get(search)),
        Route("/encode_query", get(encode_query)),
        Route("/explain", get(explain)),
        Route("/encode_document", encode_document, methods=["POST"]),
        Route("/openapi.json", get(lambda params: describe())),
    ]
    return Starlette(
        routes=routes,
        middleware=[Middleware(_Guard, hosts=hosts)],
        exception_handlers={HTTPException: _refuse, Exception: _fail},
    )


def listen(host: str, port: int) -> socket.socket:
    """A socket for `serve`, so that an occupied port is known before anything is loaded.

    Args:
        host: An address or name of this machine.
        port: 0 for any that is free.

    Raises:
        InputError: The port is taken or not allowed, or this machine has no such address.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind, protocol)
    except OSError as error:
        raise InputError(f"--host {host}: is no address of this machine ({error.strerror})") from None
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind(address)
        listening.listen()
    except OSError as error:
        listening.close()
        raise InputError(
            f"port {port} of {host} cannot be had ({error.strerror}): give another --port, or 0 for any"
        ) from None
    return listening


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def make_server(app: ASGIApp) -> uvicorn.Server:
    """What serves an application: ``make_server(app).run(sockets=[…])``, until it is interrupted."""
    config = uvicorn.Config(
        app, lifespan="off", log_level="warning", access_log=False, timeout_graceful_shutdown=1
    )
    return uvicorn.Server(config)


class _Guard:
    """Refuses other names of this server than ``hosts``, and sets the headers of every answer."""

    def __init__(self, app: ASGIApp, hosts: Collection[str] | None) -> None:
        self._app, self._hosts = app, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                extra = [(name.encode(), value.encode()) for name, value in _HEADERS.items()]
                message["headers"] = [*message["headers"], *extra]
            await send(message)

        host = dict(scope["headers"]).get(b"host", b"").decode("latin-1").lower()
        name = host[: host.rfind(":")] if ":" in host.rpartition("]")[2] else host
        if self._hosts is not None and name not in self._hosts:
            answer = _json({"error": f"this server is not called {printable(name)[:80]}"}, 421)
            await answer(scope, receive, guarded)
            return
        await self._app(scope, receive, guarded)


def _file(name: str, kind: str) -> Callable[[Request], Awaitable[Response]]:
    content = files(__package__).joinpath(name).read_bytes()

    async def send(request: Request) -> Response:
        return Response(content, media_type=f"{kind}; charset=utf-8")

    return send


def _json(content: Any, status: int = 200) -> Response:
    return Response(to_json(content), status, media_type="application/json")


async def _answer(work: Callable[[], Answer]) -> Response:
    """Work in a thread, since an index may be a server; what the asker can mend is 400, a line as JSON."""
    try:
        return _json(await run_in_threadpool(work))
    except InputError as error:
        return _json({"error": printable(error)}, 400)
    except ServerError as error:
        return _json({"error": printable(error)}, 502)


async def _refuse(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _json({"error": f"{printable(request.url.path)[:80]}: {error.detail}"}, error.status_code)


async def _fail(request: Request, error: Exception) -> Response:
    return _json({"error": "the demo failed; its terminal says where"}, 500)


def _read(params: QueryParams, known: Collection[str]) -> dict[str, str]:
    """The parameters, of which only ``id`` and ``filter`` may be given more than once."""
    unknown = params.keys() - known
    if unknown:
        takes = f"it takes {', '.join(sorted(known))}" if known else "it takes none"
        raise InputError(f"there is no parameter {min(unknown)!r:.40}; {takes}")
    return dict(params)


def _question(given: dict[str, str]) -> Question:
    bm25 = given.get("bm25", "0")
    return Question(
        given.get("q", ""),
        _number(given, "prune", 0.0, float),
        "auto" if bm25 == "auto" else _number(given, "bm25", 0.0, float),
        _flag(given, "model"),
    )


def _number(given: dict[str, str], name: str, usual: Any, kind: type) -> Any:
    try:
        return kind(given[name]) if name in given else usual
    except ValueError:
        raise InputError(f"{name} must be a number, not {given[name]!r:.40}") from None


def _flag(given: dict[str, str], name: str) -> bool:
    value = given.get(name, "true")
    if value not in ("true", "false"):
        raise InputError(f"{name} must be true or false, not {value!r:.40}")
    return value == "true"
