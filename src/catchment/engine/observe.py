"""What a run tells to whoever looks on: the moments of a run, and what was done with its destinations, and when."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

from catchment import log_context
from catchment.messages import DeleteStale, Insert, WriteMessage
from catchment.plugin import Published, Swap, WriteSession, WriteStats

if TYPE_CHECKING:
    from catchment.engine.result import PluginResult, Result, TableResult
    from catchment.engine.source_run import SourceRun
    from catchment.spec.model import Config, SourceConfig

What: TypeAlias = Literal["open", "flush", "publish", "delete_stale"]

MOST_STEPS = 1_000
"""Steps that are kept of one source and destination: a sync that runs for days flushes every minute."""


@dataclass(frozen=True, slots=True)
class Step:
    """Something that was done with a destination."""

    what: What
    started: datetime
    ended: datetime
    error: str = ""


class Running(Protocol):
    """A run as an observer sees it; it may ask from any thread, at any time."""

    result: Result

    @property
    def config(self) -> Config:
        """What is run."""

    def tables(self, sources: Collection[str] | None = None) -> list[TableResult]:
        """The tables' results so far; of `sources` only, if they are given."""


class Observer(Protocol):
    """Is told how a run goes, by the run's own threads and seldom: never for a row or a batch."""

    def began(self, run: Running) -> None:
        """The run begins."""

    def opened(self, destination: str, step: Step) -> None:
        """A destination was opened, or could not be."""

    def source_began(self, source: SourceConfig, result: PluginResult) -> None:
        """A source begins."""

    def source_ended(self, source: SourceConfig, result: PluginResult, run: SourceRun | None) -> None:
        """A source came to its end; `run` is None where it never began."""

    def ended(self) -> None:
        """The run is over, its result is settled and has no secrets in it."""


@dataclass(slots=True)
class Steps:
    """What was done in one session, and when."""

    taken: list[Step] = field(default_factory=list)
    first_rows: dict[str, datetime] = field(default_factory=dict)
    """When the first rows were sent, by table, staged ones under the name of the staged table."""
    stats: Mapping[str, WriteStats] = field(default_factory=dict)
    """What became of the rows, as far as it was asked for."""

    @contextlib.contextmanager
    def take(self, what: What) -> Iterator[None]:
        """Note what the body does, and what it raises."""
        started, error = datetime.now(UTC), ""
        try:
            yield
        except Exception as raised:
            error = str(raised)
            raise
        finally:
            if len(self.taken) < MOST_STEPS:
                self.taken.append(Step(what, started, datetime.now(UTC), error))


class WatchedSession:
    """A session that notes what is done in it."""

    def __init__(self, session: WriteSession, steps: Steps, destination: str) -> None:
        self._session = session
        self._steps = steps
        self._destination = destination
        self._deletes = False

    def write(self, message: WriteMessage) -> None:
        """As the session."""
        if isinstance(message, Insert):
            if message.table.name not in self._steps.first_rows:
                self._steps.first_rows[message.table.name] = datetime.now(UTC)
        elif isinstance(message, DeleteStale):
            self._deletes = True
        self._session.write(message)

    def flush(self) -> None:
        """As the session."""
        what: What = "delete_stale" if self._deletes else "flush"
        self._deletes = False
        with self._steps.take(what), log_context.about(destination=self._destination):
            self._session.flush()

    def publish(self, swaps: Sequence[Swap]) -> Mapping[str, Published]:
        """As the session."""
        with self._steps.take("publish"), log_context.about(destination=self._destination):
            return self._session.publish(swaps)

    def stats(self) -> Mapping[str, WriteStats]:
        """As the session."""
        self._steps.stats = found = self._session.stats()
        return found

    def close(self) -> None:
        """As the session."""
        self._session.close()
