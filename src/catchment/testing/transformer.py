"""What every transformer has to do, as tests: subclass `TransformerSuite` and give it a `TransformerCase`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from catchment.errors import CatchmentError
from catchment.plugin import TransformerPlugin
from catchment.testing import data


@dataclass(frozen=True)
class TransformerCase:
    """One transformer under test."""

    name: str
    make: Callable[[], tuple[TransformerPlugin, Mapping[str, Any]]]
    """A plugin that is not initialised yet, and its spec."""


class TransformerSuite:
    """What every transformer has to do."""

    case: TransformerCase

    @pytest.fixture(name="case")
    def _case(self) -> TransformerCase:
        """The case of the class."""
        return self.case

    @pytest.fixture
    def transformer(self, case: TransformerCase) -> Iterator[TransformerPlugin]:
        """An initialised transformer."""
        plugin, spec = case.make()
        plugin.init(spec)
        yield plugin
        plugin.close()

    def test_table_comes_out_the_same_every_time(self, transformer: TransformerPlugin) -> None:
        """The table's answer does not depend on what came before."""
        table = data.all_types("wide", keys=["id"])
        assert transformer.transform_table(table) == transformer.transform_table(table)

    def test_batches_fit_the_table_that_comes_out(self, transformer: TransformerPlugin) -> None:
        """Columns, order and types, for rows of values, of nulls, and for no rows."""
        table = data.all_types("wide")
        wanted = transformer.transform_table(table).arrow_schema
        for batch in (data.rows(table, 10), data.rows(table, 10, nulls=True), data.rows(table, 0)):
            came_out = list(transformer.transform(table, batch))
            came_out += [insert.batch for insert in transformer.collect(last=True)]
            for made in came_out:
                made.validate(full=True)
                assert made.schema.remove_metadata().equals(wanted)

    def test_batch_that_went_in_is_left_alone(self, transformer: TransformerPlugin) -> None:
        """Other destinations of the source get the same batch."""
        table = data.all_types("wide")
        batch, again = data.rows(table, 5), data.rows(table, 5)
        list(transformer.transform(table, batch))
        list(transformer.collect(last=True))
        assert batch.equals(again)

    def test_spec_with_an_unknown_key(self, case: TransformerCase) -> None:
        """The error names the key."""
        plugin, spec = case.make()
        with pytest.raises(CatchmentError, match="no_such_key"):
            _init(plugin, {**spec, "no_such_key": 1})
        plugin.close()


def _init(plugin: TransformerPlugin, spec: Mapping[str, Any]) -> None:
    """A remote plugin gets its spec with the first question."""
    plugin.init(spec)
    plugin.transform_table(data.all_types("wide"))
