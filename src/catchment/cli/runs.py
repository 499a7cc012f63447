"""`catchment runs`: past runs from the journal, one of them as its report told it, or what two of them differ in."""

from __future__ import annotations

import io
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from catchment.cli.output import output_option, print_json, say, settings

if TYPE_CHECKING:
    from rich.console import RenderableType

    from catchment.engine.comparison import Comparison, TableChange
    from catchment.engine.journal import Journal, Run

STYLES = {"complete": "green", "partial": "yellow", "failed": "red", "interrupted": "magenta"}
SHORT_ID = 8
"""Characters of an id that are shown in a list, and usually enough to name the run."""


@click.group("runs", invoke_without_command=True)
@output_option
@click.option("--limit", type=click.IntRange(1), default=20, show_default=True, help="Runs that are listed.")
@click.pass_context
def command(ctx: click.Context, output: str, limit: int) -> int:
    """List past runs of `catchment sync`, latest first; `show` and `compare` tell more.

    They come from the journal in the folder of `--cq-dir`, which keeps the last 1,000 runs.
    """
    if ctx.invoked_subcommand is not None:
        if ctx.get_parameter_source("output") is ParameterSource.COMMANDLINE:
            raise click.UsageError(f"--output stands behind `{ctx.invoked_subcommand}`")
        return 0
    runs = journal().runs(limit)
    if output == "json":
        print_json({"runs": [asdict(run) for run in runs]})
    elif runs:
        _print(_listed(runs))
    else:
        say(f"No run is in the journal {journal().path}; `catchment sync` writes one at its end")
    return 0


@command.command("show")
@click.argument("run_id", metavar="[ID]", default="")
@output_option
def show(run_id: str, output: str) -> int:
    """Print the report of a past run, as it was at its end.

    ID is that of `catchment runs`, or its beginning; the last run where none is given.
    """
    from catchment.cli.report import print_report

    run = journal().find(run_id)
    result = journal().result(run)
    if output == "json":
        print_json({**asdict(run), "result": result.to_json()})
        return 0
    say(f"Run {run.invocation_id} of {', '.join(run.config)}")
    say(f"from {moment(run.started)} to {moment(run.ended)}, catchment {run.version}, exit code {run.exit_code}")
    print_report(result)
    return 0


@command.command("compare")
@click.argument("before", metavar="BEFORE")
@click.argument("after", metavar="AFTER")
@output_option
def compare(before: str, after: str, output: str) -> int:
    """Tell what differs between two runs: rows, seconds, errors and deleted stale rows of each table.

    BEFORE and AFTER are ids of `catchment runs`, or their beginnings.
    """
    from catchment.engine.comparison import compare as compare_results

    found = compare_results(*(journal().result(journal().find(run_id)) for run_id in (before, after)))
    if output == "json":
        print_json(found.to_json())
    else:
        _print(*_compared(found))
    return 0


def journal() -> Journal:
    """The journal that `--cq-dir` names."""
    from catchment.engine.journal import Journal

    return Journal(settings().cq_dir)


def moment(text: str) -> str:
    """A time of the journal for people: to the second, in UTC."""
    return f"{text[:10]} {text[11:19]} UTC"


def _print(*parts: RenderableType) -> None:
    from rich.console import Console

    # By way of a text, as a reader that has gone away must not end the command.
    text = io.StringIO()
    on_terminal = sys.stdout is not None and sys.stdout.isatty()
    console = Console(file=text, force_terminal=on_terminal, highlight=False, width=None if on_terminal else 160)
    for part in parts:
        console.print(part, soft_wrap=isinstance(part, str), markup=False)
    say(text.getvalue().removesuffix("\n"))


def _listed(runs: list[Run]) -> RenderableType:
    from datetime import datetime

    from rich.table import Table
    from rich.text import Text

    from catchment.cli.report import go_duration

    table = Table(box=None, pad_edge=False)
    for name, justify in (("id", "left"), ("started", "left"), ("took", "right"), ("outcome", "left"),
                          ("exit", "right"), ("rows", "right"), ("errors", "right")):  # fmt: skip
        table.add_column(name, justify=justify, no_wrap=True)  # type: ignore[arg-type]
    table.add_column("config", overflow="fold")
    for run in runs:
        took = datetime.fromisoformat(run.ended) - datetime.fromisoformat(run.started)
        table.add_row(
            run.invocation_id[:SHORT_ID],
            moment(run.started),
            go_duration(round(took.total_seconds(), 1)),
            Text(run.outcome, STYLES.get(run.outcome, "")),
            str(run.exit_code),
            f"{run.rows:,}",
            Text(f"{run.errors:,}", "red" if run.errors else ""),
            Text(", ".join(run.config)),
        )
    return table


def _compared(found: Comparison) -> list[RenderableType]:
    from rich.table import Table
    from rich.text import Text

    parts: list[RenderableType] = []
    for name, result in (("before", found.before), ("after", found.after)):
        started = moment(result.to_json()["started"])
        parts.append(f"{name:<6} {result.invocation_id[:SHORT_ID]}  {started}  {result.outcome}")
    changed = found.changed
    if changed:
        table = Table(box=None, pad_edge=False)
        table.add_column("table", overflow="fold")
        table.add_column("from → to", overflow="fold")
        for name in ("rows written", "seconds", "errors", "stale deleted"):
            table.add_column(name, justify="right")
        table.add_column("")
        for row in changed:
            table.add_row(Text(row.table), Text(f"{row.source} → {row.destination}"), *_cells(row), _word(row))
        parts.append(table)
    same = len(found.tables) - len(changed)
    counts = [(len([row for row in changed if row.change == word]), word) for word in ("changed", "added", "removed")]
    parts.append(", ".join(f"{count} {word}" for count, word in [*counts, (same, "the same")] if count) or "no tables")
    return parts


def _cells(row: TableChange) -> list[Any]:
    from catchment.engine.comparison import error_count, seconds

    return [
        _both(row, lambda it: f"{it.rows_written:,}", f"{row.more_rows:+,}" if row.change == "changed" else ""),
        _both(row, lambda it: f"{seconds(it):.2f}"),
        _both(row, lambda it: f"{error_count(it):,}"),
        _both(row, lambda it: "" if it.rows_stale_deleted is None else f"{it.rows_stale_deleted:,}"),
    ]


def _both(row: TableChange, shown: Any, difference: str = "") -> str:
    """`before → after`, or one of them where they are the same or the other run lacks the table."""
    texts = list(dict.fromkeys(shown(part) for part in (row.before, row.after) if part is not None))
    if len(texts) == 1:
        return str(texts[0])
    return f"{texts[0] or '-'} → {texts[1] or '-'}" + (f" ({difference})" if difference else "")


def _word(row: TableChange) -> Any:
    from rich.text import Text

    if row.change in ("added", "removed"):
        return Text(row.change, "green" if row.change == "added" else "red")
    assert row.before is not None
    assert row.after is not None
    if row.before.complete != row.after.complete:
        return Text("complete now", "green") if row.after.complete else Text("incomplete now", "red")
    return ""
