"""Which type the texts of a column have, found without guessing: a type is taken if it holds every text exactly."""

from __future__ import annotations

from collections.abc import Iterable

import pyarrow as pa
import pyarrow.compute as pc

from catchment.sources.file.text import TIMESTAMP, converted, without

_WORDS = pa.array(["true", "false", "True", "False", "TRUE", "FALSE"])
# Of the texts that Arrow takes for a float, those that look odd have to look like this: zeros in front are no number,
# and whole numbers of more than 15 digits are not taken, as a float64 does not hold them all.
_FLOAT = r"^-?((0|[1-9][0-9]{0,14})|(0|[1-9][0-9]*)(\.[0-9]*([eE][+-]?[0-9]+)?|[eE][+-]?[0-9]+))$"

EXACT = 10**15
"""Whole numbers up to this one are exact as float64 too."""

# What a column may become once it holds a value of a type, the narrowest first; all else is text. Blocks that were
# looked at are not looked at again, so only what is surely true of them as well may follow.
_WIDER: dict[pa.DataType | None, tuple[pa.DataType, ...]] = {
    None: (pa.bool_(), pa.int64(), pa.float64(), pa.date32(), TIMESTAMP),
    pa.bool_(): (pa.bool_(),),
    pa.int64(): (pa.int64(), pa.float64()),
    pa.float64(): (pa.float64(),),
    pa.date32(): (pa.date32(), TIMESTAMP),
    TIMESTAMP: (TIMESTAMP,),
    pa.utf8(): (),
}
_ONE, _FIFTEEN = (pa.scalar(number, pa.int32()) for number in (1, 15))
_MOMENTS = (pa.date32(), TIMESTAMP)


class Inference:
    """Finds the narrowest type that takes every text of a column: leading zeros and numbers too long stay text."""

    def __init__(self, *, only_moments: bool = False, nulls: Iterable[str] = ()) -> None:
        self._kind: pa.DataType | None = None
        self._nulls = tuple(nulls)
        self._only_moments = only_moments
        self._is_exact = True
        self._has_number = False

    @property
    def type(self) -> pa.DataType:
        """The type; text for a column without a value."""
        words_only = self._kind is not None and pa.types.is_floating(self._kind) and not self._has_number
        return pa.utf8() if self._kind is None or words_only else self._kind

    @property
    def is_settled(self) -> bool:
        """Whether no further text can change the type."""
        return self._kind is not None and pa.types.is_string(self._kind)

    def look(self, texts: pa.Array) -> None:
        """Take a block of the column into account."""
        if self.is_settled or texts.null_count == len(texts):
            return
        kind = self._narrowest(texts)
        if pa.types.is_string(kind) and self._nulls:
            # A quoted text that means null elsewhere: in a column of numbers or dates it can mean nothing else.
            cleaned = without(texts, self._nulls)
            if cleaned.null_count == len(cleaned):
                return
            if cleaned.null_count > texts.null_count:
                kind = self._narrowest(cleaned)
        self._kind = kind

    def _narrowest(self, texts: pa.Array) -> pa.DataType:
        for kind in _WIDER[self._kind]:
            if self._only_moments and kind not in _MOMENTS:
                continue
            widens = self._kind is not None and pa.types.is_integer(self._kind) and not kind.equals(self._kind)
            if (self._is_exact or not widens) and self._takes(texts, kind):
                return kind
        return pa.utf8()

    def _takes(self, texts: pa.Array, kind: pa.DataType) -> bool:
        # A pattern costs more than all the rest: what Arrow takes is tested by cheaper means where there are any.
        if pa.types.is_boolean(kind):
            return bool(pc.all(pc.or_kleene(pc.is_in(texts, _WORDS), pc.is_null(texts))).as_py())
        try:
            # A few first: Arrow words an error for each text that is not taken, which is slow if all are not.
            converted(texts.slice(0, 20), kind)
            values = converted(texts, kind)
        except pa.ArrowInvalid:
            return False
        if pa.types.is_integer(kind):
            return self._are_whole_numbers(texts, values)
        return self._are_floats(texts, values) if pa.types.is_floating(kind) else True

    def _are_floats(self, texts: pa.Array, numbers: pa.Array) -> bool:
        zeros = pc.and_not(pc.starts_with(texts, "0"), pc.starts_with(texts, "0."))
        minus_zeros = pc.and_not(pc.starts_with(texts, "-0"), pc.starts_with(texts, "-0."))
        odd = pc.or_(pc.or_(zeros, minus_zeros), pc.greater(pc.binary_length(texts), _FIFTEEN))
        suspects = texts.filter(odd) if pc.any(odd).as_py() else None
        if suspects is not None and not pc.all(pc.match_substring_regex(suspects, _FLOAT)).as_py():
            return False
        if pc.any(pc.starts_with(texts, "+")).as_py():
            return False
        self._has_number = self._has_number or bool(pc.any(pc.is_finite(numbers)).as_py())
        return True

    def _are_whole_numbers(self, texts: pa.Array, numbers: pa.Array) -> bool:
        # Of all that Arrow takes, only zeros in front, which hexadecimal has too, are not written back as they were.
        zeros = pc.and_(pc.starts_with(texts, "0"), pc.greater(pc.binary_length(texts), _ONE))
        if pc.any(zeros).as_py() or pc.any(pc.starts_with(texts, "-0")).as_py():
            return False
        ends = pc.min_max(numbers).as_py()
        self._is_exact = self._is_exact and ends["min"] > -EXACT and ends["max"] < EXACT
        self._has_number = True
        return True
