"""The root command: finds the others by name and imports the one that runs; the only place that sets exit codes."""

from __future__ import annotations

import importlib
import logging
import os
import sys
import threading
from typing import Any

import click

from catchment import __version__
from catchment.allocator import choose_allocator

COMMANDS = {
    "sync": ("sync", "Sync every source of a config into its destinations."),
    "plan": ("plan", "Tell what a sync would do to the tables, and do none of it."),
    "runs": ("runs", "List past runs, show one, or compare two."),
    "report": ("html_report", "Write a page about a past run, for a browser."),
    "migrate": ("migrate", "Create and change tables as a sync would, without rows."),
    "tables": ("tables", "Write pages or JSON about the tables of the sources in a config."),
    "validate-config": ("validate_config", "Check a config and every plugin's spec; sync nothing."),
    "test-connection": ("test_connection", "Try to reach every source and destination of a config."),
    "init": ("init", "Write a working config to start from."),
    "plugin": ("plugin", "See what plugins there are, and fetch those that a config needs."),
    "docs": ("docs", "Write the reference pages."),
    "schema": ("schema", "Print the JSON Schema of a config, for editors."),
    "completion": ("completion", "Print the script that completes commands in a shell."),
}
"""Command name → module in `catchment.cli` and the line that `--help` shows, so that help imports no command."""

ELSEWHERE = ("login", "logout", "switch", "addon", "install")
"""Commands of upstream's that only say what to do instead."""


class _Lazy(click.Group):
    """A group whose commands are imported when they run, and whose own options may stand behind a command too."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in ELSEWHERE:
            from catchment.cli.elsewhere import answer

            return answer(cmd_name)
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"catchment.cli.{COMMANDS[cmd_name][0]}")
        command: click.Command = module.command
        command.epilog = "Options for the log and the like: `catchment --help`; they may stand here too."
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, self._hoisted(args))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in (*COMMANDS, *ELSEWHERE) and not args[0].startswith("-"):
            from catchment.errors import did_you_mean

            raise click.UsageError(f"no such command {args[0]!r}; {did_you_mean(args[0], COMMANDS)}", ctx)
        return super().resolve_command(ctx, args)

    def _hoisted(self, args: list[str]) -> list[str]:
        """`args` with the root's options in front: upstream takes them anywhere. Behind `--` nothing is moved."""
        flags = {
            name: isinstance(option, click.Option) and option.is_flag for option in self.params for name in option.opts
        }
        front: list[str] = []
        rest = list(args)
        behind: list[str] = []
        while rest:
            argument = rest.pop(0)
            name, has_value, _ = argument.partition("=")
            if argument == "--":
                behind += [argument, *rest]
                break
            if name not in flags or name == "--version":
                behind.append(argument)
                continue
            front.append(argument)
            if not flags[name] and not has_value:
                if not rest:
                    raise click.BadOptionUsage(name, f"Option {name!r} requires an argument.")
                front.append(rest.pop(0))
        return front + behind


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="catchment", message="%(prog)s version %(version)s")
@click.option("--log-level", type=click.Choice(["trace", "debug", "info", "warn", "error"]), default="info",
              show_default=True, help="Least level that is logged.")  # fmt: skip
@click.option("--log-format", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.option("--log-file-name", metavar="FILE", help="Where the log goes; it is appended to. [default: catchment.log]")
@click.option("--no-log-file", is_flag=True, help="Write no log file.")
@click.option("--log-file-overwrite", is_flag=True, help="Begin the log file anew.")
@click.option("--log-console", is_flag=True, help="Log to standard error as well, and show no progress.")
@click.option("--cq-dir", metavar="FOLDER", default=".cq", show_default=True,
              help="Folder of downloaded plugins and of the journal of runs.")  # fmt: skip
@click.option("--invocation-id", metavar="UUID", help="Id of this run in logs and results. [default: a random one]")
@click.option("--telemetry-level", type=click.Choice(["none", "errors", "stats", "all"]), expose_value=False,
              help="Accepted and ignored: there is no telemetry.")  # fmt: skip
@click.option("--data-dir", metavar="FOLDER", expose_value=False, help="Accepted and ignored, as upstream does.")
@click.option("--color", metavar="WHEN", expose_value=False, help="Accepted and ignored, as upstream does.")
@click.pass_context
def root(ctx: click.Context, /, **given: Any) -> None:
    """Copy what you have in clouds, SaaS tools, databases and files into your own database."""
    from catchment.cli.output import Settings

    ctx.obj = Settings(
        invocation_id=_invocation_id(given["invocation_id"]),
        cq_dir=given["cq_dir"] or ".cq",
        log_level=given["log_level"],
        log_format=given["log_format"],
        log_file="" if given["no_log_file"] else given["log_file_name"] or "catchment.log",
        log_file_is_wanted=bool(given["log_file_name"]),
        log_file_overwrite=given["log_file_overwrite"],
        log_console=given["log_console"],
    )


def _invocation_id(text: str | None) -> str:
    """The id in its usual form; a new one where none is given."""
    import re
    import uuid

    if text is None:
        return str(uuid.uuid4())
    # Each form that upstream takes; Python's own reader takes dashes anywhere.
    dashed = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
    if not re.fullmatch(rf"(urn:uuid:)?{dashed}|\{{{dashed}\}}|[0-9a-f]{{32}}", text.lower()):
        example = "3f2504e0-4f89-41d3-9a0c-0305e82c3301"
        raise click.UsageError(f"--invocation-id: expected a UUID such as {example}, got {text!r}")
    return str(uuid.UUID(text))


def _finish() -> None:
    """Do what commands left for the end."""
    from catchment.cli.output import AT_END

    while AT_END:
        AT_END.pop()()


def main() -> None:
    """Run the command line and exit: 0, 1 for a user's or plugin's mistake, 2 for table errors, 128 + signal."""
    choose_allocator()
    try:
        code = root.main(prog_name="catchment", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        code = 0
    except Exception as error:
        from catchment.cli.failure import tell

        code = tell(error, sys.argv[1:])
    code = code if isinstance(code, int) else 0
    _finish()
    if threading.active_count() > 1:
        # A source is stuck after an interrupt, and Python would wait for its threads. What can be durable is.
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)
