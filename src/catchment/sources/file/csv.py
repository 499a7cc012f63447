"""Reading CSV files: types from the whole file, errors by line, rows as Arrow.

A file whose types are not all declared is read twice, once for the types and once for the rows: a column's type is
only known after its last value, and tables are made before rows arrive. Both times it passes block by block.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pacsv

from catchment.sdk import PluginError
from catchment.sources.file.blocks import Bad, BadRow, Part, blocks, is_utf8, line_breaks, open_stream, shown
from catchment.sources.file.inference import Inference
from catchment.sources.file.records import Records
from catchment.sources.file.spec import CSVSpec
from catchment.sources.file.text import all_but, convert, typed

_PARSED = (pa.int64(), pa.float64(), pa.date32(), pa.utf8())
"""Types that the parser makes itself, by the rules of `text.convert`; others are made of text."""


class Columns:
    """The columns of some CSV files: names in the order they are met, types that hold every value of all files."""

    def __init__(self, spec: CSVSpec, declared: Mapping[str, pa.DataType]) -> None:
        self._spec = spec
        self._declared = declared
        self._found: dict[str, Inference | None] = {}

    @property
    def schema(self) -> pa.Schema:
        """The union of the files' columns."""
        return pa.schema(
            [
                (name, inference.type if inference is not None else self._declared[name])
                for name, inference in self._found.items()
            ]
        )

    def look(self, path: Path, compression: str | None) -> Sequence[str]:
        """Take a file into account, and give its columns' names."""
        opened = _File(path, self._spec, compression)
        for line, block in opened.blocks():
            # What cannot become anything but text any more is not parsed again.
            open_names = [name for name in opened.names if self._is_open(name)]
            if not open_names:
                break
            if not is_utf8(block):
                block, _ = opened.valid_rows(block, line, lambda row: None)
            kinds = dict.fromkeys(open_names, pa.utf8())
            try:
                arrays = opened.parse(block, kinds)
            except pa.ArrowInvalid:
                arrays = opened.parse(block, kinds, lambda index, fault: None)
            for name, array in zip(open_names, arrays, strict=True):
                inference = self._found[name]
                if inference is not None:
                    inference.look(array)
        for name in opened.names:
            self._is_open(name)
        return opened.names

    def _is_open(self, name: str) -> bool:
        """Whether more values may change the type of a column."""
        if name not in self._found:
            declared = name in self._declared
            self._found[name] = None if declared else Inference(nulls=self._spec.null_values)
        inference = self._found[name]
        return inference is not None and not inference.is_settled


def read(
    path: Path, spec: CSVSpec, compression: str | None, wanted: pa.Schema, names: Sequence[str], bad: Bad
) -> Iterator[Part]:
    """The rows, with the columns of `wanted` that the file has; `names` are the columns it had before."""
    opened = _File(path, spec, compression)
    kinds = {name: wanted.field(name).type for name in names}
    failures = 0
    for line, block in opened.blocks():
        if list(opened.names) != list(names):
            raise PluginError(f"{path}: the columns changed while it was read", hint="run the sync again")
        # Where two blocks needed the longer way, later ones do: quoted nulls, or space around numbers.
        part = _parsed(opened, kinds, line, block) if failures < 2 else None
        failures = 0 if part is not None else failures + 1
        if part is None:
            part = _converted(opened, kinds, line, block, bad)
        yield part


def _parsed(opened: _File, kinds: Mapping[str, pa.DataType], line: int, block: bytes) -> Part | None:
    """A block whose every row is good, the fast way; None if one is not."""
    if not is_utf8(block):
        return None
    direct = {name: kind if kind in _PARSED else pa.utf8() for name, kind in kinds.items()}
    try:
        arrays = opened.parse(block, direct)
    except pa.ArrowInvalid:
        return None
    made = []
    for array, kind in zip(arrays, kinds.values(), strict=True):
        if not array.type.equals(kind):
            array, misfits = convert(array, kind, opened.spec.null_values)
            if misfits:
                return None
        made.append(array)
    batch = pa.RecordBatch.from_arrays(made, names=list(kinds))
    return Part(batch, partial(opened.lines, block, line))


def _converted(opened: _File, kinds: Mapping[str, pa.DataType], line: int, block: bytes, bad: Bad) -> Part:
    """A block with rows that cannot be read, or that may have some: all by way of text."""
    found: list[BadRow] = []
    lines = partial(opened.lines, block, line)
    if not is_utf8(block):
        block, valid = opened.valid_rows(block, line, found.append)
        lines = partial(_itself, valid)
    wrong: dict[int, str] = {}
    texts = opened.parse(block, dict.fromkeys(kinds, pa.utf8()), wrong.__setitem__)
    if wrong:
        known = lines()
        found += [BadRow(opened.path, known[index].as_py(), reason) for index, reason in wrong.items()]
        lines = partial(_itself, known.filter(all_but(wrong, len(known))))
    columns = dict(zip(kinds, texts, strict=True))
    return typed(opened.path, columns, kinds, lines, bad, found=found, nulls=opened.spec.null_values)


def _itself(lines: pa.Array) -> pa.Array:
    return lines


class _File:
    """One CSV file, read once through `blocks`."""

    def __init__(self, path: Path, spec: CSVSpec, compression: str | None) -> None:
        self.path = path
        self.spec = spec
        self.names: tuple[str, ...] = ()
        """The columns; known once `blocks` gave a block or ended, and empty for an empty file."""
        self._compression = compression
        self._records = Records(spec.delimiter, spec.quote)

    def blocks(self) -> Iterator[tuple[int, bytes]]:
        """The rows below the header in pieces, each with its first line."""
        line = 1
        try:
            with open_stream(self.path, self._compression, self.spec.encoding) as stream:
                for line, block, is_whole in blocks(stream, self._records.whole, self.path):
                    if not is_whole:
                        self._check_quotes(block, line)
                    if self.names:
                        yield line, block
                    else:
                        first, rows = self._without_header(line, block)
                        if rows:
                            yield first, rows
        except (OSError, UnicodeError) as error:
            raise PluginError(f"{self.path}:{line} or later: cannot be read: {error}") from error

    def lines(self, block: bytes, line: int) -> pa.Array:
        """The line that each row of `block` starts on."""
        return self._records.starts(block, line)[1]

    def valid_rows(self, block: bytes, line: int, bad: Bad) -> tuple[bytes, pa.Array]:
        """The rows of `block` that are UTF-8, and their lines."""
        offsets, lines = (array.to_pylist() for array in self._records.starts(block, line))
        rows, kept = [], []
        for start, stop, number in zip(offsets, [*offsets[1:], len(block)], lines, strict=True):
            row = block[start:stop]
            if is_utf8(row):
                rows.append(row)
                kept.append(number)
            else:
                text = shown(row.rstrip(b"\r\n"))
                bad(BadRow(self.path, number, f"{text} is not text in {self.spec.encoding}; check `csv.encoding`"))
        return b"".join(rows), pa.array(kept, pa.int64())

    def parse(
        self, block: bytes, kinds: Mapping[str, pa.DataType], bad: Callable[[int, str], None] | None = None
    ) -> list[pa.Array]:
        """The columns of `kinds`; `bad` gets index and fault of each row with too many or too few values.

        Without `bad`, which takes the parser to one thread, such a row raises `pa.ArrowInvalid`, as a value does that
        is not of its kind.
        """

        def note(row: Any) -> str:
            assert bad is not None
            count = f"{row.actual_columns} value{'s' if row.actual_columns != 1 else ''}"
            bad(row.number - 1, f"{count}, expected {row.expected_columns}: {shown(row.text)}")
            return "skip"

        reading = pacsv.ReadOptions(use_threads=bad is None, block_size=len(block) + 1, column_names=list(self.names))
        options = self._options(block, note if bad is not None else None)
        table = pacsv.read_csv(pa.BufferReader(block), reading, options, self._conversion(kinds))
        columns = [table.column(name) for name in kinds]
        return [c.chunk(0) if c.num_chunks == 1 else c.combine_chunks() for c in columns]

    def _options(self, block: bytes, note: Any) -> Any:
        quote = self.spec.quote
        return pacsv.ParseOptions(
            delimiter=self.spec.delimiter,
            quote_char=quote or False,
            newlines_in_values=bool(quote) and quote.encode() in block,
            invalid_row_handler=note,
        )

    def _conversion(self, kinds: Mapping[str, pa.DataType]) -> Any:
        return pacsv.ConvertOptions(
            column_types=dict(kinds),
            include_columns=list(kinds),
            null_values=list(self.spec.null_values),
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
            check_utf8=False,
        )

    def _without_header(self, line: int, block: bytes) -> tuple[int, bytes]:
        """Take the names from the first row of `block`; the first line and the rows below it."""
        offsets, lines = self._records.starts(block, line)
        if not len(offsets):
            return line, b""
        start, stop = offsets[0].as_py(), offsets[1].as_py() if len(offsets) > 1 else len(block)
        self.names = self._names(block[start:stop], lines[0].as_py())
        if not self.spec.header:
            return lines[0].as_py(), block[start:]
        return (lines[1].as_py(), block[stop:]) if len(offsets) > 1 else (line, b"")

    def _names(self, row: bytes, line: int) -> tuple[str, ...]:
        if not is_utf8(row) or b"\0" in row:
            raise PluginError(
                f"{self.path}:{line}: {shown(row)} is no row of text",
                hint="set `csv.encoding`, or `format` and `compression` if this is no plain CSV file",
            )
        reading = pacsv.ReadOptions(
            use_threads=False, block_size=len(row) + 2, autogenerate_column_names=not self.spec.header
        )
        try:
            found = pacsv.read_csv(
                pa.BufferReader(row + b"\n"), reading, self._options(row, None), pacsv.ConvertOptions(check_utf8=False)
            ).column_names
        except pa.ArrowInvalid as error:
            raise PluginError(f"{self.path}:{line}: {error}") from error
        # The index that pandas writes has no name.
        names = tuple(name or f"f{index}" for index, name in enumerate(found))
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise PluginError(
                f"{self.path}:{line}: column {twice[0]!r} is there twice", hint="rename one in the header"
            )
        return names

    def _check_quotes(self, block: bytes, line: int) -> None:
        """Raises `PluginError` if the end of the file is inside a quoted value: all rows from there on are lost."""
        at = self._records.open_quote(block)
        if at >= 0:
            text = shown(block[at:])
            raise PluginError(
                f"{self.path}:{line + line_breaks(block[:at])}: the quote of {text} is never closed",
                hint="close it, or set `csv.quote`",
            )
