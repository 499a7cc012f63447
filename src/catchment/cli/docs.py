"""`catchment docs`: the reference pages, from the models; `--check` tells whether they are fresh."""

from __future__ import annotations

from pathlib import Path

import click

from catchment.cli.output import output_option, print_json, say


@click.command("docs")
@click.option("--directory", type=click.Path(path_type=Path), default=Path("docs/reference"), show_default=True)
@click.option("--check", is_flag=True, help="Write nothing; fail if a page is stale.")
@output_option
def command(directory: Path, check: bool, output: str) -> int:
    """Write the reference pages of the installed plugins, the commands and the errors."""
    from catchment.docs import pages

    stale = []
    made = pages()
    for name, text in made.items():
        path = directory / name
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        stale.append(name)
        if not check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    extra = [str(p.relative_to(directory)) for p in directory.rglob("*.*") if str(p.relative_to(directory)) not in made]
    wrong = sorted([*stale, *extra]) if check else []
    if wrong:
        raise click.ClickException(f"stale reference pages: {', '.join(wrong)}; run `make docs`")
    if output == "json":
        print_json({"pages": sorted(made), "written": [] if check else sorted(stale)})
    else:
        say(f"{len(made)} pages, {len(stale)} {'stale' if check else 'written'}")
    return 0
