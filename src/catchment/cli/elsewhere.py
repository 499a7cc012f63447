"""Commands of the vendor's cloud: each says in a line what to do instead."""

from __future__ import annotations

import click

_PACKAGE = (
    "there is no hub to publish to; publish a Python package with an entry point `catchment.sources`, "
    "`catchment.destinations` or `catchment.transformers`"
)

ADVICE = {
    "login": "there is no account to log in to; set `CLOUDQUERY_API_KEY` if the hub wants to know who asks",
    "logout": "there is no account to log out of; nothing is kept on this machine",
    "switch": "there are no teams to switch between; keep one config for each of them",
    "addon": "there are no add-ons to download or publish; run SQL or dbt on the synced tables instead",
    "install": "`install` is now called `catchment plugin install`",
    "plugin publish": _PACKAGE,
    "plugin docs": f"{_PACKAGE}; `catchment docs` writes its pages",
    "plugin uiassets": _PACKAGE,
}
"""Command → what to do instead."""


def answer(name: str) -> click.Command:
    """A command that takes anything and fails with its advice."""

    def fail(**ignored: object) -> None:
        raise click.ClickException(ADVICE[name])

    return click.Command(
        name.rpartition(" ")[2],
        callback=fail,
        params=[click.Argument(["arguments"], nargs=-1, type=click.UNPROCESSED)],
        hidden=True,
        help=f"Not here: {ADVICE[name]}.",
        context_settings={"ignore_unknown_options": True},
    )
