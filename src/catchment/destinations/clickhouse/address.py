"""Connection strings as upstream's plugin takes them (https://github.com/ClickHouse/clickhouse-go#dsn), read for HTTP.

That plugin speaks ClickHouse's own protocol on port 9000 (9440 with TLS). Here the same server is reached over HTTP, on
8123 (8443): of the two only HTTP takes and gives Arrow.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, unquote, urlsplit

from pydantic import TypeAdapter, ValidationError

from catchment.sdk import Duration

_HTTP_PORTS = {9000: 8123, 9440: 8443}
"""Port of ClickHouse's own protocol → that of HTTP."""
_PLAIN, _TLS = 8123, 8443
_WITHOUT_EFFECT = {
    "block_buffer_size", "client_info_product", "compress_level", "conn_max_lifetime", "debug",
    "max_compression_buffer", "max_idle_conns", "max_open_conns",
}  # fmt: skip
"""Parameters that tune the Go driver."""
_NO = {"none", "false", "0"}


@dataclass(frozen=True)
class Address:
    """Where a server is, and how it is spoken to."""

    hosts: tuple[tuple[str, int], ...]
    """Servers of which any will do, in the order in which they are tried."""
    user: str = "default"
    password: str = field(default="", repr=False)
    database: str = "default"
    is_secure: bool = False
    is_verified: bool = True
    """Whether the server's certificate is looked at."""
    is_compressed: bool = True
    path: str = ""
    """Path of the HTTP interface, behind a proxy."""
    proxy: str = ""
    """URL of an HTTP proxy."""
    connect_timeout_s: float = 30.0
    read_timeout_s: float = 300.0
    settings: dict[str, str] = field(default_factory=dict)
    """Settings of ClickHouse that go along with every statement."""

    def __str__(self) -> str:
        return ", ".join(f"{host}:{port}" for host, port in self.hosts)


def parse(text: str, *, http_port: int | None = None) -> Address:
    """Read a connection string. Raises `ValueError` for one that cannot be read."""
    try:
        parts = urlsplit(text)
    except ValueError as error:
        raise ValueError(f"expected a DSN: {error}") from None
    if not parts.scheme or not parts.netloc:
        raise ValueError("expected a DSN such as 'clickhouse://user:password@host:9000/database'")
    given = dict(parse_qsl(parts.query, keep_blank_values=True))
    login, _, places = parts.netloc.rpartition("@")
    user, _, password = login.partition(":")
    is_secure = parts.scheme == "https" or ("secure" in given and _is_true(given["secure"] or "true"))
    hosts = [_host(place, http_port, is_secure=is_secure) for place in places.split(",")]
    if given.get("connection_open_strategy") in ("random", "round_robin"):
        random.shuffle(hosts)
    address = Address(
        hosts=tuple(hosts),
        user=given.get("username") or unquote(user) or "default",
        password=given.get("password") or unquote(password),
        database=unquote(parts.path.strip("/")) or given.get("database") or "default",
        is_secure=is_secure,
        is_verified=not _is_true(given.get("skip_verify", "false")),
        is_compressed=_compresses(given, hosts),
        path=given.get("http_path", "").strip("/"),
        proxy=given.get("http_proxy", ""),
        connect_timeout_s=_seconds(given, "dial_timeout", 30.0),
        read_timeout_s=_seconds(given, "read_timeout", 300.0),
        settings={name: _setting(value) for name, value in given.items() if name not in _KNOWN},
    )
    return address


_KNOWN = _WITHOUT_EFFECT | {
    "secure", "username", "password", "database", "skip_verify", "compress", "http_path", "http_proxy", "dial_timeout",
    "read_timeout", "connection_open_strategy",
}  # fmt: skip


def _host(text: str, http_port: int | None, *, is_secure: bool) -> tuple[str, int]:
    try:
        parts = urlsplit(f"//{text}")
        port = parts.port
    except ValueError:
        raise ValueError(f"expected a host and a port, got {text!r}") from None
    if not parts.hostname:
        raise ValueError(f"expected a host, got {text!r}")
    if http_port is not None:
        return parts.hostname, http_port
    if port is None:
        return parts.hostname, _TLS if is_secure else _PLAIN
    return parts.hostname, _HTTP_PORTS.get(port, port)


def _is_true(text: str) -> bool:
    if text.lower() not in ("true", "false", "1", "0", "t", "f"):
        raise ValueError(f"expected `true` or `false`, got {text!r}")
    return text.lower() in ("true", "1", "t")


def _compresses(given: dict[str, str], hosts: list[tuple[str, int]]) -> bool:
    """Whether rows are compressed on the way; on the same machine that costs more than it saves."""
    if "compress" in given:
        return given["compress"].lower() not in _NO
    return any(host not in ("localhost", "127.0.0.1", "::1") for host, _ in hosts)


def _seconds(given: dict[str, str], name: str, default: float) -> float:
    if not given.get(name):
        return default
    try:
        return TypeAdapter(Duration).validate_python(given[name])
    except ValidationError:
        raise ValueError(f"`{name}`: expected a duration such as '30s' or '1h30m', got {given[name]!r}") from None


def _setting(value: str) -> str:
    return {"true": "1", "false": "0"}.get(value.lower(), value)
