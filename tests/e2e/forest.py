"""A source with families of tables, whose rows and misfortunes a test spells out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyarrow as pa

from catchment.sdk import Context, PluginError, Rows, Source, Spec
from catchment.sdk.source import TableFunction

PARENTS = {"trees": "", "branches": "trees", "leaves": "branches", "stones": "", "moss": "stones", "birds": ""}
KEYED = {"trees", "branches", "moss", "birds"}
SLICED = {"trees", "stones"}
"""Tables at the top that are read client by client."""


class ForestSpec(Spec):
    """The rows of each table, and what goes wrong; a share is `table client`, for `birds` the client is empty."""

    number: int
    """Stands in every row."""
    clients: tuple[str, ...]
    rows: dict[str, tuple[tuple[int, str], ...]]
    """Each an id, and the client or the id of the parent row that it belongs to."""
    refused: dict[str, tuple[int, ...]]
    """Ids of rows that lack a value which they must have."""
    fail_first: tuple[str, ...] = ()
    """Shares that fail before their first row."""
    fail_last: tuple[str, ...] = ()
    """Shares that fail behind their last row."""
    skip: tuple[str, ...] = ()
    """Shares that leave a row out."""
    no_clients: tuple[str, ...] = ()
    """Tables whose clients cannot be listed."""
    dead: bool = False


@dataclass(frozen=True)
class Client:
    """A slice of what there is; the one with the empty id is the source's own."""

    spec: ForestSpec
    id: str = ""


def _open(spec: ForestSpec) -> Client:
    if spec.dead:
        raise PluginError("the forest is gone")
    return Client(spec)


def _clients(table: str, client: Client) -> Sequence[Client]:
    if table in client.spec.no_clients:
        raise PluginError(f"nobody knows the clients of {table}")
    return [Client(client.spec, name) for name in client.spec.clients]


def _read(table: str, ctx: Context[Client]) -> Rows:
    spec, share = ctx.client.spec, f"{table} {ctx.client.id}"
    if share in spec.fail_first:
        raise PluginError(f"{table} broke off at once")
    mine = str(ctx.parent["id"]) if PARENTS[table] else ctx.client.id
    refused = spec.refused.get(table, ())
    yield [
        {"id": number, "owner": owner, "number": None if number in refused else spec.number}
        for number, owner in spec.rows.get(table, ())
        if owner == mine
    ]
    if share in spec.skip:
        ctx.skip_rows(1, "line 7 is unreadable")
    if share in spec.fail_last:
        raise PluginError(f"{table} broke off at the end")


forest = Source("forest", spec=ForestSpec, client=_open)
SCHEMA = pa.schema([("id", pa.int64()), ("owner", pa.utf8()), pa.field("number", pa.int64(), nullable=False)])


def _declare() -> None:
    made: dict[str, TableFunction[Any]] = {}
    for name, parent in PARENTS.items():
        read = partial(_read, name)
        read.__name__ = name  # type: ignore[attr-defined]
        made[name] = forest.table(
            SCHEMA,
            primary_key=["id"] if name in KEYED else [],
            parent=made.get(parent),
            multiplex=partial(_clients, name) if name in SLICED else None,
        )(read)


_declare()
