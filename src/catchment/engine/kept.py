"""What keeps its old rows: which staged tables are held back, and how many rows of earlier syncs stayed."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import pyarrow as pa

from catchment.errors import CatchmentError
from catchment.plugin import Measure
from catchment.schema.internal import CQ_ID, CQ_SOURCE_NAME, CQ_SYNC_TIME, SYNC_TIME
from catchment.schema.table import Table

if TYPE_CHECKING:
    from catchment.engine.pipeline import Pipeline
    from catchment.engine.target import Target

log = logging.getLogger("catchment.sync")

NAMED_CLIENTS = 5
"""Clients that a reason names; an organisation may have thousands."""


def held_back(
    pipeline: Pipeline, staged: Sequence[Target], incomplete: Mapping[str, str], unexpected: Mapping[str, str]
) -> dict[str, str]:
    """Source's tables that must keep their last good state, with the reason.

    One that the destination failed on, one whose rows are not as expected, one without keys that was not read to its
    end (there is nothing to merge it by), and all their relations, so that no row points to one that is not there.
    """
    cause: dict[str, str] = {}
    for target in staged:
        name = target.source.name
        if target.failed:
            cause[name] = f"writing table `{target.live.name}` failed"
        elif name in unexpected:
            cause[name] = unexpected[name]
        elif name in incomplete and not _has_own_keys(target.live):
            cause[name] = f"table `{target.live.name}` has no keys to merge by, and {incomplete[name]}"
    roots: dict[str, str] = {}
    for name, reason in cause.items():
        first = f"it is held back with its relation `{pipeline.targets[name].live.name}`: {reason}"
        roots.setdefault(pipeline.line(name)[-1], first)
    names = [target.source.name for target in staged]
    return {name: cause.get(name, roots[pipeline.line(name)[-1]]) for name in names if pipeline.line(name)[-1] in roots}


def count_kept(pipeline: Pipeline) -> None:
    """Note how many rows of earlier syncs stayed in each table that has a reason to keep them: one query a table.

    What publishing told already is not asked for again. A destination that cannot count leaves the number unknown, and
    a number that cannot be had is no error of the sync.
    """
    if pipeline.lost is not None or not pipeline.destination.capabilities.measures:
        return
    for target in pipeline.targets.values():
        result = target.result
        # Of rows whose dates are no guide nobody knows which are stale.
        if result.stale_kept_reason and result.rows_stale_kept is None and not target.dated_later:
            try:
                result.rows_stale_kept = _stayed(pipeline, target)
            except CatchmentError as error:
                fields = {"source": pipeline.stamp.source_name, "table": target.live.name}
                log.warning("stale rows that were kept could not be counted: %s", error, extra=fields)


def few(clients: Sequence[str]) -> str:
    """The first of some clients by name, and how many there are besides."""
    named = ", ".join(f"`{client}`" for client in clients[:NAMED_CLIENTS])
    more = len(clients) - NAMED_CLIENTS
    return f"{named} and {more:,} more" if more > 0 else named


def _stayed(pipeline: Pipeline, target: Target) -> int | None:
    """Rows of the source from before this sync; None where the live table does not tell them from those of this one."""
    live = target.live
    if (pipeline.transformers and not live.columns) or target.dated_later:
        # What a transformer would have called it is not known; or no date is to be trusted.
        return None
    have = pipeline.destination.stored_table(live.name)
    if have is None:
        return 0
    if CQ_SOURCE_NAME not in have or CQ_SYNC_TIME not in have:
        return None
    before = Measure("older", CQ_SYNC_TIME, (pa.scalar(pipeline.stamp.sync_time, SYNC_TIME.type),))
    # Where nothing was published every row is an old one, whatever the clock said.
    asked = Measure("rows") if target.staged and not target.result.published else before
    return pipeline.destination.measure(live, [asked], keys=(), source_name=pipeline.stamp.source_name)[0]


def _has_own_keys(table: Table) -> bool:
    """Whether equal rows of two syncs have equal keys: a random `_cq_id` alone is no such key."""
    return bool(table.primary_keys) and table.primary_keys != (CQ_ID,)
