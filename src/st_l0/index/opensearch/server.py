"""The connection to a cluster: credentials from the environment, retries, and errors in one line."""

from __future__ import annotations

import base64
import os
import random
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any

from st_l0.errors import InputError, ServerError, reason, require
from st_l0.index.opensearch.address import Address

_PAUSES = (0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0)  # seconds between attempts; a node's failure is over by then
_TIMEOUTS = 2  # a request that no node answers in time is not tried for minutes
PASSING = (429, 502, 503, 504)
CLAUSES = "indices.query.bool.max_clause_count"
USUAL_CLAUSES = 1024


class Server:
    """A cluster, asked through `opensearchpy`'s own transport; may be used by several threads.

    Args:
        client: An ``opensearchpy.OpenSearch``.
        place: What complaints call it.
        seconds: That an answer may take.
    """

    def __init__(self, client: Any, place: str, seconds: float = 60.0) -> None:
        self.place = place
        self.seconds = seconds
        self._transport = client.transport
        self._answered = False
        self._patience = 0.0

    @classmethod
    def connect(cls, address: Address) -> Server:
        """Make the client for an address; nothing is sent yet.

        ``OPENSEARCH_USERNAME`` and ``OPENSEARCH_PASSWORD``, ``OPENSEARCH_API_KEY``, or
        ``OPENSEARCH_AWS_SERVICE`` ("es" or "aoss", with the usual credentials and region of AWS) say who
        asks. ``SSL_CERT_FILE`` and ``SSL_CERT_DIR`` name other authorities than the system's and certifi's.

        Raises:
            InputError: The environment holds half of a credential or two kinds, or it would cross a network
                unencrypted.
            MissingExtraError: opensearch-py, or botocore for AWS, is not installed.
        """
        library = require("opensearchpy", "opensearch")
        options = _credentials(address)
        client = library.OpenSearch(
            hosts=[{"host": host, "port": port, "use_ssl": address.tls} for host, port in address.hosts],
            **({"ssl_context": _trusted()} if address.tls else {}),
            timeout=address.timeout,
            # Attempts are ours; these two mark a node that failed, so that the next one goes to another.
            max_retries=0,
            retry_on_timeout=True,
            retry_on_status=(),
            pool_maxsize=16,
            **options,
        )
        return cls(client, str(address), address.timeout)

    @contextmanager
    def patient(self, seconds: float) -> Iterator[None]:
        """While the body runs, a server that does not answer is asked again for so long."""
        before, self._patience = self._patience, seconds
        try:
            yield
        finally:
            self._patience = before

    def once(self, method: str, path: str, body: Any = None, **params: Any) -> Any:
        """Ask a single time, for a caller who asks again by himself; errors as for `request`."""
        errors = require("opensearchpy.exceptions", "opensearch")
        try:
            return self._perform(method, path, body, params)
        except errors.OpenSearchException as error:
            raise self._told(error, errors) from error

    def request(self, method: str, path: str, body: Any = None, **params: Any) -> Any:
        """Ask, again where that may help, and give the answer as JSON has it.

        What is sent must bear to be done twice: an answer may be lost after the work.

        Raises:
            InputError: The server refuses it, or was never there.
            ServerError: The server failed, or does not answer.
            NotFoundError: There is no such thing (404), as an `InputError`.
        """
        errors = require("opensearchpy.exceptions", "opensearch")
        timeouts, end = 0, time.monotonic() + self._patience
        for attempt in count():
            try:
                return self._perform(method, path, body, params)
            except errors.OpenSearchException as error:
                timeouts += isinstance(error, errors.ConnectionTimeout)
                enough = attempt >= len(_PAUSES) or timeouts >= _TIMEOUTS
                others = attempt + 1 < len(self._transport.hosts)  # which have not been asked yet
                if (enough and time.monotonic() > end) or not self._passes(error, errors, others):
                    raise self._told(error, errors) from error
                time.sleep(_PAUSES[min(attempt, len(_PAUSES) - 1)] * random.uniform(0.5, 1))
        raise AssertionError  # an attempt returns or raises

    def _perform(self, method: str, path: str, body: Any, params: dict[str, Any]) -> Any:
        values = {name: _param(value) for name, value in params.items()}
        answer = self._transport.perform_request(method, path, body=body, params=values)
        self._answered = True
        return answer

    def largest_body(self) -> int | None:
        """Bytes that a request may have at every node; None if this user may not know."""
        try:
            nodes = self.request("GET", "/_nodes/http")["nodes"].values()
        except (InputError, ServerError):
            return None
        return min(int(node["http"]["max_content_length_in_bytes"]) for node in nodes if "http" in node)

    def _passes(self, error: Any, errors: Any, others: bool) -> bool:
        if isinstance(error, errors.SSLError):
            return False
        if isinstance(error, errors.ConnectionError):
            return self._answered or others  # a server that was never there is a wrong address
        return error.status_code in PASSING and not is_blocked(error.status_code, error.info)

    def _told(self, error: Any, errors: Any) -> InputError | ServerError:
        place = self.place
        if isinstance(error, errors.SSLError):
            return InputError(
                f"{place}: no encrypted connection: {reason(_cause(error))} (SSL_CERT_FILE names an "
                "authority of your own; a server without TLS is opensearch+http://…)"
            )
        if isinstance(error, errors.ConnectionTimeout):
            return ServerError(f"{place}: no answer in time; ?timeout=… in the address waits longer")
        if isinstance(error, errors.ConnectionError):
            text = f"{place}: no connection: {reason(_cause(error))}"
            return ServerError(text) if self._answered else InputError(f"{text} (is this the address?)")
        if not isinstance(error, errors.TransportError) or not isinstance(error.status_code, int):
            return ServerError(f"{place}: {reason(error)}")
        return complaint(place, error.status_code, error.info)


class NotFoundError(InputError):
    """There is no such index, or no such document."""


def complaint(place: str, status: int, info: Any) -> InputError | ServerError:
    """An error that the server gave, as ours: of the input where another one would do.

    Args:
        place: What it is about.
        status: Of HTTP, or of one item of many.
        info: What the server said.
    """
    kind = kind_of(info)
    said = _reason(info)
    if "clauses" in kind:
        return InputError(
            f"{place}: a query has more tokens, words and filters than the server allows: "
            f"raise {CLAUSES}, or leave small weights out (prune=)"
        )
    if status == 401:
        return InputError(
            f"{place}: the server does not know who asks: set OPENSEARCH_USERNAME and OPENSEARCH_PASSWORD, "
            "OPENSEARCH_API_KEY, or OPENSEARCH_AWS_SERVICE"
        )
    if is_blocked(status, info):
        return ServerError(
            f"{place}: the index is closed for writing, as by a disk that is nearly full ({said}): make room;"
            " it opens by itself, or by index.blocks.read_only_allow_delete"
        )
    text = f"{place}: {kind or status}: {said}"
    if status == 403:
        return InputError(f"{text} (the user may not do that)")
    if status == 404:
        return NotFoundError(text)
    return InputError(text) if 400 <= status < 500 and status not in PASSING else ServerError(text)


def is_blocked(status: Any, info: Any) -> bool:
    """Whether somebody has to lift a block; a cluster that has just started lifts its own (503)."""
    return status != 503 and kind_of(info) == "cluster_block_exception"


def kind_of(info: Any) -> str:
    """The type of an error; of several that a search has from its shards, the one that says why."""
    error = info.get("error", info) if isinstance(info, dict) else None
    kinds = list(_kinds(error))
    telling = [kind for kind in kinds if "clauses" in kind or kind == "cluster_block_exception"]
    return next(iter([*telling, *kinds[1:2], *kinds]), "")


def _kinds(error: Any) -> Iterator[str]:
    """The types of an error and of its causes, from the outside in."""
    if not isinstance(error, dict):
        return
    yield str(error.get("type", ""))
    for inner in [*error.get("root_cause", []), error.get("caused_by")]:
        yield from _kinds(inner)
    for shard in error.get("failed_shards", []):
        yield from _kinds(shard.get("reason"))


def _reason(info: Any) -> str:
    error = info.get("error", info) if isinstance(info, dict) else info
    if isinstance(error, dict):
        inner: Any = error.get("caused_by") or next(iter(error.get("root_cause", [])), {})
        error = (inner.get("reason") if isinstance(inner, dict) else None) or error.get("reason") or error
    return reason(ValueError(str(error)))


def _cause(error: Any) -> BaseException:
    """What a connection died of, of which opensearch-py and urllib3 make a long text."""
    inner = error.info if isinstance(getattr(error, "info", None), BaseException) else error
    deeper = getattr(inner, "reason", None)
    cause: BaseException = deeper if isinstance(deeper, BaseException) else inner
    return cause


def _param(value: Any) -> Any:
    return {True: "true", False: "false"}[value] if isinstance(value, bool) else value


def _credentials(address: Address) -> dict[str, Any]:
    user, password, key, service = (
        os.environ.get(f"OPENSEARCH_{name}") or None
        for name in ("USERNAME", "PASSWORD", "API_KEY", "AWS_SERVICE")
    )
    if (user is None) != (password is None):
        raise InputError("OPENSEARCH_USERNAME and OPENSEARCH_PASSWORD go together: set both, or none")
    given = [one for one in (user, key, service) if one is not None]
    if not given:
        return {}
    if len(given) > 1:
        raise InputError(
            "the environment holds several credentials: set one of OPENSEARCH_USERNAME with "
            "OPENSEARCH_PASSWORD, OPENSEARCH_API_KEY and OPENSEARCH_AWS_SERVICE"
        )
    if not address.tls and not address.is_local:
        raise InputError(
            f"{address}: the environment holds credentials, which plain HTTP would show on the network: "
            "use opensearch://"
        )
    if service is not None:
        return {"http_auth": _aws(service)}
    if key is not None:
        # What does not fit into a header would be shown by the error about it.
        if not (key.isascii() and key.isprintable()):
            raise InputError("OPENSEARCH_API_KEY holds what no key does, such as a line break")
        return {"headers": {"Authorization": f"ApiKey {key}"}}
    both = base64.b64encode(f"{user}:{password}".encode("utf-8", "surrogateescape")).decode()
    return {"headers": {"Authorization": f"Basic {both}"}}


def _trusted() -> ssl.SSLContext:
    """What checks the server's certificate; opensearch-py takes SSL_CERT_DIR for a file."""
    context = ssl.create_default_context()
    if not os.environ.get("SSL_CERT_FILE") and not os.environ.get("SSL_CERT_DIR"):
        context.load_verify_locations(require("certifi", "opensearch").where())
    return context


def _aws(service: str) -> Any:
    if service not in ("es", "aoss"):
        raise InputError(f"OPENSEARCH_AWS_SERVICE must be es or aoss, not {service!r:.40}")
    session = require("botocore.session", "aws").get_session()
    credentials, region = session.get_credentials(), session.get_config_variable("region")
    if credentials is None or region is None:
        raise InputError(
            "OPENSEARCH_AWS_SERVICE is set, but AWS's credentials or region are not: "
            "see `aws configure`, or set AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_DEFAULT_REGION"
        )
    return require("opensearchpy", "opensearch").Urllib3AWSV4SignerAuth(credentials, region, service)
