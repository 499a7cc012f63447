"""Rows that a destination refuses: found by halving the batch, named, and put aside."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import pyarrow as pa

from catchment.errors import PluginError, RowsRefused
from catchment.plugin import Reject
from catchment.schema.table import Table
from catchment.sdk.json_text import to_json_text

SHOWN_CHARACTERS = 300
"""Characters of a row that an error shows."""


def write_around(
    write: Callable[[pa.Table], None], rows: pa.Table, error: RowsRefused
) -> Iterator[tuple[pa.Table, RowsRefused]]:
    """Write `rows` in their order but for those that are refused, which come out one by one, each with its error.

    `error` is what all of them together gave. One bad row among a million takes some forty writes.
    """
    parts: list[tuple[pa.Table, RowsRefused | None]] = [(rows, error)]
    while parts:
        part, refused = parts.pop()
        if refused is None:
            try:
                write(part)
                continue
            except RowsRefused as found:
                refused = found
        if part.num_rows == 1:
            yield part, refused
            continue
        middle = part.num_rows // 2
        parts += [(part.slice(middle), None), (part.slice(0, middle), None)]


def first_refused(probe: Callable[[pa.Table], None], rows: pa.Table) -> tuple[pa.Table, RowsRefused] | None:
    """The first row that is refused, with its error; None if no row is by itself. `probe` leaves nothing behind."""
    while rows.num_rows > 1:
        first = rows.slice(0, rows.num_rows // 2)
        try:
            probe(first)
            rows = rows.slice(first.num_rows)
        except RowsRefused:
            rows = first
    try:
        probe(rows)
    except RowsRefused as found:
        return rows, found
    return None


def described(table: Table, row: pa.Table, error: RowsRefused) -> Reject:
    """A row of `table`, in a table of its own, as what is put aside."""
    missing = (column.name for column in table.columns if column.not_null and row.column(column.name).null_count)
    keys = list(table.primary_keys)
    broken = (name for name in table.column_names if not _is_whole(row.column(name)))
    column = error.column or next(broken, "") or next(missing, "")
    return Reject(_json(row.select(keys)) if keys else "", column, str(error.args[0]), _json(row))


def _is_whole(column: pa.ChunkedArray) -> bool:
    """Whether the values are what their type says, such as UTF-8 where it is text."""
    try:
        column.validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


def too_many(reject: Reject, most: int, error: RowsRefused) -> PluginError:
    """Why the table ends at a row that may not be put aside."""
    shown = f"the row with key {_cut(reject.key)}" if reject.key else f"the row {_cut(reject.row)}"
    column = f", column `{reject.column}`" if reject.column and f"`{reject.column}`" not in reject.error else ""
    many = f" (more than `max_rejects`, {most}, are refused)" if most else ""
    hint = error.hint or "`max_rejects` of the destination says how many such rows are put aside"
    return PluginError(f"{shown}{column} was refused{many}: {reject.error}", hint=hint)


def _json(row: pa.Table) -> str:
    whole = row.combine_chunks()
    try:
        text = to_json_text(whole.to_batches()[0].to_struct_array())[0]
    except (pa.ArrowInvalid, PluginError):
        # A value that is broken, or of a type that has no text, is shown as it lies in memory.
        return json.dumps({name: _shown(whole.column(name)[0]) for name in whole.column_names})
    return str(text.as_buffer().to_pybytes().decode(errors="replace"))


def _shown(value: pa.Scalar) -> str | None:
    if not value.is_valid:
        return None
    if isinstance(value, pa.ExtensionScalar):
        value = value.value
    return repr(value.as_buffer().to_pybytes()) if hasattr(value, "as_buffer") else str(value)


def _cut(text: str) -> str:
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}…"
