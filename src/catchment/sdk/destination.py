"""What a destination's author writes: one class with migrate, write, delete_stale and read.

`catchment.sdk.writer` turns such a class into the message-level plugin that the engine drives.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, ClassVar, Generic, TypeVar, get_args, get_origin

import pyarrow as pa

from catchment.errors import Unsupported
from catchment.messages import DeleteRecord
from catchment.plugin import Capabilities, Measure, Published, Swap, TablePreview
from catchment.schema.table import Table
from catchment.spec.fields import Spec

if TYPE_CHECKING:
    from catchment.sdk.writer import DestinationHost

S = TypeVar("S", bound=Spec)


class Destination(ABC, Generic[S]):
    """A place that tables are written to.

    Subclass it as `class Mine(Destination[MineSpec])`, set `name` and `capabilities`, and write the five methods
    without a default. Calls for one table come in order and never two at once (but see `parallel_appends`); calls for
    different tables come from up to `capabilities.writers` threads, from one thread at a time if that is 1. There are
    no write modes here: a table with primary keys means replace rows of equal key, a table without means add.

    Raise `Transient` for what may pass, if nothing of the call took effect: the call is repeated with back-off.
    Anything else that is raised ends the table. Never swallow an error, never drop a row.
    """

    name: ClassVar[str]
    """Name in a config, such as `duckdb`."""
    capabilities: Capabilities = Capabilities()
    """What it can do; `__init__` may set another one that depends on the spec."""
    spec_type: ClassVar[type[Spec]]
    """Taken from the class's type argument."""

    def __init__(self, spec: S) -> None:
        self.spec: S = spec

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        for origin in cls.__dict__.get("__orig_bases__", ()):
            if get_origin(origin) is Destination and isinstance(get_args(origin)[0], type):
                cls.spec_type = get_args(origin)[0]

    @classmethod
    def as_plugin(cls) -> DestinationHost:
        """The message-level plugin around a new, not yet opened object of this class."""
        from catchment.sdk.writer import DestinationHost

        return DestinationHost(cls)

    @abstractmethod
    def open(self) -> None:
        """Connect; called once, before anything else. Raises `PluginError` naming what could not be reached."""

    @abstractmethod
    def close(self) -> None:
        """Let go of connections; called once, also after a failed `open`."""

    @abstractmethod
    def migrate(self, table: Table, *, force: bool) -> None:
        """Create `table`, or change it so that its rows fit. Raises `MigrationRefused` for an unsafe change.

        A column that is no longer in `table` stays and becomes null in new rows. With `force` every change that
        `capabilities` allows is made. A table that fits already is left alone.
        """

    @abstractmethod
    def write(self, table: Table, rows: pa.Table) -> None:
        """Add `rows`, or replace those of equal primary key; on return they are in, or an error was raised and none is.

        `rows` has the columns of `table` in its order, is never empty, and comes in chunks as the source sent them.
        Of rows with equal keys the last one wins. A destination that gathers rows until `flush` says so by
        overriding `flush`.
        """

    @abstractmethod
    def delete_stale(
        self, table: Table, *, source_name: str, sync_time: datetime, clients: Sequence[str] | None = None
    ) -> int | None:
        """Delete rows of `source_name` older than `sync_time` (UTC), with `clients` only theirs; how many, if known."""

    @abstractmethod
    def read(self, table: Table) -> Iterator[pa.RecordBatch]:
        """All rows of `table` in no order: its columns in its order, null where the database has no such column.

        Types are those of `table`, except where `capabilities.stored_as` declares another. Timestamps are UTC.
        """

    def stored_table(self, name: str) -> Table | None:
        """The table of this name as the database has it, with types that `read` takes and gives; None if missing.

        Override it where the columns can be found out: `catchment.read` then works without a source's config.
        """
        raise Unsupported(f"destination `{self.name}` cannot tell the columns of its tables")

    def stored_names(self) -> Sequence[str]:
        """Names of the tables that are there, for the hint where one is misspelt; the default knows none."""
        return ()

    def stream(self, table: Table, batches: Iterator[pa.RecordBatch]) -> None:
        """As `write` into a table without keys, for rows of which more come while the call runs.

        Override it where one long statement beats many: a full batch is then its beginning, unless the spec sets
        limits, and the iterator waits for what follows. All of it is in on return, or an error was raised and none is.
        """
        raise Unsupported(f"destination `{self.name}` takes whole batches only")

    def probe(self, table: Table, rows: pa.Table) -> None:
        """As `write`, but all of it is taken back; called if `capabilities.rejects`, to find a row that is refused."""
        raise Unsupported(f"destination `{self.name}` cannot take a write back")

    def flush(self, tables: Sequence[Table]) -> None:
        """Make every accepted row of `tables` durable; the default has nothing to do, as `write` did it."""

    def delete_records(self, message: DeleteRecord) -> None:
        """Delete rows by predicate, and their descendants; only called if `capabilities.delete_records`."""
        raise Unsupported(f"destination `{self.name}` cannot delete single records")

    def stage(self, table: Table, staged: Table, *, force: bool) -> None:
        """Check that `table` may be changed as `migrate` would, leave it alone, and make `staged` for its rows.

        `staged` has the columns of `table` without keys and a name of `catchment.schema.internal.staging_name`.
        Left-overs of runs that are gone are removed. Only called if `capabilities.publish` is not `none`.
        """
        raise Unsupported(f"destination `{self.name}` cannot stage tables; use `publish: stream`")

    def publish(self, swaps: Sequence[Swap]) -> Mapping[str, Published]:
        """Make staged tables visible, all or nothing, with their keys; of equal keys the last row wins.

        Afterwards the staged tables are gone. By name of the live table.
        """
        raise Unsupported(f"destination `{self.name}` cannot publish staged tables; use `publish: stream`")

    def discard(self, staged: Sequence[Table]) -> None:
        """Remove staged tables that will not be published; a missing one is no error."""

    def preview(self, tables: Sequence[Table], *, force: bool) -> Sequence[TablePreview]:
        """What `migrate` would do to each table, without doing any of it; for `catchment plan`.

        May be called before `open`, which it must not call if that makes something; what it opens it closes. The
        default knows nothing: override it where there is a catalogue to look into.
        """
        return [TablePreview("unknown", reason=f"`{self.name}` cannot tell what is there") for _ in tables]

    def measure(
        self, table: Table, measures: Sequence[Measure], *, keys: Sequence[str], source_name: str
    ) -> Sequence[int]:
        """Numbers of rows, for `expect` and `max_stale_ratio`; only called if `capabilities.measures`.

        For SQL databases `catchment.sdk.measures` puts the questions.
        """
        raise Unsupported(f"destination `{self.name}` cannot count what it holds")

    def test_connection(self) -> None:
        """Raises `PluginError` when the destination cannot be used; the default opens and closes."""
        self.open()
        self.close()
