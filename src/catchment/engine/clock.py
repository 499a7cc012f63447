"""Clocks that are behind: rows that are dated later than the sync that reads them anew.

Where rows become visible as they come, those that are gone at the source are told by their date, which is the time of
the last sync that read them. If that time is not before this sync's, as a clock was set back, they cannot be told from
rows of this sync, or from those of a run that began later. They stay until a sync whose time is later, and the report
says so.
"""

from __future__ import annotations

from datetime import datetime

import pyarrow as pa

from catchment.plugin import DestinationPlugin, Measure
from catchment.schema.internal import CQ_SOURCE_NAME, CQ_SYNC_TIME
from catchment.schema.table import Table


def dated_later(destination: DestinationPlugin, live: Table, source_name: str, sync_time: datetime) -> str:
    """Why stale rows may stay, from a look at the table before it gets a row; empty where none is dated so late.

    A destination that cannot count tells nothing. Raises `PluginError`.
    """
    if not destination.capabilities.measures or CQ_SYNC_TIME not in live:
        return ""
    have = destination.stored_table(live.name)
    if have is None or CQ_SYNC_TIME not in have or CQ_SOURCE_NAME not in have:
        return ""
    moment = pa.scalar(sync_time, live.column(CQ_SYNC_TIME).type)
    [count] = destination.measure(live, [Measure("newer", CQ_SYNC_TIME, (moment,))], keys=(), source_name=source_name)
    if not count:
        return ""
    rows = "1 row of the source is" if count == 1 else f"{count:,} rows of the source are"
    return f"{rows} dated as this sync, or later: was the clock set back? Those that are gone stay"
