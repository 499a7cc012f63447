"""`catchment completion`: the script that completes commands and options in a shell."""

from __future__ import annotations

import click

from catchment.cli.output import output_option, print_json


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@output_option
def command(shell: str, output: str) -> int:
    """Print the script that completes commands in a shell, such as `eval "$(catchment completion bash)"`."""
    from click.shell_completion import get_completion_class

    from catchment.cli.main import root

    completion = get_completion_class(shell)
    assert completion is not None
    script = completion(root, {}, "catchment", "_CATCHMENT_COMPLETE").source()
    if output == "json":
        print_json({"shell": shell, "script": script})
    else:
        click.echo(script)
    return 0
