"""The result of a sync: the one model behind the terminal report, `--output json`, the journal and the exit code.

Field names are snake_case, times RFC 3339 in UTC, sizes bytes, durations seconds; counts are rows made durable.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, TypeAlias

from pydantic import ConfigDict, TypeAdapter

from catchment.redact import Redactor

Outcome: TypeAlias = Literal["complete", "partial", "failed", "interrupted"]
FailOn: TypeAlias = Literal["never", "table-error", "error"]


@dataclass(slots=True)
class ErrorGroup:
    """Errors of one table and client with the same text."""

    client: str
    """Client of the source, such as an account or a region; empty where it has one only, or none is at fault."""
    message: str
    count: int = 1
    first_example: str = ""
    """The whole text of the first of them."""


@dataclass(slots=True)
class Expectation:
    """What came of one rule of `expect`."""

    rule: str
    ok: bool
    severity: str
    """`error`, which fails the table, or `warn`."""
    found: str
    """What the table was found to have."""


@dataclass(slots=True)
class TableResult:
    """What became of one table of one source in one destination."""

    source: str
    destination: str
    table: str
    parent: str = ""
    """The table whose rows this one's belong to; empty for none."""
    rows_read: int = 0
    rows_written: int = 0
    """Rows that are durable."""
    rows_rejected: int = 0
    """Rows that were left out, by the source or under `max_rejects`."""
    rows_stale_deleted: int | None = None
    """None where the destination cannot tell."""
    rows_stale_kept: int | None = None
    """Rows of the source from earlier syncs that stayed; None where none were to be deleted, the destination cannot
    count them, or the sync was interrupted."""
    stale_kept_reason: str = ""
    """Why stale rows were not deleted though the write mode asks for it; empty if they were."""
    expectations: list[Expectation] = field(default_factory=list)
    bytes: int = 0
    """Size in memory of the rows that were written."""
    started: datetime | None = None
    """When its first rows came; None if none did."""
    seconds_read: float = 0.0
    """From the first rows to the last."""
    seconds_written: float = 0.0
    """Spent inside the destination; those of several writers add up."""
    published: bool = False
    """Whether readers see this sync's rows."""
    complete: bool = False
    """Whether every row was read and written."""
    errors: list[ErrorGroup] = field(default_factory=list)

    def add_error(self, client: str, message: str, example: str = "", count: int = 1) -> None:
        """Count an error; equal texts of a client are one group."""
        for group in self.errors:
            if (group.client, group.message) == (client, message):
                group.count += count
                return
        self.errors.append(ErrorGroup(client, message, count, example or message))


@dataclass(slots=True)
class PluginResult:
    """What became of one source or destination as a whole."""

    name: str
    plugin: str
    """Plugin and where it comes from, such as `pg (python@postgresql)`."""
    outcome: Outcome = "complete"
    error: str = ""
    """Why the plugin as a whole failed; errors of tables are in `tables`."""
    seconds: float = 0.0
    sync_time: datetime | None = None
    """The `_cq_sync_time` of a source's rows."""


@dataclass(slots=True)
class Result:
    """A sync, from start to end."""

    __pydantic_config__ = ConfigDict(use_attribute_docstrings=True)

    invocation_id: str
    version: str
    started: datetime
    ended: datetime | None = None
    outcome: Outcome = "complete"
    sources: list[PluginResult] = field(default_factory=list)
    destinations: list[PluginResult] = field(default_factory=list)
    tables: list[TableResult] = field(default_factory=list)

    def settle(self) -> None:
        """Set `ended` and `outcome` from what the parts say."""
        parts = [*self.sources, *self.destinations]
        # The clock may have been set back meanwhile; the seconds of a part are not told by it.
        longest = timedelta(seconds=max((part.seconds for part in parts), default=0.0))
        self.ended = max(datetime.now(UTC), self.started + longest)
        if any(part.outcome == "interrupted" for part in parts):
            self.outcome = "interrupted"
        elif any(part.outcome == "failed" for part in parts):
            self.outcome = "failed"
        elif any(part.outcome == "partial" for part in parts) or any(table.errors for table in self.tables):
            self.outcome = "partial"
        else:
            self.outcome = "complete"

    def redact(self, redactor: Redactor) -> None:
        """Replace secrets in every text."""
        _redact(self, redactor)

    def to_json(self) -> dict[str, Any]:
        """The result as JSON values."""
        return {key: _plain(value) for key, value in asdict(self).items()}

    @classmethod
    def from_json(cls, document: object) -> Result:
        """The result that `to_json` made of it; what an older version did not write yet has its default."""
        return TypeAdapter(cls).validate_python(document)


def result_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of what `to_json` makes."""
    made = TypeAdapter(Result).json_schema(mode="serialization")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "result of a sync", **_told(made)}


def exit_code(outcome: Outcome, fail_on: FailOn, signal_number: int = 0) -> int:
    """0 complete, 2 some tables had errors, 1 failed, 128 + signal when interrupted; `fail_on` softens 2, then 1."""
    if outcome == "interrupted":
        return 128 + signal_number if signal_number else 130
    if outcome == "complete" or fail_on == "never":
        return 0
    if outcome == "partial":
        return 0 if fail_on == "error" else 2
    return 1


def _redact(value: Any, redactor: Redactor) -> None:
    for item in fields(value):
        found = getattr(value, item.name)
        if isinstance(found, list) and found and is_dataclass(found[0]):
            for part in found:
                _redact(part, redactor)
        else:
            setattr(value, item.name, redactor.value(found))


def _told(made: dict[str, Any]) -> dict[str, Any]:
    """Pydantic's schema without the titles that only repeat names; every field is written, defaults too."""
    inner = {name: _told(definition) for name, definition in made.get("$defs", {}).items()}
    properties = {
        name: {part: value for part, value in each.items() if part not in ("title", "default")}
        for name, each in made["properties"].items()
    }
    kept = {part: value for part, value in made.items() if part not in ("title", "$defs")}
    return {**kept, "properties": properties, "required": list(properties), **({"$defs": inner} if inner else {})}


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(item) for item in value]
    return value
