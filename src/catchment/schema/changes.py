"""What differs between the table that is there and the one that is wanted, and which differences are safe."""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from catchment.errors import MigrationRefused
from catchment.schema.internal import CQ_ID
from catchment.schema.table import Column, Table
from catchment.schema.types import type_string

ChangeKind: TypeAlias = Literal[
    "add_column",
    "add_column_not_null",
    "remove_column",
    "remove_column_not_null",
    "change_type",
    "change_not_null",
    "change_primary_key",
    "remove_unique",
    "move_pk_to_cq_id",
]
Safety: TypeAlias = Literal["safe", "forced", "impossible"]

_KEYLESS_MODE = "`write_mode: append`"
_KEYED_MODES = "`write_mode: overwrite` or `overwrite-delete-stale`"


@dataclass(frozen=True, slots=True)
class Change:
    """One difference of one column."""

    kind: ChangeKind
    column: str
    current: Column | None = None
    """The column as it is wanted; None if it is gone."""
    previous: Column | None = None
    """The column as it is; None if it is new."""

    def __str__(self) -> str:
        match self.kind:
            case "add_column" | "add_column_not_null":
                extra = " not null" if self.current is not None and self.current.not_null else ""
                kind = type_string(self.current.type) if self.current is not None else ""
                return f"column `{self.column}` of type {kind}{extra} is new"
            case "remove_column" | "remove_column_not_null":
                extra = ", which is not null," if self.kind == "remove_column_not_null" else ""
                return f"column `{self.column}`{extra} is gone"
            case "change_type":
                old = type_string(self.previous.type) if self.previous is not None else ""
                new = type_string(self.current.type) if self.current is not None else ""
                return f"column `{self.column}` changed from {old} to {new}"
            case "change_not_null":
                now = self.current is not None and self.current.not_null
                return f"column `{self.column}` {'must now' if now else 'need no longer'} be not null"
            case "change_primary_key":
                now = self.current is not None and self.current.primary_key
                return f"column `{self.column}` is {'now' if now else 'no longer'} part of the primary key"
            case "remove_unique":
                return f"column `{self.column}` is no longer unique"
            case "move_pk_to_cq_id":
                return f"the primary key is now `{CQ_ID}` alone"


def changes(have: Table, want: Table) -> tuple[Change, ...]:
    """What has to change for `have` to become `want`: the move to `_cq_id` first, removed columns last.

    The key and not-null differences that come with a move to `_cq_id` belong to it and are not listed again. Order,
    descriptions, and a column that becomes unique are no changes.
    """
    moved = want.primary_keys == (CQ_ID,) and bool(have.primary_keys) and CQ_ID not in have.primary_keys
    found = [Change("move_pk_to_cq_id", CQ_ID, want.column(CQ_ID))] if moved else []
    for column in want.columns:
        if column.name not in have:
            strict = column.primary_key or column.not_null
            kind: ChangeKind = "add_column_not_null" if strict else "add_column"
            found.append(Change("change_primary_key" if column.primary_key else kind, column.name, column))
            continue
        found.extend(_column_changes(have.column(column.name), column, moved=moved))
    for column in have.columns:
        if column.name not in want:
            if column.primary_key and not moved:
                kind = "change_primary_key"
            else:
                kind = "remove_column_not_null" if column.not_null and not column.primary_key else "remove_column"
            found.append(Change(kind, column.name, None, column))
    return tuple(found)


def _column_changes(have: Column, want: Column, *, moved: bool) -> list[Change]:
    found = []
    if not have.type.equals(want.type):
        found.append(Change("change_type", want.name, want, have))
    keyed = have.primary_key != want.primary_key
    if keyed and not moved:
        found.append(Change("change_primary_key", want.name, want, have))
    if have.not_null != want.not_null and not keyed:
        found.append(Change("change_not_null", want.name, want, have))
    if have.unique and not want.unique and not want.primary_key:
        found.append(Change("remove_unique", want.name, want, have))
    return found


def classify(change: Change, safe: Set[ChangeKind], forced: Set[ChangeKind] | None) -> Safety:
    """What a destination with these abilities may do; `forced` None means that it can force every change."""
    if change.kind in safe:
        return "safe"
    return "forced" if forced is None or change.kind in forced else "impossible"


def plan(
    have: Table, want: Table, *, safe: Set[ChangeKind], forced: Set[ChangeKind] | None, force: bool
) -> tuple[Change, ...]:
    """The changes to make. Raises `MigrationRefused`, naming every one that may not be made."""
    found = changes(have, want)
    impossible = [change for change in found if classify(change, safe, forced) == "impossible"]
    if impossible:
        raise MigrationRefused(
            f"table `{want.name}` cannot be migrated here: {_told(have, want, impossible)}",
            hint="rename the table, or migrate it by hand",
        )
    unsafe = [change for change in found if classify(change, safe, forced) == "forced"]
    if unsafe and not force:
        back = _mode_before(have, want)
        raise MigrationRefused(
            f"table `{want.name}` cannot be migrated in `migrate_mode: safe`: {_told(have, want, unsafe)}",
            hint="run with `migrate_mode: forced` (it may drop the table's rows), "
            + (f"{back}, or rename the table so that a new one is made" if back else "or migrate the table by hand"),
        )
    return found


def _mode_before(have: Table, want: Table) -> str:
    """What to write in the config for a table that goes from or to `write_mode: append`; empty for any other."""
    if bool(have.primary_keys) == bool(want.primary_keys):
        return ""
    return f"go back to {_KEYED_MODES if have.primary_keys else _KEYLESS_MODE}"


def _told(have: Table, want: Table, found: Sequence[Change]) -> str:
    """The changes as a text; those of a switch from or to `write_mode: append` as the one thing that they are."""
    others = [str(change) for change in found if change.kind != "change_primary_key"]
    if len(others) == len(found) or not _mode_before(have, want):
        return "; ".join(map(str, found))
    keys = ", ".join(f"`{key}`" for key in have.primary_keys or want.primary_keys)
    if have.primary_keys:
        switch = f"it has the primary key ({keys}) of {_KEYED_MODES}, and {_KEYLESS_MODE} needs it to have none"
    else:
        switch = f"it has no primary key, as {_KEYLESS_MODE} makes it, and this write mode needs ({keys})"
    return "; ".join([switch, *others])


def merged(have: Table, want: Table) -> Table:
    """The table after a migration that loses nothing: columns of `have` in their order, new ones behind them.

    Columns that `want` lacks stay, nullable and without keys.
    """
    kept = [
        want.column(column.name)
        if column.name in want
        else replace(column, primary_key=False, not_null=False, unique=False)
        for column in have.columns
    ]
    return want.with_columns([*kept, *(column for column in want.columns if column.name not in have)])
