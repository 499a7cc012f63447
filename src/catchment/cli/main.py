"""The root command: finds the others by name and imports the one that runs; the only place that sets exit codes."""

from __future__ import annotations

import importlib
import os
import sys

import click

from catchment import __version__

# Arrow's allocator reads this when it is loaded: pages that are free go back at once, so that a sync's memory stays
# near what its budget holds (measured: 70 MB less, at the same speed).
os.environ.setdefault("MIMALLOC_PURGE_DELAY", "0")

COMMANDS = {
    "sync": ("sync", "Sync every source of a config into its destinations."),
    "migrate": ("migrate", "Create and change tables as a sync would, without rows."),
    "tables": ("tables", "List the tables and columns of the sources in a config."),
    "validate-config": ("validate_config", "Check a config and every plugin's spec; start nothing."),
    "test-connection": ("test_connection", "Try to reach every source and destination of a config."),
    "init": ("init", "Write a working config to start from."),
    "plugin": ("plugin", "See what plugins there are."),
    "docs": ("docs", "Write the reference pages."),
}
"""Command name → module in `catchment.cli` and the line that `--help` shows, so that help imports no command."""


class _Lazy(click.Group):
    """A group whose commands are imported when they run."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"catchment.cli.{COMMANDS[cmd_name][0]}")
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            from catchment.errors import did_you_mean

            raise click.UsageError(f"no such command {args[0]!r}; {did_you_mean(args[0], COMMANDS)}", ctx)
        return super().resolve_command(ctx, args)


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="catchment", message="%(prog)s version %(version)s")
@click.option("--log-level", type=click.Choice(["debug", "info", "warn", "error"]), default="warn", show_default=True)
def root(log_level: str) -> None:
    """Copy what you have in clouds, SaaS tools, databases and files into your own database."""
    import logging

    level = {"warn": logging.WARNING}.get(log_level, getattr(logging, log_level.upper(), logging.WARNING))
    logging.basicConfig(stream=sys.stderr, level=level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")


def main() -> None:
    """Run the command line and exit: 0, 1 for a user's or plugin's mistake, 2 for table errors, 128 + signal."""
    try:
        code = root.main(standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        code = 0
    except click.ClickException as error:
        error.show()
        code = 1
    except click.exceptions.Abort:
        code = 130
    except Exception as error:
        from catchment.errors import CatchmentError

        if not isinstance(error, CatchmentError):
            raise
        click.echo(f"Error: {error}", err=True)
        code = 1
    sys.exit(code if isinstance(code, int) else 0)
