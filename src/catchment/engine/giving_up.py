"""The end of an interrupted run that a plugin keeps from ending: what is known of it is settled, and nobody waits."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import TYPE_CHECKING

from catchment.engine.result import Result

if TYPE_CHECKING:
    from catchment.engine.source_run import SourceRun

ENDING_S = 7.5
"""Seconds that an interrupted run has to end in order: the report has to be there within 10."""


def settled(result: Result, runs: Iterable[SourceRun], waited_s: float) -> Result:
    """What is known of a run whose threads may still be at work, as a result of its own.

    Rows count that are durable for certain. What a destination was in the middle of may come true or not, and its
    error says so.
    """
    reason = f"it did not end within {waited_s:.0f} seconds of the interrupt; what it was doing may be done or not"
    left: set[str] = set()
    ended: set[str] = set()
    for run in runs:
        left |= run.leave(reason)
        if run.result.seconds:
            ended.add(run.result.name)
    found = copy.deepcopy(result)
    found.tables = [copy.deepcopy(row) for run in runs for row in run.tables()]
    if not found.sources and found.destinations:
        # Nothing was read yet: the one that came last is being opened.
        left.add(found.destinations[-1].name)
    for destination in found.destinations:
        if destination.name in left and not destination.error:
            destination.outcome, destination.error = "interrupted", reason
    for source in found.sources:
        if source.name not in ended and source.outcome != "failed":
            source.outcome = "interrupted"
            # Its destinations are at fault, if any of them is.
            source.error = source.error or ("" if left else reason)
    found.settle()
    found.outcome = "interrupted"
    return found
