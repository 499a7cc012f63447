"""Where the database is: a connection string of the Go driver that upstream's plugin uses, taken apart.

Its form is `user:password@tcp(host:3306)/database?name=value`
(https://github.com/go-sql-driver/mysql#dsn-data-source-name); a URL of the scheme `mysql` or `mariadb` is taken too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias
from urllib.parse import parse_qsl, unquote, urlsplit

from pydantic import TypeAdapter, ValidationError

from catchment.sdk import Duration

TLS: TypeAlias = Literal["false", "true", "skip-verify", "preferred"]
_TLS: dict[str, TLS] = {
    "": "preferred",
    "0": "false",
    "false": "false",
    "1": "true",
    "true": "true",
    "skip-verify": "skip-verify",
    "preferred": "preferred",
}
_OF_THE_GO_DRIVER = frozenset({
    "allowallfiles", "allowcleartextpasswords", "allowfallbacktoplaintext", "allownativepasswords", "allowoldpasswords",
    "charset", "checkconnliveness", "clientfoundrows", "collation", "columnswithalias", "compress",
    "connectionattributes", "interpolateparams", "loc", "maxallowedpacket", "multistatements", "parsetime",
    "rejectreadonly", "serverpubkey", "timetruncate",
})  # fmt: skip
"""Options that mean nothing here: text is always utf8mb4, times are always UTC."""
PORT = 3306


@dataclass(frozen=True, slots=True)
class Place:
    """A connection string, taken apart."""

    user: str
    password: str
    database: str
    host: str = "127.0.0.1"
    port: int = PORT
    socket: str = ""
    """Path of a Unix socket, which goes before host and port."""
    tls: TLS = "preferred"
    timeout_s: float = 10.0
    """For connecting."""
    read_timeout_s: float | None = None
    write_timeout_s: float | None = None
    variables: Mapping[str, str] = field(default_factory=dict)
    """Session variables, each with the expression that it is set to."""


def parse(text: str) -> Place:
    """Take a connection string apart. Raises `ValueError` for what is wrong in it, without showing the password."""
    if text.startswith(("mysql://", "mariadb://")):
        return _of_url(text)
    # As the driver does: the last slash, then the last `@` before it, so that a password may hold both.
    head, slash, tail = text.rpartition("/")
    if not slash:
        raise ValueError("it has no `/`; write it as `user:password@tcp(host:3306)/database`")
    database, _, query = tail.partition("?")
    login, _, address = head.rpartition("@")
    user, _, password = login.partition(":")
    found = re.fullmatch(r"([a-z0-9]*)(?:\((.*)\))?", address)
    if found is None:
        raise ValueError("the address before the `/` cannot be read; write it as `tcp(host:3306)`")
    protocol, inner = found[1] or "tcp", found[2] or ""
    if protocol not in ("tcp", "unix"):
        raise ValueError(f"the protocol is one of `tcp`, `unix`, not {protocol!r}")
    host, port = _host(inner) if protocol == "tcp" else ("127.0.0.1", PORT)
    socket = (inner or "/tmp/mysql.sock") if protocol == "unix" else ""
    return _place(user, password, unquote(database), host, port, socket, query)


def _of_url(text: str) -> Place:
    parts = urlsplit(text)
    try:
        host, port = parts.hostname or "127.0.0.1", parts.port or PORT
    except ValueError:
        raise ValueError("the port is a whole number up to 65535; escape an `@` in the password as `%40`") from None
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    return _place(user, password, unquote(parts.path[1:]), host, port, "", parts.query)


def _host(address: str) -> tuple[str, int]:
    found = re.fullmatch(r"(?:\[(?P<six>[^\]]*)\]|(?P<four>[^:]*))(?::(?P<port>\d+))?", address)
    if found is None:
        raise ValueError(f"the address {address!r} cannot be read; write it as `tcp(host:3306)` or `tcp([::1]:3306)`")
    return found["six"] or found["four"] or "127.0.0.1", int(found["port"] or PORT)


def _place(user: str, password: str, database: str, host: str, port: int, socket: str, query: str) -> Place:
    if not database:
        raise ValueError("it names no database; write it behind the last `/`")
    options: dict[str, str] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        options[name] = value
    known = {name.lower(): value for name, value in options.items()}
    tls = known.get("tls", "").lower()
    if tls not in _TLS:
        choices = ", ".join(f"`{name}`" for name in ("true", "false", "skip-verify", "preferred"))
        raise ValueError(f"option `tls` is one of {choices}, not {known['tls']!r}")
    own = _OF_THE_GO_DRIVER | {"tls", "timeout", "readtimeout", "writetimeout"}
    variables = {name: value for name, value in options.items() if name.lower() not in own}
    for name in variables:
        if not re.fullmatch(r"[A-Za-z0-9_.]+", name):
            raise ValueError(f"{name!r} is neither an option nor the name of a session variable")
    return Place(
        user,
        password,
        database,
        host,
        port,
        socket,
        _TLS[tls],
        _seconds(known, "timeout") or 10.0,
        _seconds(known, "readtimeout"),
        _seconds(known, "writetimeout"),
        variables,
    )


def _seconds(options: Mapping[str, str], name: str) -> float | None:
    """A duration; None where it is not set or 0, which is no limit."""
    if not options.get(name):
        return None
    try:
        return TypeAdapter(Duration).validate_python(options[name]) or None
    except ValidationError:
        raise ValueError(f"option `{name}` is a duration such as `30s` or `1m30s`, not {options[name]!r}") from None
