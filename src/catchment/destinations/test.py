"""test: takes rows and keeps none, and fails as it is told to."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Annotated

import pyarrow as pa
from pydantic import Field, model_validator

from catchment.sdk import BatchSize, BatchSpec, Capabilities, DeleteRecord, Destination, Duration, PluginError, Table
from catchment.sdk.types import matches


class TestSpec(BatchSpec):
    """Spec of the test destination."""

    error_on_write: bool = False
    """Whether every message fails."""
    error_on_migrate: bool = False
    """Whether making tables fails."""
    error_on_insert: bool = False
    """Whether writing rows fails."""
    exit_on_write: bool = False
    """Whether the process ends at the first message, with status 1."""
    exit_on_migrate: bool = False
    """Whether the process ends when a table is made."""
    exit_on_insert: bool = False
    """Whether the process ends when rows are written."""
    batch_writer: bool = False
    """Accepted as upstream has it; there is one writer here."""
    stream_batch_writer: bool = False
    """Accepted as upstream has it; there is one writer here."""
    mixed_batch_writer: bool = False
    """Accepted as upstream has it; there is one writer here."""
    delay: Duration = 0.0
    """How long each write takes."""
    fail_tables: tuple[str, ...] = ()
    """Globs of tables whose writes fail."""
    fail_after_rows: Annotated[int, Field(ge=0)] = 0
    """Rows that a table of `fail_tables` takes before it fails."""

    @model_validator(mode="after")
    def _one_writer(self) -> TestSpec:
        if self.batch_writer + self.stream_batch_writer + self.mixed_batch_writer > 1:
            raise ValueError("batch_writer, stream_batch_writer and mixed_batch_writer exclude each other")
        return self


class Test(Destination[TestSpec]):
    """Discards what it is given."""

    name = "test"
    capabilities = Capabilities(
        safe_changes=frozenset(
            {
                "add_column",
                "add_column_not_null",
                "remove_column",
                "remove_column_not_null",
                "change_type",
                "change_not_null",
                "change_primary_key",
                "remove_unique",
                "move_pk_to_cq_id",
            }
        ),
        delete_records=True,
        readable=False,
        writers=2,
        batch=BatchSize(rows=100_000, size_bytes=50 << 20),
    )

    def __init__(self, spec: TestSpec) -> None:
        super().__init__(spec)
        self._rows: dict[str, int] = {}
        self._lock = threading.Lock()

    def open(self) -> None:
        """Nothing to connect to."""

    def close(self) -> None:
        """Nothing to let go of."""

    def migrate(self, table: Table, *, force: bool) -> None:
        """Accept any table."""
        self._stage("write", "migrate")

    def write(self, table: Table, rows: pa.Table) -> None:
        """Drop rows."""
        self._stage("write", "insert")
        if self.spec.delay:
            time.sleep(self.spec.delay)
        if any(matches(glob, table.name) for glob in self.spec.fail_tables):
            with self._lock:
                written = self._rows[table.name] = self._rows.get(table.name, 0) + rows.num_rows
            if written > self.spec.fail_after_rows:
                raise PluginError(f"fail_tables has table `{table.name}`")

    def delete_stale(
        self, table: Table, *, source_name: str, sync_time: datetime, clients: Sequence[str] | None = None
    ) -> int | None:
        """There are no rows to delete."""
        self._stage("write")
        return 0

    def delete_records(self, message: DeleteRecord) -> None:
        """There are no rows to delete."""
        self._stage("write")

    def read(self, table: Table) -> Iterator[pa.RecordBatch]:
        """No rows."""
        return iter(())

    def _stage(self, *stages: str) -> None:
        for stage in stages:
            if getattr(self.spec, f"exit_on_{stage}"):
                os._exit(1)
            if getattr(self.spec, f"error_on_{stage}"):
                raise PluginError(f"error_on_{stage} is true")
