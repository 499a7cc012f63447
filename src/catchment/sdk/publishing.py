"""What SQL destinations share that publish staged tables: the step for one table, and conditions on its live rows."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Generic, TypeVar

from catchment.plugin import Published, Swap
from catchment.schema.internal import CQ_SOURCE_NAME
from catchment.schema.table import Table
from catchment.sdk.sql import Dialect

T = TypeVar("T")


@dataclass(slots=True)
class Step(Generic[T]):
    """What has to be done for one swap."""

    dialect: Dialect
    swap: Swap
    live: Table | None
    """As the catalogue has it; None if there is none yet, or none whose rows count."""
    ties: T
    """What hangs on it."""
    merges: bool = False
    """Whether rows move into the live table, rather than the staged one into its place."""
    takes_over: bool = False
    """Whether rows of the live table move into the staged one first."""
    done: Published = field(default_factory=lambda: Published(0, 0))

    @property
    def name(self) -> str:
        """The live table's name."""
        return self.swap.table.name

    @property
    def table(self) -> str:
        """The live table, quoted."""
        return self.dialect.table(self.name)

    @property
    def staged(self) -> str:
        """The staged table, quoted."""
        return self.dialect.table(self.swap.staged.name)

    @property
    def new_columns(self) -> list[str]:
        """Columns that the live table lacks."""
        return [name for name in self.swap.table.column_names if self.live is not None and name not in self.live]

    @property
    def own(self) -> str:
        """Whether a live row `l` is of the source that publishes, which is to be bound."""
        return f"l.{self.dialect.quote(CQ_SOURCE_NAME)} {self.dialect.same} {self.dialect.placeholder}"

    @property
    def in_load(self) -> str:
        """Whether a live row `l` has its key in the new load."""
        if not self.swap.table.primary_keys:
            return "false"
        keys = [self.dialect.quote(key) for key in self.swap.table.primary_keys]
        same = " and ".join(f"s.{key} = l.{key}" for key in keys)
        return f"exists (select 1 from {self.staged} as s where {same})"  # noqa: S608

    def counted(self, stale: int) -> Published:
        """What is reported of `stale` live rows of this source whose keys are not in the new load."""
        return Published(0, stale) if self.swap.keep == "all" else Published(stale, 0)
