"""A look into a ClickHouse database, without the destination."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import clickhouse_connect

Ask = Callable[..., list[tuple[Any, ...]]]


@contextlib.contextmanager
def asking(url: str) -> Iterator[Ask]:
    """Runs statements; gives their rows, if they have any."""
    # `union` alone means what it means elsewhere, for statements that every database gets.
    settings = {"union_default_mode": "DISTINCT"}
    with clickhouse_connect.get_client(
        dsn=url, dedicated_pool=True, autogenerate_session_id=False, settings=settings
    ) as client:

        def ask(statement: str) -> list[tuple[Any, ...]]:
            if statement.lstrip().startswith(("select", "show")):
                return [tuple(row) for row in client.query(statement).result_rows]
            client.command(statement)
            return []

        yield ask
