"""Where the rows of CSV text begin and end: a line break inside a quoted value ends no row.

The rules are those of Arrow's parser, which reads the rows afterwards: a quote opens a value only as its first
character, a doubled one inside stands for itself, and text after the closing quote belongs to the value.
"""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass
from functools import cached_property

import pyarrow as pa
import pyarrow.compute as pc

_LINE_FEED, _CARRIAGE_RETURN = (pa.scalar(ord(c), pa.uint8()) for c in "\n\r")


@dataclass(frozen=True)
class Records:
    """Finds rows in text that starts with one."""

    delimiter: str
    quote: str
    """Empty where values are never quoted."""

    def whole(self, block: bytes) -> int:
        """How many bytes of `block` are whole rows."""
        end = b"\n" if b"\n" in block else b"\r"
        if not self._quote or self._quote not in block or end not in block:
            return block.rfind(end) + 1
        positions = self._regular_quotes(block)
        if positions is not None:
            # The last row's end is nearly always behind one of the last quotes.
            count = len(positions)
            found = len(block)
            for number in range(count, max(count - 200, -1), -1):
                start = positions[number - 1].as_py() if number else 0
                at = block.rfind(end, start, found) if number % 2 == 0 else -1
                if at >= 0 or number == 0:
                    return at + 1
                found = start
        codes = _codes(block)
        ends = pc.and_(pc.equal(codes, pa.scalar(end[0], pa.uint8())), self._is_outside(block, codes, positions))
        offsets = pc.indices_nonzero(ends)
        return offsets[-1].as_py() + 1 if len(offsets) else 0

    def starts(self, block: bytes, first_line: int) -> tuple[pa.Array, pa.Array]:
        """Offset and line of each row of `block`, empty lines left out."""
        codes = _codes(block)
        breaks = pc.equal(codes, _LINE_FEED)
        if b"\r" in block:
            following = pa.concat_arrays([breaks.slice(1), pa.array([False])])
            alone = pc.and_not(pc.equal(codes, _CARRIAGE_RETURN), following)
            counted = breaks if b"\n" in block else alone
            breaks = pc.or_(breaks, alone)
        else:
            counted = breaks
        if self._quote and self._quote in block:
            breaks = pc.and_(breaks, self._is_outside(block, codes, self._regular_quotes(block)))
        before = pc.cumulative_sum(counted.cast(pa.int64()), start=first_line)
        ends = pc.indices_nonzero(breaks).cast(pa.int64())
        offsets = pa.concat_arrays([pa.array([0], pa.int64()), pc.add(ends, _one)])
        lines = pa.concat_arrays([pa.array([first_line], pa.int64()), before.take(ends)])
        inside = pc.less(offsets, pa.scalar(len(block), pa.int64()))
        offsets, lines = offsets.filter(inside), lines.filter(inside)
        heads = codes.take(offsets)
        is_row = pc.invert(pc.or_(pc.equal(heads, _LINE_FEED), pc.equal(heads, _CARRIAGE_RETURN)))
        return offsets.filter(is_row), lines.filter(is_row)

    def open_quote(self, block: bytes) -> int:
        """Offset of the quote in `block` that is never closed; -1 if there is none."""
        if not self._quote or self._quote not in block:
            return -1
        last = deque(self._quoted.finditer(block), maxlen=1)
        return last[0].start() if last and not last[0][1] else -1

    @cached_property
    def _quote(self) -> bytes:
        return self.quote.encode()

    @cached_property
    def _quoted(self) -> re.Pattern[bytes]:
        """A quoted value, to its closing quote or the end of the text."""
        quote, delimiter = re.escape(self._quote), re.escape(self.delimiter.encode())
        opening = rb"%b(?:(?<=[%b\r\n]%b)|(?<=\A%b))" % (quote, delimiter, quote, quote)
        content = rb"[^%b]*+(?:%b%b[^%b]*+)*+" % (quote, quote, quote, quote)
        return re.compile(rb"%b%b(%b|\Z)" % (opening, content, quote))

    def _regular_quotes(self, block: bytes) -> pa.Array | None:
        """Offsets of all quotes, if every second one, from the first, opens a value or goes on with one.

        The state after any of them is then told by counting; None where a quote stands inside a plain value.
        """
        codes = _codes(block)
        positions = pc.indices_nonzero(pc.equal(codes, pa.scalar(self._quote[0], pa.uint8())))
        even = len(positions) - len(positions) % 2
        pairs = pa.FixedSizeListArray.from_arrays(positions.slice(0, even), 2)
        opening = pa.concat_arrays([pc.list_element(pairs, 0), positions.slice(even)])
        if len(opening) and opening[0].as_py() == 0:
            opening = opening.slice(1)
        before = codes.take(pc.subtract(opening, pa.scalar(1, pa.uint64())))
        allowed = {self._quote[0], ord(self.delimiter), 10, 13}
        return positions if allowed.issuperset(before.unique().to_pylist()) else None

    def _is_outside(self, block: bytes, codes: pa.Array, regular: pa.Array | None) -> pa.Array:
        """For each byte whether it is outside quotes."""
        if regular is not None:
            # Only whether their number is even matters, so it may run over.
            seen = pc.cumulative_sum(pc.equal(codes, pa.scalar(self._quote[0], pa.uint8())).cast(pa.uint8()))
            return pc.equal(pc.bit_wise_and(seen, pa.scalar(1, pa.uint8())), pa.scalar(0, pa.uint8()))
        marks = bytearray(b"\x01") * len(block)
        for found in self._quoted.finditer(block):
            marks[found.start() : found.end()] = bytes(found.end() - found.start())
        return pc.equal(_codes(bytes(marks)), pa.scalar(1, pa.uint8()))


_one = pa.scalar(1, pa.int64())


def _codes(block: bytes) -> pa.Array:
    """The bytes of `block` as numbers; nothing is copied."""
    return pa.Array.from_buffers(pa.uint8(), len(block), [None, pa.py_buffer(block)])
