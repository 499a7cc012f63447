"""A user's mistake gets a message and exit code 1, never a traceback; `--output json` makes it a document."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from tests.cli.run import catchment

COMMANDS = ["sync", "migrate", "tables", "validate-config", "test-connection", "plugin install"]


@pytest.fixture
def run(tmp_path):
    return lambda *arguments, **environment: catchment(*arguments, cwd=tmp_path, **environment)


def make(name, folder):
    """A path that holds a mistake, and what is to be said of it."""
    path = folder / "x.yml"
    if name == "missing":
        return path, f"open {path}: no such file or directory"
    if name == "empty folder":
        (folder / "configs").mkdir()
        return folder / "configs", "the folder has no file that ends in `.yml` or `.yaml`"
    if name == "binary":
        path.write_bytes(bytes(range(256)) * 20)
        return path, "UTF-8"
    if name == "control characters":
        path.write_bytes(b"kind: \x00\x01\x02 source")
        return path, str(path)
    if name == "broken":
        path.write_text("kind: source\nspec: {name: [}\n")
        return path, f"{path}:2"
    if name == "empty file":
        path.write_text("")
        return path, "expecting at least one source"
    if name == "a list":
        path.write_text("- 1\n- 2\n")
        return path, "expected a mapping"
    assert name == "dangling link"
    path.symlink_to(folder / "nowhere")
    return path, "no such file or directory"


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    "name",
    ["missing", "empty folder", "binary", "control characters", "broken", "empty file", "a list", "dangling link"],
)
def test_a_config_that_cannot_be_read(run, tmp_path, command, name):
    path, message = make(name, tmp_path)

    text = run(*command.split(" "), path)
    document = run(*command.split(" "), path, "--output", "json")

    assert text.returncode == document.returncode == 1
    assert message in text.stderr
    assert "Traceback" not in text.stderr + document.stderr
    assert message in json.loads(document.stdout)["error"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(run, config):
    path = config()
    path.chmod(0)

    done = run("sync", path)

    assert done.returncode == 1
    assert "permission denied" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sync"], "Missing argument 'CONFIG...'"),
        (["sync", "c.yml", "--bogus"], "No such option"),
        (["sync", "c.yml", "--fail-on", "sometimes"], "'sometimes' is not one of"),
        (["sync", "c.yml", "--sources-in-parallel", "0"], "0 is not in the range"),
        (["tables", "c.yml", "--format", "xml"], "'xml' is not one of 'json', 'markdown'"),
        (["tables", "c.yml", "--filter", "some"], "'some' is not one of 'all', 'spec'"),
        (["completion", "tcsh"], "'tcsh' is not one of 'bash', 'zsh', 'fish'"),
        (["init"], "name a source with --source (there are `file`, `postgresql`, `sqlite`, `test`)"),
        (["init", "--source", "file"], "name a destination with --destination"),
        (["plugin", "lst"], "No such command 'lst'"),
        (["snyc", "c.yml"], "did you mean `sync`?"),
    ],
)
def test_a_command_line_that_is_wrong(run, arguments, message):
    text = run(*arguments)
    document = run(*arguments, "--output", "json")

    assert text.returncode == document.returncode == 1
    assert message in text.stderr
    assert "Traceback" not in text.stderr
    assert message in json.loads(document.stdout)["error"]


@pytest.mark.parametrize(
    ("command", "advice"),
    [
        ("login", "there is no account to log in to"),
        ("login --team x", "there is no account to log in to"),
        ("logout", "there is no account to log out of"),
        ("switch my-team", "keep one config for each of them"),
        ("addon download a/b/c@v1 -t .", "there are no add-ons"),
        ("addon publish manifest.json v1", "there are no add-ons"),
        ("plugin publish -D dist --finalize", "publish a Python package with an entry point `catchment.sources`"),
        ("plugin docs download x", "`catchment docs` writes its pages"),
        ("install c.yml", "`install` is now called `catchment plugin install`"),
    ],
)
def test_a_command_of_the_vendors_cloud_says_what_to_do_instead(run, command, advice):
    text = run(*command.split(" "))
    document = run(*command.split(" "), "--output", "json")

    assert text.returncode == document.returncode == 1
    assert text.stderr.startswith("Error: ")
    assert text.stderr.count("\n") == 1
    assert advice in text.stderr
    assert advice in json.loads(document.stdout)["error"]


def test_a_reader_that_goes_away_does_not_stop_a_sync(config, tmp_path):
    read, write = os.pipe()
    os.close(read)
    place = tmp_path / "s.jsonl"

    done = subprocess.run(
        [sys.executable, "-m", "catchment", "sync", config(), "--summary-location", place],
        cwd=tmp_path, stdout=write, stderr=subprocess.PIPE, text=True, timeout=60, check=False,
    )  # fmt: skip
    os.close(write)

    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(place.read_text())["resources"] == 13


@pytest.mark.parametrize("arguments", [["--help"], ["plugin", "list"], ["completion", "bash"], ["schema"], ["snyc"]])
def test_a_reader_that_goes_away_gets_no_traceback(tmp_path, arguments):
    read, write = os.pipe()
    os.close(read)

    done = subprocess.run(
        [sys.executable, "-m", "catchment", *arguments], cwd=tmp_path,
        stdout=write, stderr=subprocess.PIPE, text=True, timeout=60, check=False,
    )  # fmt: skip
    os.close(write)

    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr


@pytest.mark.parametrize("arguments", [["sync"], ["plugin", "list"]])
def test_a_closed_standard_output(config, tmp_path, arguments):
    command = [sys.executable, "-m", "catchment", *arguments, *([str(config())] if arguments == ["sync"] else [])]
    closed = subprocess.run(
        ["sh", "-c", 'exec "$@" >&-', "sh", *command], cwd=tmp_path, stderr=subprocess.PIPE, text=True, check=False
    )

    assert closed.returncode == 0, closed.stderr
    assert closed.stderr == ""


def test_a_full_disk_is_told_without_a_traceback(config, tmp_path):
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "catchment", "validate-config", config()],
            cwd=tmp_path, stdout=full, stderr=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip

    assert done.returncode == 1
    assert "no space left on device" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_bug_of_a_plugin_is_a_message_and_a_traceback_for_its_author(run, write_config, tmp_path):
    (tmp_path / "buggy.py").write_text("raise RuntimeError('half written')\n")
    path = write_config(
        "kind: source\nspec: {name: s, registry: python, path: 'buggy:x', tables: ['*'], destinations: [d]}\n"
        "---\nkind: destination\nspec: {name: d, registry: python, path: test, write_mode: append}\n"
    )

    done = run("sync", path, "--output", "json", PYTHONPATH=str(tmp_path))

    assert done.returncode == 1
    assert json.loads(done.stdout) == {"error": "RuntimeError: half written"}
    assert done.stderr.rstrip().endswith("RuntimeError: half written")
