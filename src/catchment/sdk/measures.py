"""Numbers of rows as SQL: what `Destination.measure` of every SQL destination asks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from catchment.plugin import Measure
from catchment.schema.internal import CQ_SOURCE_NAME
from catchment.schema.table import Table
from catchment.sdk.sql import Dialect, Statement


def measured(
    dialect: Dialect,
    table: Table,
    measures: Sequence[Measure],
    *,
    keys: Sequence[str],
    source_name: str,
    ask: Callable[[str, Sequence[Any]], Any],
) -> list[int]:
    """The number for each measure; `ask` runs a query with its values and gives the one value of the one row."""
    return [int(ask(*_statement(dialect, table, measure, keys, source_name))) for measure in measures]


def _statement(dialect: Dialect, table: Table, measure: Measure, keys: Sequence[str], source_name: str) -> Statement:
    # Rows of equal keys of a staged table are one row in the end.
    own = [f"l.{dialect.quote(CQ_SOURCE_NAME)} = {dialect.placeholder}"] if source_name else []
    values: list[Any] = [source_name] if source_name else []
    column = f"l.{dialect.quote(measure.column)}"
    bound = [dialect.to_parameter(value) for value in measure.values]
    keyed = ", ".join(f"l.{dialect.quote(key)}" for key in keys)
    name = dialect.table(table.name)

    def counted(*conditions: str, what: str = "count(*)") -> str:
        found = " and ".join([*own, *conditions])
        return f"select {what} from {name} as l" + (f" where {found}" if found else "")  # noqa: S608

    match measure.kind:
        case "rows":
            text = f"select count(*) from ({counted(what=f'distinct {keyed}')}) as d" if keys else counted()  # noqa: S608
        case "nulls":
            text = counted(f"{column} is null")
        case "duplicates":
            each = counted(
                f"{column} is not null", what=f"distinct {keyed}, {column} as v" if keys else f"{column} as v"
            )
            shared = f"select count(*) as n from ({each}) as e group by v having count(*) > 1"  # noqa: S608
            text = f"select coalesce(sum(n), 0) from ({shared}) as d"  # noqa: S608
        case "others":
            marks = ", ".join([dialect.placeholder] * len(bound))
            text = counted(f"{column} is not null", f"{column} not in ({marks})")
        case "newer":
            text = counted(f"{column} >= {dialect.placeholder}")
        case "older":
            text = counted(f"{column} < {dialect.placeholder}")
        case "absent":
            same = " and ".join(f"s.{dialect.quote(key)} = l.{dialect.quote(key)}" for key in keys)
            missing = f"select 1 from {dialect.table(measure.other)} as s where {same}"  # noqa: S608
            text = counted(f"not exists ({missing})")
    return text, (*values, *bound)
