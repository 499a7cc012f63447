"""test: passes tables and rows through, and fails as it is told to."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Annotated

import pyarrow as pa
from pydantic import Field

from catchment.sdk import PluginError, Spec, Table, Transformer


class TestSpec(Spec):
    """Spec of the test transformer."""

    fail_immediately: bool = False
    """Whether the first batch fails."""
    fail_after_n_source_records: Annotated[int, Field(ge=0)] = 0
    """Batches that pass before one fails; 0 for none."""
    exit_immediately: bool = False
    """Whether the process ends at the first batch, with status 1."""


class Test(Transformer[TestSpec]):
    """Changes nothing."""

    name = "test"

    def __init__(self, spec: TestSpec) -> None:
        super().__init__(spec)
        self._seen = 0

    def transform_table(self, table: Table) -> Table:
        """The table as it is."""
        return table

    def transform(self, table: Table, batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
        """The batch as it is."""
        self._seen += 1
        if self.spec.exit_immediately:
            os._exit(1)
        limit = self.spec.fail_after_n_source_records
        if self.spec.fail_immediately or (limit and self._seen > limit):
            raise PluginError("failing at the transformer stage according to spec requirements")
        yield batch
