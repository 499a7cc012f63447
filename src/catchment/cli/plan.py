"""`catchment plan`: what a sync would do to the tables of its destinations; it does nothing."""

from __future__ import annotations

import io
import itertools
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from catchment.cli.output import (
    config_argument,
    license_option,
    load_plan,
    not_null_option,
    output_option,
    print_json,
    say,
    settings,
)

if TYPE_CHECKING:
    from rich.text import Text

    from catchment.engine.preview import Preview, PreviewedTable
    from catchment.plugin import PreviewAction

LISTED = 30
"""Tables without a change that are named; of more, the rest is counted."""

_SHOWN: dict[PreviewAction, tuple[str, str, str, str]] = {
    "create": ("+", "create", "green", "to create"),
    "alter": ("~", "alter", "yellow", "to alter"),
    "recreate": ("!", "drop and make anew", "red", "to drop and make anew"),
    "refused": ("x", "refused", "bold red", "refused"),
    "none": ("=", "no change", "dim", "without a change"),
    "unknown": ("?", "unknown", "dim", "unknown"),
}
"""Mark, word, style, and how the last line counts it."""
_SAFETY = {"safe": "safe", "forced": "needs `migrate_mode: forced`", "impossible": "impossible here"}


@click.command("plan")
@config_argument
@output_option
@license_option
@not_null_option
def command(config: tuple[str, ...], output: str, cq_columns_not_null: bool) -> int:
    """Tell what a sync of CONFIG would do to the tables of its destinations, and do none of it.

    Sources are asked for their tables, destinations for what they have. Exit code: 0 no table would change, 2 some
    would (or would have to, and the change is refused), 1 failed. A destination without a catalogue, such as files,
    is `unknown`, which counts as no change.
    """
    from catchment.engine.preview import EXIT_CODES, preview
    from catchment.engine.sync import Options

    plan = load_plan(config, output)
    found = preview(plan, Options(invocation_id=settings().invocation_id, columns_not_null=cq_columns_not_null))
    if output == "json":
        print_json(found.to_json())
    else:
        _print(found)
    return EXIT_CODES[found.outcome]


def _print(found: Preview) -> None:
    """A paragraph for each source and destination, what failed, and a last line that sums up."""
    from rich.console import Console

    # By way of a text, as a reader that has gone away must not end the command.
    text = io.StringIO()
    console = Console(file=text, force_terminal=sys.stdout is not None and sys.stdout.isatty(), highlight=False,
                      soft_wrap=True, markup=False)  # fmt: skip
    plugins = {part.name: part.plugin for part in found.destinations}
    for (source, destination), rows in itertools.groupby(found.tables, lambda row: (row.source, row.destination)):
        _print_group(console.print, f"{source} → {plugins.get(destination, destination)}", list(rows))
    for kind, parts in (("source", found.sources), ("destination", found.destinations)):
        for part in parts:
            if part.error:
                console.print(f"Error: {kind} {part.plugin}: {part.error}", style="red")
    counts = [(sum(row.action == action for row in found.tables), shown[3]) for action, shown in _SHOWN.items()]
    summed = ", ".join(f"{count} {word}" for count, word in counts if count) or "no tables"
    console.print(f"Plan: {summed}. Nothing was changed.", style="bold")
    say(text.getvalue().removesuffix("\n"))


def _print_group(show: Callable[..., None], title: str, rows: list[PreviewedTable]) -> None:
    own = [row for row in rows if row.role == "rows"]
    if own:
        modes = f"{own[0].write_mode}, migrate_mode {own[0].migrate_mode}"
        atomic = any(row.publish == "atomic" for row in own)
        title += (
            f": {modes}, {'tables become visible together at the end' if atomic else 'rows are visible as they come'}"
        )
    show(title, style="bold")
    quiet: dict[str, list[str]] = {}
    for row in rows:
        if row.action in ("none", "unknown") and not row.changes:
            quiet.setdefault(f"{_SHOWN[row.action][0]} {_SHOWN[row.action][1]}", []).append(row.table)
            continue
        for line in _lines(row):
            show(line)
    for word, names in quiet.items():
        more = f" and {len(names) - LISTED:,} more" if len(names) > LISTED else ""
        show(f"  {word}: {', '.join(names[:LISTED])}{more}", style="dim")
    for reason in sorted({row.reason for row in rows if row.action == "unknown"}):
        show(f"      {reason}", style="dim")
    show("")


def _lines(row: PreviewedTable) -> list[Text]:
    """What is said of one table."""
    from rich.text import Text

    mark, word, style, _ = _SHOWN[row.action]
    facts = "; ".join(_facts(row))
    lines = [Text.assemble(f"  {mark} ", (row.table, "bold"), ": ", (word, style), f" ({facts})" if facts else "")]
    for change in row.changes:
        tone = {"safe": "green", "forced": "yellow", "impossible": "red"}[change.safety]
        lines.append(Text.assemble(f"      {change.text} ", (f"[{_SAFETY[change.safety]}]", tone)))
    if row.reason and (row.migrate_mode == "forced" or not row.changes):
        lines.append(Text(f"      {row.reason}", "red"))
    if row.hint:
        lines.append(Text(f"      {row.hint}"))
    return lines


def _facts(row: PreviewedTable) -> list[str]:
    facts = {"sync_summary": ["sync summaries"], "cursors": ["cursors of incremental tables"]}.get(row.role, [])
    if row.action == "create":
        keys = ", ".join(column.name for column in row.columns if column.primary_key)
        facts.append(f"{len(row.columns)} columns, {f'primary key {keys}' if keys else 'no primary key'}")
    if row.rows is not None:
        facts.append(f"about {row.rows:,} row{'' if row.rows == 1 else 's'} in it" if row.rows else "no rows in it")
    if row.dependents:
        what = "may break" if row.action == "recreate" else "on it hang"
        facts.append(f"{what}: {', '.join(row.dependents)}")
    if row.is_incremental and row.write_mode == "overwrite-delete-stale" and not row.deletes_stale:
        facts.append("incremental: rows that are there stay")
    return facts
