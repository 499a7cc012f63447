"""`catchment report`: one HTML page about a past run, which needs nothing but itself."""

from __future__ import annotations

from pathlib import Path

import click

from catchment.cli.output import output_option, print_json, say


@click.command("report")
@click.argument("run_id", metavar="[ID]", default="")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), default=Path("report.html"), show_default=True,
              metavar="FILE", help="Where the page goes.")  # fmt: skip
@output_option
def command(run_id: str, out: Path, output: str) -> int:
    """Write a page about a past run: its tables, what went wrong, and what differs from the run before.

    ID is that of `catchment runs`, or its beginning; the last run where none is given. The page is one file without
    anything that a browser would fetch from elsewhere.
    """
    from catchment.cli.html_report.page import render
    from catchment.cli.runs import journal

    run = journal().find(run_id)
    earlier = journal().before(run)
    text = render(run, journal().result(run), None if earlier is None else journal().result(earlier))
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(text, encoding="utf-8", errors="replace")
    if output == "json":
        print_json({"file": str(out), "invocation_id": run.invocation_id})
    else:
        say(f"The report of run {run.invocation_id} is in {out}")
    return 0
