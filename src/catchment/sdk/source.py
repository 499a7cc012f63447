"""What a source's author writes: a `Source`, and one decorated function per table.

xkcd = Source("xkcd", spec=XkcdSpec, client=lambda spec: Http(spec.base_url))

@xkcd.table(Comic, primary_key=["num"])
def xkcd_comics(ctx: Context[Http]) -> Rows:
    '''Every comic, oldest first.'''
    yield from ctx.client.pages("/comics")
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, TypeVar

import pyarrow as pa

from catchment.errors import PluginError
from catchment.messages import DeleteRecord
from catchment.schema.table import Column, Table, validate
from catchment.schema.types import type_string
from catchment.sdk.cursors import is_orderable
from catchment.sdk.rows import Rows
from catchment.spec.fields import Spec

if TYPE_CHECKING:
    from catchment.sdk.scheduler import SourceHost

C = TypeVar("C")
S = TypeVar("S", bound=Spec)


class FieldLog(logging.LoggerAdapter[logging.Logger]):
    """A logger whose records all carry certain fields, besides those of the call."""

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        """Add the fields."""
        return msg, {**kwargs, "extra": {**(self.extra or {}), **kwargs.get("extra", {})}}


@dataclass(slots=True)
class Context(Generic[C]):
    """What a table function is given."""

    client: C
    """What the source's `client` made, or one of those that `multiplex` made of it."""
    spec: Any
    """The source's spec."""
    log: FieldLog
    """Its records carry the plugin, the table and the client."""
    parent: Mapping[str, Any] = field(default_factory=dict)
    """The parent row by column name; empty at the top."""
    cursor: Any = None
    """Largest value of the incremental column that is saved; None at the first sync. That of a column in nanoseconds,
    which Python has no type for, is an Arrow scalar."""
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
    error: PluginError | None = None
    """Why the columns cannot be told; set by `broken`."""

    @classmethod
    def broken(cls, name: str, error: PluginError) -> Discovered[C]:
        """A table that is there, but whose columns cannot be told: it fails with `error`, the others are read."""

        def read(ctx: Context[C]) -> Rows:
            raise error

        return cls(Table(name, ()), read, error)


@dataclass(frozen=True)
class TableFunction(Generic[C]):
    """A table of a source: what `@source.table` makes of a function; stands for the table as `parent=`."""

    table: Table
    read: Reader[C]
    incremental: str = ""
    """Column that tells how far a sync came; empty for none."""
    multiplex: Callable[[C], Iterable[C]] | None = None
    error: PluginError | None = None
    """Why the columns cannot be told, so that no destination may make or change the table."""


class Source(Generic[S, C]):
    """A source plugin: its spec, how to make its client, and its tables."""

    def __init__(self, name: str, *, spec: type[S], client: Callable[[S], C]) -> None:
        self.name = name
        self.spec_type = spec
        self.make_client = client
        self.functions: list[TableFunction[C]] = []
        self.discoverer: Callable[[C], Iterable[Discovered[C]]] | None = None
        self.deleter: Callable[[C], Iterable[DeleteRecord]] | None = None

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
            if parent is not None and multiplex is not None:
                raise PluginError(
                    f"table `{name}`: a table with a parent is read with the parent's clients, drop `multiplex`"
                )
            table = Table(
                name=name,
                columns=keyed(name, columns_of(schema), primary_key, incremental),
                description=(read.__doc__ or "").strip(),
                parent=parent.table.name if parent is not None else "",
                is_incremental=bool(incremental),
            )
            if incremental:
                _check_incremental(table, incremental, parent.table if parent is not None else None)
            function = TableFunction(table, read, incremental, multiplex)
            self.functions.append(function)
            validate([function.table for function in self.functions])
            return function

        return declare

    def discover(self, find: Callable[[C], Iterable[Discovered[C]]]) -> Callable[[C], Iterable[Discovered[C]]]:
        """Declare the function below as the one that finds tables at run time."""
        self.discoverer = find
        return find

    def deletions(self, tell: Callable[[C], Iterable[DeleteRecord]]) -> Callable[[C], Iterable[DeleteRecord]]:
        """Declare the function below as the one that tells, after all rows were sent, which rows are to be deleted."""
        self.deleter = tell
        return tell

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


def _check_incremental(table: Table, incremental: str, parent: Table | None) -> None:
    kind = table.column(incremental).type
    if not is_orderable(kind):
        raise PluginError(
            f"table `{table.name}`: incremental column `{incremental}` is {type_string(kind)}; "
            "use one of numbers, texts, dates or times"
        )
    if parent is not None and not parent.primary_keys:
        raise PluginError(
            f"table `{table.name}` keeps a cursor for each row of `{parent.name}`, which has no primary key to tell "
            "them apart; declare one, or drop `incremental`"
        )
