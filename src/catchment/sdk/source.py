"""What a source's author writes: a `Source`, and one decorated function per table.

xkcd = Source("xkcd", spec=XkcdSpec, client=lambda spec: Http(spec.base_url))

@xkcd.table(Comic, primary_key=["num"])
def xkcd_comics(ctx: Context[Http]) -> Rows:
    '''Every comic, oldest first.'''
    yield from ctx.client.pages("/comics")
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, TypeVar

import pyarrow as pa

from catchment.errors import PluginError
from catchment.schema.table import Column, Table, validate
from catchment.sdk.rows import Rows
from catchment.spec.fields import Spec

if TYPE_CHECKING:
    from catchment.sdk.scheduler import SourceHost

C = TypeVar("C")
S = TypeVar("S", bound=Spec)


@dataclass(slots=True)
class Context(Generic[C]):
    """What a table function is given."""

    client: C
    """What the source's `client` made, or one of those that `multiplex` made of it."""
    spec: Any
    """The source's spec."""
    log: logging.Logger
    parent: Mapping[str, Any] = field(default_factory=dict)
    """The parent row by column name; empty at the top."""
    cursor: Any = None
    """Largest value of the incremental column that is saved; None at the first sync."""
    skipped: list[tuple[int, str]] = field(default_factory=list)
    """What `skip_rows` noted."""

    def skip_rows(self, count: int, first_example: str) -> None:
        """Tell that `count` rows are left out as the spec allows; the table then keeps its stale rows."""
        self.skipped.append((count, first_example))


Reader: TypeAlias = Callable[[Context[C]], Rows]


@dataclass(frozen=True)
class Discovered(Generic[C]):
    """A table and how it is read, for sources that learn their tables at run time."""

    table: Table
    read: Reader[C]


@dataclass(frozen=True)
class TableFunction(Generic[C]):
    """A table of a source: what `@source.table` makes of a function; stands for the table as `parent=`."""

    table: Table
    read: Reader[C]
    incremental: str = ""
    """Column that tells how far a sync came; empty for none."""
    multiplex: Callable[[C], Iterable[C]] | None = None


class Source(Generic[S, C]):
    """A source plugin: its spec, how to make its client, and its tables."""

    def __init__(self, name: str, *, spec: type[S], client: Callable[[S], C]) -> None:
        self.name = name
        self.spec_type = spec
        self.make_client = client
        self.functions: list[TableFunction[C]] = []
        self.discoverer: Callable[[C], Iterable[Discovered[C]]] | None = None

    def table(
        self,
        schema: type | pa.Schema,
        *,
        primary_key: Sequence[str] = (),
        parent: TableFunction[C] | None = None,
        incremental: str = "",
        multiplex: Callable[[C], Iterable[C]] | None = None,
    ) -> Callable[[Reader[C]], TableFunction[C]]:
        """Declare the function below as a table: its name is the table's, its docstring the description.

        `schema` is a dataclass, a pydantic model or a `pa.Schema`. With `parent` the function is called once per row
        of that table. `multiplex` makes one client per account or region out of the source's client.
        """
        from catchment.sdk.models import columns_of

        def declare(read: Reader[C]) -> TableFunction[C]:
            name = getattr(read, "__name__", "")
            table = Table(
                name=name,
                columns=keyed(name, columns_of(schema), primary_key, incremental),
                description=(read.__doc__ or "").strip(),
                parent=parent.table.name if parent is not None else "",
                is_incremental=bool(incremental),
            )
            function = TableFunction(table, read, incremental, multiplex)
            self.functions.append(function)
            validate([function.table for function in self.functions])
            return function

        return declare

    def discover(self, find: Callable[[C], Iterable[Discovered[C]]]) -> Callable[[C], Iterable[Discovered[C]]]:
        """Declare the function below as the one that finds tables at run time."""
        self.discoverer = find
        return find

    def as_plugin(self) -> SourceHost[S, C]:
        """A new plugin around this source."""
        from catchment.sdk.scheduler import SourceHost

        return SourceHost(self)


def keyed(
    table: str, columns: Iterable[Column], primary_key: Sequence[str], incremental: str = ""
) -> tuple[Column, ...]:
    """`columns` with the named ones marked. Raises `PluginError` for a name that is no column."""
    found = {column.name: column for column in columns}
    for name in (*primary_key, *([incremental] if incremental else [])):
        if name not in found:
            raise PluginError(f"table `{table}`: key column `{name}` is missing, there are {', '.join(found)}")
    return tuple(
        replace(
            column,
            primary_key=name in primary_key or column.primary_key,
            not_null=column.not_null or name in primary_key,
            incremental_key=name == incremental or column.incremental_key,
        )
        for name, column in found.items()
    )
