"""What a sync and a write consist of: the messages that pass between plugins and the engine.

The names and meanings are those of the plugin protocol v3; `Cursor`, `SourceError`, `RowsSkipped`, `ClientDone` and
`ClientRead` are ours and exist in process only.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal, TypeAlias

import pyarrow as pa

from catchment.schema.table import Table


@dataclass(frozen=True, slots=True)
class MigrateTable:
    """Create or change `table` so that its rows fit; it comes before the table's first `Insert`."""

    table: Table
    force: bool = False
    """Whether a change that loses data is allowed (`migrate_mode: forced`)."""
    staged: Table | None = None
    """Where this sync's rows wait until `publish`; `table` is then checked but left as it is."""


@dataclass(frozen=True, slots=True)
class Insert:
    """Rows of one table, in order; `batch` has exactly the table's columns."""

    table: Table
    batch: pa.RecordBatch


@dataclass(frozen=True, slots=True)
class DeleteStale:
    """Delete the rows of `source_name` that are older than `sync_time`."""

    table: Table
    source_name: str
    sync_time: datetime
    clients: tuple[str, ...] | None = None
    """Only rows whose `_cq_client_id` is one of these; None means all of them."""


@dataclass(frozen=True, slots=True)
class Predicate:
    """`column` equals the only value of `value` (an array of length 1)."""

    column: str
    value: pa.Array


@dataclass(frozen=True, slots=True)
class PredicateGroup:
    """Predicates joined by `grouping`; an empty group matches every row."""

    predicates: tuple[Predicate, ...]
    grouping: Literal["and", "or"] = "and"


@dataclass(frozen=True, slots=True)
class TableRelation:
    """`table_name` hangs on `parent_name` by `_cq_parent_id`."""

    table_name: str
    parent_name: str


@dataclass(frozen=True, slots=True)
class DeleteRecord:
    """Delete the rows that match every group of `where` (no group: all rows), and their descendants in `relations`."""

    table_name: str
    where: tuple[PredicateGroup, ...] = ()
    relations: tuple[TableRelation, ...] = ()


@dataclass(frozen=True, slots=True)
class TableError:
    """A table, or one client's share of it, could not be read to its end; rows sent before it stay."""

    table_name: str
    message: str
    client: str = ""


@dataclass(frozen=True, slots=True)
class SourceError:
    """The source had an error that names no table, so none of its tables counts as read to its end."""

    message: str


@dataclass(frozen=True, slots=True)
class RowsSkipped:
    """The source left out `count` rows as its spec allows; the table is then not complete."""

    table_name: str
    count: int
    first_example: str
    client: str = ""


@dataclass(frozen=True, slots=True)
class ClientDone:
    """Every row of `client` in `table_name` has been sent without an error."""

    table_name: str
    client: str


@dataclass(frozen=True, slots=True)
class ClientRead:
    """How the reading of one client's share of a table went, whole or not; it changes nothing."""

    table_name: str
    client: str
    started: float
    """Unix time; that of a child table is when its parent's share began."""
    ended: float
    rows: int


@dataclass(frozen=True, slots=True)
class Cursor:
    """How far an incremental table was read: all rows up to here were sent before this message."""

    table_name: str
    key: str
    """Name of the cursor in the state backend; one table may have several, one per client."""
    value: str


SyncMessage: TypeAlias = (
    MigrateTable | Insert | DeleteRecord | TableError | SourceError | RowsSkipped | ClientDone | ClientRead | Cursor
)
"""What a source yields: every `MigrateTable` first, then the rest in any order of tables."""

WriteMessage: TypeAlias = MigrateTable | Insert | DeleteStale | DeleteRecord
"""What a destination accepts."""
