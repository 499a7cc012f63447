"""The faces of a source, a destination and a transformer, as the engine sees them.

A plugin written with the SDK and a remote one behind gRPC both have them, so the engine cannot tell which it
drives. Nothing here is needed to write a plugin: authors use `catchment.sdk`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Literal, Protocol, TypeAlias

import pyarrow as pa

from catchment.channel import Budget
from catchment.errors import PluginError
from catchment.messages import Cursor, Insert, SyncMessage, WriteMessage
from catchment.schema.changes import ChangeKind, Safety
from catchment.schema.select import Selection
from catchment.schema.table import Table

WriteMode: TypeAlias = Literal["overwrite-delete-stale", "overwrite", "append"]
Publishing: TypeAlias = Literal["none", "table", "sync"]
PreviewAction: TypeAlias = Literal["none", "create", "alter", "recreate", "refused", "unknown"]


def stored_unchanged(data_type: pa.DataType) -> pa.DataType:
    """The type itself: what a destination that keeps every Arrow type declares."""
    return data_type


def null_for_null(data_type: pa.DataType) -> bool:
    """No: what a destination that keeps every null declares."""
    return False


@dataclass(frozen=True, slots=True)
class BatchSize:
    """How much a destination likes to be given at once; what its spec sets goes before this."""

    rows: int = 0
    """Rows after which a batch is written; 0 means no limit."""
    size_bytes: int = 0
    """Bytes in memory after which a batch is written; 0 means no limit."""
    timeout_s: float = 0.0
    """Seconds after which a started batch is written; 0 means no limit."""


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a destination can do; the engine refuses a config that asks for more, the docs print it all."""

    write_modes: frozenset[WriteMode] = frozenset({"append", "overwrite", "overwrite-delete-stale"})
    """Write modes that work."""
    safe_changes: frozenset[ChangeKind] = frozenset()
    """Changes of a table that lose nothing here, so `migrate_mode: safe` makes them."""
    forced_changes: frozenset[ChangeKind] | None = None
    """Changes that `migrate_mode: forced` makes as well; None means every change, by making the table anew."""
    kept_when_forced: frozenset[ChangeKind] = frozenset()
    """Of the forced changes, those that keep the rows that are there."""
    delete_records: bool = False
    """Whether single rows can be deleted by a predicate, their descendants with them."""
    publish: Publishing = "none"
    """`none`: rows are visible as they come; `table`: each table at once; `sync`: all tables of a sync at once."""
    readable: bool = True
    """Whether `read` gives back what was written."""
    max_identifier_bytes: int = 0
    """Longest table or column name in bytes of UTF-8; 0 means no limit."""
    rejects: bool = False
    """Whether `write` raises `RowsRefused` for rows that do not fit, so that they can be put aside one by one."""
    measures: bool = False
    """Whether it can count rows of what it holds by `measure`, as `expect` and `max_stale_ratio` need."""
    deletes_by_client: bool = True
    """Whether stale rows of some clients of a source can be deleted, and those of others kept."""
    confirms_at_end: bool = False
    """Whether only the last `flush` of a session makes rows durable, so that it must not be called before."""
    writers: int = 1
    """Tables that may be written at once."""
    parallel_appends: bool = False
    """Whether several batches of one table without keys may be written at once."""
    batch: BatchSize = BatchSize(rows=10_000, size_bytes=5 << 20, timeout_s=20.0)
    """What the destination is given at once where the config sets nothing."""
    stored_as: Callable[[pa.DataType], pa.DataType] = field(default=stored_unchanged)
    """The type that `read` gives back for a column of the given type."""
    empty_for_null: Callable[[pa.DataType], bool] = field(default=null_for_null)
    """Whether a null of the given type comes back as an empty list or map, or as a struct of nulls."""


@dataclass(frozen=True, slots=True)
class Swap:
    """One table to publish: `staged` holds this sync's rows without keys, `table` is what readers see."""

    table: Table
    staged: Table
    source_name: str
    sync_time: datetime
    keep: Literal["other_sources", "all"] = "other_sources"
    """Which rows of the live table stay besides those whose keys come anew: other sources' only (this source's stale
    rows go), or all (nothing is deleted: the fetch had errors)."""
    parent: str = ""
    """Live table that `_cq_parent_id` points to, where rows that stay may have lost theirs; empty elsewhere."""


@dataclass(frozen=True, slots=True)
class Published:
    """What publishing one table did, in rows."""

    stale_deleted: int | None = None
    """Rows of this source that are gone; None where the destination cannot tell."""
    stale_kept: int | None = None
    """Rows of this source from earlier syncs that stayed; None where the destination cannot tell."""
    orphans: int | None = None
    """Rows that point to no row of `Swap.parent`; None where nobody asked, or the destination cannot tell."""


@dataclass(frozen=True, slots=True)
class Measure:
    """A number of rows that a destination is asked for."""

    kind: Literal["rows", "nulls", "duplicates", "others", "newer", "older", "absent"]
    """All of them; those where `column` is null; those whose value in `column` another row has; those with a value that
    is none of `values`; those that are at least, or less than, `values[0]`; those whose keys are not in `other`."""
    column: str = ""
    values: tuple[pa.Scalar, ...] = ()
    """Of the column's type."""
    other: str = ""
    """Name of a table with the same keys."""


@dataclass(frozen=True, slots=True)
class PreviewedChange:
    """One difference between a table as it is and as it is wanted."""

    kind: ChangeKind | Literal["change_layout"]
    """`change_layout`: rows are to be sorted or parted in another way."""
    column: str
    """Empty where it is about all of them."""
    text: str
    """What it is, and what becomes of it where that is not plain, for people."""
    safety: Safety


@dataclass(frozen=True, slots=True)
class TablePreview:
    """What migrating one table would do."""

    action: PreviewAction
    """`none`: the table is left as it is; `recreate`: it is dropped and made anew; `refused`: an error would be raised
    and nothing done; `unknown`: the destination has nothing that it could look at."""
    changes: tuple[PreviewedChange, ...] = ()
    """With `none` those that need nothing done, such as a column that is gone and stays."""
    reason: str = ""
    """Why it is `refused` or `unknown`."""
    hint: str = ""
    """What to do about a table that is `refused`."""
    rows: int | None = None
    """Rows that are in the table, of every source, as the catalogue estimates them; None where it does not say."""
    dependents: tuple[str, ...] = ()
    """Views and the like that hang on a table that is, or would have to be, made anew."""
    when_published: TablePreview | None = None
    """The same where rows are staged and then published, if that makes a change which a live table does not get."""

    def refused(self, error: PluginError) -> TablePreview:
        """The same table, on which `migrate` would raise `error`."""
        return replace(self, action="refused", reason=str(error.args[0]), hint=error.hint)


@dataclass(frozen=True, slots=True)
class Reject:
    """A row that a destination refused, as it is put aside."""

    key: str
    """The row's keys as a JSON object; empty where it has none."""
    column: str
    """The column at fault; empty where the destination does not say."""
    error: str
    row: str
    """All of it as a JSON object."""


@dataclass(slots=True)
class WriteStats:
    """What became of one table's rows in a session."""

    rows: int = 0
    """Rows that are durable."""
    rows_taken: int = 0
    """Rows that the destination has taken so far, durable or not; what progress shows."""
    size_bytes: int = 0
    """Bytes of those rows in memory."""
    seconds: float = 0.0
    """Seconds spent inside the destination."""
    stale_deleted: int | None = None
    rejects: Sequence[Reject] = ()
    """Rows that were refused and left out."""
    error: str = ""
    """Why the table failed; empty while it has not."""
    ended: float = 0.0
    """Unix time at which the last call for the table returned; 0 where that is not known."""


@dataclass(frozen=True, slots=True)
class Backend:
    """Where cursors are kept: a table of a destination that is open already."""

    destination: DestinationPlugin
    table_name: str
    scope: str = ""
    """What tells the cursors of sources that share the table apart: the source's name."""
    connection: Callable[[], str] = str
    """Where another process reaches the destination, for sources that keep their cursors themselves."""


@dataclass(frozen=True, slots=True)
class SyncRequest:
    """What a source is asked to send."""

    selection: Selection
    deterministic_cq_id: bool | None = None
    """None where the config does not say: ids are then made from keys where child tables refer to them."""
    client_id_column: bool = False
    backend: Backend | None = None
    shard: tuple[int, int] | None = None
    """This shard's number, from 1, and how many there are."""
    stop_on_error: bool = False
    """Whether the first failed table ends the sync (`on_error: stop`)."""
    idle_s: float | None = None
    """Seconds without a word after which tables that are not read to their end have failed (`timeouts.idle`)."""


class SourcePlugin(Protocol):
    """A source as the engine sees it. One thread calls it; `sync` may use more inside."""

    @property
    def name(self) -> str:
        """Name of the plugin, such as `postgresql`."""

    @property
    def secrets(self) -> frozenset[str]:
        """Values of the spec that must not be shown; known once `init` has taken it, even if it then failed."""

    def init(self, spec: Mapping[str, Any], *, no_connection: bool = False, invocation_id: str = "") -> None:
        """Take the spec; with `no_connection` only to list tables. Raises `SpecError` for a wrong one."""

    def tables(self, selection: Selection) -> Sequence[Table]:
        """The selected tables, parents before children."""

    def unreadable(self, selection: Selection) -> Mapping[str, str]:
        """The selected tables whose columns cannot be told, which `tables` leaves out, each with the reason."""

    def sync(self, request: SyncRequest) -> Iterator[SyncMessage]:
        """All migrate messages, then rows, errors and cursors. Raises `PluginError` when the whole source fails."""

    def acknowledge(self, cursors: Sequence[Cursor]) -> None:
        """Called once all rows before these cursors are durable in every destination; saves them in the backend."""

    def interrupt(self) -> None:
        """Have a running `sync` that says nothing end; called from another thread, which then closes its iterator."""

    def test_connection(self) -> None:
        """Raises `PluginError` when the source cannot be reached."""

    def close(self) -> None:
        """Let go of connections; also after a failed `init`."""


class WriteSession(Protocol):
    """The writing of one source's sync into one destination. One thread calls it."""

    def write(self, message: WriteMessage) -> None:
        """Accept a message; blocks while the destination is behind.

        Raises `PluginError` when the message's table has failed (now or before; its rows are then no longer taken),
        `PluginLost` when the destination is gone.
        """

    def flush(self) -> None:
        """Return when all that was accepted is durable, or its table's error stands in `stats`. Raises `PluginLost`."""

    def publish(self, swaps: Sequence[Swap]) -> Mapping[str, Published]:
        """Make the staged tables visible together; by name of the live table. All or nothing: raises `PluginError`."""

    def stats(self) -> Mapping[str, WriteStats]:
        """What is durable so far, by table name (the staged name while staged)."""

    def close(self) -> None:
        """End the session: what is not flushed is dropped, staged tables of it are removed."""


class DestinationPlugin(Protocol):
    """A destination as the engine sees it: initialised once a run, one session per source."""

    @property
    def name(self) -> str:
        """Name of the plugin, such as `duckdb`."""

    @property
    def capabilities(self) -> Capabilities:
        """What it can do; may depend on the spec, so ask after `init`."""

    @property
    def secrets(self) -> frozenset[str]:
        """Values of the spec that must not be shown; known once `init` has taken it, even if it then failed."""

    def init(self, spec: Mapping[str, Any], *, no_connection: bool = False, invocation_id: str = "") -> None:
        """Take the spec and connect, unless `no_connection`. Raises `SpecError`, or `PluginError` if it cannot."""

    def session(self, budget: Budget, *, max_rejects: int = 0) -> WriteSession:
        """Begin to write; several sessions may be open at once. A table ends at a refused row over `max_rejects`."""

    def read(self, table: Table) -> Iterator[pa.RecordBatch]:
        """Rows of `table` in no order, columns and order as in `table`, types as `capabilities.stored_as` says."""

    def stored_table(self, name: str) -> Table | None:
        """The table of this name that is there, with columns that `read` gives; None if there is none.

        Raises `Unsupported` where the destination cannot tell the columns of what it keeps.
        """

    def stored_names(self) -> Sequence[str]:
        """Names of the tables that are there, for whoever misspelt one; empty where they cannot be listed."""

    def preview(self, tables: Sequence[Table], *, force: bool) -> Sequence[TablePreview]:
        """What migrating each table would do; nothing is changed or made, not even a database that is missing.

        Asked after `init`, with or without a connection; raises `PluginError` where a sync could not begin either.
        """

    def measure(
        self, table: Table, measures: Sequence[Measure], *, keys: Sequence[str], source_name: str
    ) -> Sequence[int]:
        """A number for each measure of the rows of `source_name` (empty: of all), rows of equal `keys` counting once.

        Only called if `capabilities.measures`; `table` may be a staged one.
        """

    def test_connection(self) -> None:
        """Raises `PluginError` when the destination cannot be reached."""

    def close(self) -> None:
        """Let go of connections; also after a failed `init`."""


class TransformerPlugin(Protocol):
    """A transformer as the engine sees it: a table and its batches in, a table and batches out."""

    @property
    def name(self) -> str:
        """Name of the plugin."""

    @property
    def secrets(self) -> frozenset[str]:
        """Values of the spec that must not be shown; known once `init` has taken it, even if it then failed."""

    def init(self, spec: Mapping[str, Any], *, invocation_id: str = "") -> None:
        """Take the spec. Raises `SpecError` for a wrong one."""

    def transform_table(self, table: Table) -> Table:
        """The table that comes out for `table`; the same answer every time."""

    def transform(self, table: Table, batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
        """Batches of `transform_table(table)` for one batch of `table`; others may follow from `collect`."""

    def collect(self, *, last: bool = False) -> Iterator[Insert]:
        """What has come out since, of any table, each as `transform_table` made it; asked after every `transform`.

        With `last` no batch follows: it waits for what the transformer still holds back.
        """

    def close(self) -> None:
        """Let go of what it holds."""


Plugin: TypeAlias = SourcePlugin | DestinationPlugin | TransformerPlugin
Kind: TypeAlias = Literal["source", "destination", "transformer"]


class PluginFactory(Protocol):
    """What an entry point names: an object that makes a fresh plugin."""

    def as_plugin(self) -> Plugin:
        """A new plugin, not yet initialised."""


def kind_of(plugin: Plugin) -> Kind:
    """What a plugin is, told by what it can do."""
    if hasattr(plugin, "sync"):
        return "source"
    return "destination" if hasattr(plugin, "session") else "transformer"
