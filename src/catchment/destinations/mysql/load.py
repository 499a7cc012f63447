"""Rows into a table by `load data local`, whose text is made column by column; nothing lies in a file.

The server takes rows that do not fit, changed so that they do, unless the statement says `replace`: without it, `local`
implies `ignore` (https://dev.mysql.com/doc/refman/8.0/en/load-data.html#load-data-error-handling).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from catchment.destinations.mysql.connection import Server, run
from catchment.destinations.mysql.types import DIALECT, constant, is_hex, is_plain, to_field
from catchment.sdk import Column, PluginError, RowsRefused

ROWS_AT_ONCE = 8_192
"""Rows that are encoded at once: small enough that the server never waits for the encoder."""
BYTES_AT_ONCE = 32 << 20
"""The same for wide rows, in bytes of memory."""
CONSTANT_BYTES = 4 << 10
"""Bytes of a value up to which it may stand in the statement."""
PACKET_BYTES = 256 << 10
"""Bytes of a packet; a server may be set up to take no more than a megabyte."""


def load(connection: Any, server: Server, target: str, columns: Sequence[Column], rows: pa.Table) -> int:
    """Add rows to a table, or replace those of equal keys, in their order; by how many rows the table grew.

    Raises `RowsRefused` if a value does not fit, in which case the caller has to roll back.
    """
    for column, values in zip(columns, rows.columns, strict=True):
        # MySQL 8 would remember that it refused a null, and then refuse the next statement's good row as one.
        if values.null_count and (column.primary_key or column.not_null):
            raise RowsRefused(f"column `{column.name}` is null in a row, and must not be", column=column.name)
    constants = _constants(columns, rows)
    varying = [column for column in columns if column.name not in constants] or list(columns)
    sets = {column.name: f"unhex(@f{place})" for place, column in enumerate(varying) if is_hex(column.type)}
    fields = ", ".join(
        f"@f{place}" if column.name in sets else DIALECT.quote(column.name) for place, column in enumerate(varying)
    )
    sets |= {name: literal for name, literal in constants.items() if all(c.name != name for c in varying)}
    statement = (
        f"load data local infile 'catchment' replace into table {DIALECT.table(target)} character set utf8mb4 "
        f"fields terminated by '\\t' escaped by '\\\\' lines terminated by '\\n' ({fields})"
    )
    if sets:
        statement += f" set {', '.join(f'{DIALECT.quote(name)} = {value}' for name, value in sets.items())}"
    rows = rows.select([column.name for column in varying])
    columns = varying
    records, deleted, skipped, warnings = _sent(connection, statement, lines(server, columns, rows))
    if warnings or skipped or records != rows.num_rows:
        told = [" ".join(str(text).split()) for _, _, text in run(connection, "show warnings limit 3")]
        raise RowsRefused("; ".join(told) or f"of {rows.num_rows:,} rows the server took {records - skipped:,}")
    return records - deleted


def _constants(columns: Sequence[Column], rows: pa.Table) -> dict[str, str]:
    """Columns that have one value in all rows, as those of the engine do, which is said once; the value as SQL."""
    found = {}
    for column, values in zip(columns, rows.columns, strict=True):
        if values.null_count == len(values):
            found[column.name] = "null"
        elif not column.primary_key and not values.null_count and is_plain(column.type):
            first = values.slice(0, 1).combine_chunks()
            # Most columns that vary do so in their first rows.
            same = all(pc.all(pc.equal(part, first[0])).as_py() for part in (values.slice(0, 64), values))
            if same and first.nbytes <= CONSTANT_BYTES:
                found[column.name] = constant(first, column)
    return found


def lines(server: Server, columns: Sequence[Column], rows: pa.Table) -> Iterator[memoryview]:
    """The text of the rows, in pieces that are packets."""
    step = max(min(ROWS_AT_ONCE, int(BYTES_AT_ONCE / max(rows.nbytes / max(rows.num_rows, 1), 1.0))), 1)
    tab, end, nothing = (pa.scalar(text, pa.binary()) for text in (b"\t", b"\n", b""))
    for batch in rows.to_batches(step):
        fields = [to_field(array, column, server) for array, column in zip(batch.columns, columns, strict=True)]
        fields[-1] = pc.binary_join_element_wise(fields[-1], end, nothing)
        joined = pc.binary_join_element_wise(*fields, tab) if len(fields) > 1 else fields[0]
        ends = pa.Array.from_buffers(pa.int32(), len(joined) + 1, [None, joined.buffers()[1]], offset=joined.offset)
        text = memoryview(joined.buffers()[2])[ends[0].as_py() : ends[-1].as_py()]
        for start in range(0, len(text), PACKET_BYTES):
            yield text[start : start + PACKET_BYTES]


def _sent(connection: Any, statement: str, packets: Iterator[memoryview]) -> tuple[int, int, int, int]:
    """Execute the statement with those packets; the rows that it read, deleted and skipped, and the warnings.

    The driver would read whatever file the server names, which a server that lies could make use of. So the driver was
    told not to, and what the server asks for is sent from here, whatever it names.
    """
    from pymysql.constants import COMMAND
    from pymysql.protocol import OKPacketWrapper

    connection._execute_command(COMMAND.COM_QUERY, statement)
    asked = connection._read_packet()
    if not asked.is_load_local_packet():
        raise PluginError("the server asked for no rows where it should have")
    try:
        for packet in packets:
            connection.write_packet(packet)
    finally:
        # Also after an error: the server waits for it, and the caller rolls back.
        if connection.open:
            connection.write_packet(b"")
            answer = connection._read_packet()
    done = OKPacketWrapper(answer)
    connection.server_status = done.server_status
    # Words differ by the server's language; the numbers are the last four.
    records, deleted, skipped, warnings = (int(found) for found in re.findall(rb"\d+", done.message)[-4:])
    return records, deleted, skipped, max(warnings, done.warning_count)
