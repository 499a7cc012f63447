"""One table on its way from a source into a destination."""

from __future__ import annotations

from dataclasses import dataclass

from catchment.engine.result import TableResult
from catchment.schema.table import Table


@dataclass(slots=True)
class Target:
    """One table on its way: as the source has it, as each transformer leaves it, and where its rows go."""

    source: Table
    steps: tuple[Table, ...]
    """The stamped table, then what each transformer makes of it; the last one is what readers see."""
    written: Table
    """Where the rows go: the live table, or the staged one without keys."""
    result: TableResult
    cleans: bool
    """Whether stale rows are to be deleted at the end."""
    dated_later: str = ""
    """Why its date does not tell a stale row from a fresh one; empty where it does."""
    _failed: bool = False

    @property
    def live(self) -> Table:
        """The table that readers see."""
        return self.steps[-1]

    @property
    def staged(self) -> bool:
        """Whether rows wait for `publish`."""
        return self.written.name != self.live.name

    @property
    def failed(self) -> bool:
        """Whether the destination gave up on the table."""
        return self._failed

    def fail(self, message: str) -> None:
        """Note that the destination failed on this table."""
        self._failed = True
        self.result.add_error("", message)

    def hold_back(self, reason: str) -> None:
        """Note why it is not published; that is an error of the table, also where only a relation is at fault."""
        self.result.stale_kept_reason = f"not published: {reason}"
        if not self.result.errors:
            self.result.add_error("", f"not published: {reason}")
