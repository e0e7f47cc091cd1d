"""Where an index is: ``opensearch://host:9200/name``, taken apart and checked."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import parse_qsl, urlsplit

from st_l0.errors import InputError

PORT = 9200
# What a request's path or an index expression could give another meaning is not in here: * , < > % / + : and
# a leading - or _, or a dot, by which hidden indices begin.
_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,199}")
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?")
_FIELD = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")


@dataclass(frozen=True)
class Address:
    """An index on a cluster; `str` gives it as one writes it, without its settings.

    Attributes:
        hosts: Name or IP, and port, of one or more nodes.
        name: Of the index, or the alias.
        tls: Whether the connection is encrypted, and the server's certificate checked.
        vectors: The type of field that a new index has for vectors.
        shards: Of a new index; None: as the server has it.
        replicas: Of a new index; None: as the server has it.
        timeout: Seconds that an answer may take.
        two_phase: Whether searches that do not say are in two phases; see `OpenSearchIndex.search`.
    """

    hosts: tuple[tuple[str, int], ...]
    name: str
    tls: bool
    vectors: Literal["rank_features", "sparse_vector"] = "rank_features"
    shards: int | None = None
    replicas: int | None = None
    timeout: float = 60.0
    two_phase: bool = False

    def __str__(self) -> str:
        hosts = ",".join(f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in self.hosts)
        return f"opensearch{'' if self.tls else '+http'}://{hosts}/{self.name}"

    @classmethod
    def parse(cls, target: str) -> Address:
        """Take an address apart.

        Args:
            target: ``opensearch://HOST[:PORT][,HOST[:PORT]…]/NAME[?shards=…&replicas=…&vectors=…&timeout=…]``;
                ``opensearch+http://…`` for a server without TLS.

        Raises:
            InputError: It is no such address, holds a password, or names what is no single index.
        """
        scheme, _, rest = target.partition("://")
        if scheme not in ("opensearch", "opensearch+http"):
            raise InputError(
                f"{scheme}: no engine of that name; opensearch:// and opensearch+http:// are known"
            )
        nodes, _, tail = rest.partition("/")
        if "@" in rest:
            # Whatever stands before it may be a password, so nothing of it is repeated.
            raise InputError(
                f"{scheme}://…: user and password do not belong into an address, where logs and lists of "
                "processes show them: set OPENSEARCH_USERNAME and OPENSEARCH_PASSWORD"
            )
        name, _, query = tail.partition("?")
        as_name(name)
        hosts = tuple(map(_host, nodes.split(",")))
        return cls(hosts, name, scheme == "opensearch", **_settings(query, f"{scheme}://{nodes}/{name}"))

    @property
    def is_local(self) -> bool:
        """Whether all of it stays on this machine."""
        return all(map(_is_loopback, (host for host, _ in self.hosts)))


def as_name(name: str) -> str:
    """The name of one index.

    Raises:
        InputError: It is none, or could mean others as well.
    """
    if not _NAME.fullmatch(name) or ".." in name:
        raise InputError(
            f"{name!r:.60} is no name of an index: give one of lower-case letters, digits and - _ . inside, "
            "such as opensearch://localhost:9200/papers"
        )
    return name


def as_filter(given: Any) -> list[dict[str, Any]]:
    """The clauses that a filter stands for.

    Args:
        given: Field → the value that it has to have, or several of which it has to have one.

    Raises:
        InputError: It is no such thing, or names what is no field.
    """
    if not isinstance(given, Mapping):
        raise InputError(f"filter must be a dictionary of fields and values, not {given!r:.40}")
    clauses = []
    for field, value in given.items():
        check_field(field)
        values = (
            [value] if isinstance(value, str) else list(value) if isinstance(value, list | tuple) else None
        )
        if values is None or not all(isinstance(one, str) for one in values):
            raise InputError(f"filter: the value of {field!r} must be a string or a list of them")
        clauses.append({"terms": {f"fields.{field}": values}})
    return clauses


def check_field(field: Any) -> None:
    """Refuse what is no name of a field of ours, such as a pattern."""
    if not isinstance(field, str) or not _FIELD.fullmatch(field):
        raise InputError(
            f"{field!r:.60} is no name of a field: give letters, digits, - and _, and dots between"
        )


def _host(given: str) -> tuple[str, int]:
    try:
        parts = urlsplit(f"//{given}")
        host, port = parts.hostname or "", parts.port
    except ValueError:
        host, port = "", None
    try:
        known = bool(_HOST.fullmatch(host)) or bool(ipaddress.ip_address(host))
    except ValueError:
        known = False
    if not known or port == 0:
        raise InputError(f"{given!r:.60} is no host: give one such as localhost:9200")
    return host, port or PORT


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() in ("localhost", "localhost.localdomain") or host.lower().endswith(".localhost")


def _settings(query: str, place: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name not in ("vectors", "shards", "replicas", "timeout", "two_phase"):
            # Its value is not repeated: it may be a key.
            raise InputError(
                f"{place}: {name!r:.40} is no setting of an address; there are vectors, shards, replicas, "
                "timeout and two_phase, and keys and passwords are set in the environment"
            )
        if name in found:
            raise InputError(f"{place}: {name} is given twice")
        if name == "vectors":
            if value not in ("rank_features", "sparse_vector"):
                raise InputError(f"{place}: vectors is rank_features or sparse_vector, not {value!r:.40}")
            found[name] = value
            continue
        if name == "two_phase":
            if value not in ("true", "false"):
                raise InputError(f"{place}: two_phase is true or false, not {value!r:.40}")
            found[name] = value == "true"
            continue
        if not value.isascii() or not value.isdigit() or int(value) < (name != "replicas"):
            raise InputError(f"{place}: {name} must be a whole number, not {value!r:.40}")
        found[name] = int(value)
    return found
