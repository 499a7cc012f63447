"""The options of every command: the log, the id of the run, and what is accepted for upstream's sake."""

from __future__ import annotations

import json
import re
import stat

import pytest

from tests.cli.run import catchment

ID = "3f2504e0-4f89-41d3-9a0c-0305e82c3301"


@pytest.fixture
def run(tmp_path):
    return lambda *arguments, **environment: catchment(*arguments, cwd=tmp_path, **environment)


def test_the_log_is_a_file_that_only_its_owner_reads_and_the_terminal_has_the_report(run, config, tmp_path):
    done = run("sync", config())

    log = tmp_path / "catchment.log"
    assert stat.S_IMODE(log.stat().st_mode) == 0o600
    assert "Start sync" in log.read_text()
    assert "INF" not in done.stdout + done.stderr
    assert "Sync completed successfully." in done.stdout
    assert done.stderr == ""


def test_the_log_is_appended_to_unless_it_is_to_be_overwritten(run, config, tmp_path):
    log = tmp_path / "catchment.log"
    for options, count in (([], 1), ([], 2), (["--log-file-overwrite"], 1)):
        run("sync", config(), *options)
        assert log.read_text().count("Start sync") == count


def test_no_log_file(run, config, tmp_path):
    done = run("sync", config("{fail_tables: [test_paid_table]}"), "--no-log-file", "--log-file-name", "x.log")

    assert not list(tmp_path.glob("*.log"))
    assert done.stderr == ""


def test_the_log_file_has_another_name(run, config, tmp_path):
    run("sync", config(), "--log-file-name", tmp_path / "other.log")

    assert [path.name for path in tmp_path.glob("*.log")] == ["other.log"]


def test_a_named_log_file_that_cannot_be_opened_is_a_mistake(run, config):
    done = run("sync", config(), "--log-file-name", "no/such/folder/x.log")

    assert done.returncode == 1
    assert done.stderr == (
        "Error: the log file 'no/such/folder/x.log' cannot be opened: No such file or directory; "
        "name another one, or use --no-log-file\n"
    )


def test_a_log_file_of_the_default_name_that_cannot_be_opened_is_a_warning(run, config, tmp_path):
    (tmp_path / "catchment.log").mkdir()

    done = run("sync", config())

    assert done.returncode == 0
    assert done.stderr.startswith("Warning: the log file 'catchment.log' cannot be opened: Is a directory")


@pytest.mark.parametrize(
    ("level", "logged"),
    [("trace", 5), ("debug", 4), ("info", 3), ("warn", 2), ("error", 1)],
)
def test_log_level(run, chatty, tmp_path, level, logged):
    path, environment = chatty()
    run("sync", path, "--log-level", level, **environment)

    assert len(re.findall("level \\d+ says", (tmp_path / "catchment.log").read_text())) == logged


def test_log_console_logs_to_standard_error_and_standard_output_stays(run, config, tmp_path):
    done = run("sync", config(), "--log-console", "--progress", "auto")

    assert done.stderr == (tmp_path / "catchment.log").read_text()
    assert "Start sync" in done.stderr
    assert "Sync completed successfully." in done.stdout


LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ (TRC|DBG|INF|WRN|ERR) \S.*( [a-z_]+=(\S+|\".*\"))+")


def test_a_line_of_text_names_the_run_the_plugin_the_table_and_the_client(run, config, tmp_path):
    run("sync", config("{fail_tables: [test_paid_table]}"), "--invocation-id", ID)

    lines = (tmp_path / "catchment.log").read_text().splitlines()
    assert [line for line in lines if not LINE.fullmatch(line)] == []
    (wrong,) = [line for line in lines if " ERR " in line]
    assert "fail_tables" in wrong
    assert wrong.endswith(f" client=client_0 invocation_id={ID} module=sync plugin=test source=t table=test_paid_table")


def test_a_line_of_json_names_the_run_the_plugin_the_table_and_the_client(run, chatty, tmp_path):
    path, environment = chatty('{password: "k7", url: "a\\nb"}')
    run("sync", path, "--log-format", "json", "--invocation-id", ID, **environment)

    lines = [json.loads(line) for line in (tmp_path / "catchment.log").read_text().splitlines()]
    for line in lines:
        assert list(line)[:3] == ["level", "module", "invocation_id"]
        assert list(line)[-2:] == ["time", "message"]
        assert line["invocation_id"] == ID
    (said,) = [line for line in lines if line["message"] == "level 20 says k7"]
    assert said | {"time": ""} == {
        "level": "info", "module": "source", "invocation_id": ID, "source": "t", "plugin": "chatty", "table": "things",
        "where": "a\nb", "time": "", "message": "level 20 says k7",
    }  # fmt: skip
    (caught,) = [line for line in lines if line["message"] == "caught"]
    assert caught["error"] == "KeyError: 'k7'"
    assert caught["stacktrace"].startswith("Traceback (most recent call last):")


@pytest.mark.parametrize("form", [ID, ID.upper(), f"urn:uuid:{ID}", ID.replace("-", ""), f"{{{ID}}}"])
def test_every_form_of_the_invocation_id(run, config, form):
    done = run("sync", config(), "--invocation-id", form, "--output", "json")

    assert json.loads(done.stdout)["invocation_id"] == ID


@pytest.mark.parametrize("form", ["abc", "", ID[:-1], ID + "0", "3f2504e04f89-41d3-9a0c-0305e82c3301", f"urn:{ID}"])
def test_an_invocation_id_that_is_none(run, config, form):
    done = run("sync", config(), "--invocation-id", form)

    assert done.returncode == 1
    assert f"--invocation-id: expected a UUID such as {ID}, got {form!r}" in done.stderr


def test_options_stand_before_or_behind_the_command(run, config, tmp_path):
    for arguments in (
        ["--log-level", "error", "--no-log-file", "sync", config()],
        ["sync", "--log-level=error", config(), "--no-log-file"],
        ["plugin", "--no-log-file", "list", "--log-level", "error"],
    ):
        done = run(*arguments)
        assert done.returncode == 0, done.stderr
    assert not list(tmp_path.glob("*.log"))


def test_what_stands_behind_two_dashes_is_no_option(run):
    done = run("sync", "--", "--log-console")

    assert "open --log-console: no such file or directory" in done.stderr


def test_an_option_without_its_value(run, config):
    done = run("sync", config(), "--log-level")

    assert done.returncode == 1
    assert "Option '--log-level' requires an argument." in done.stderr


def test_what_is_accepted_and_ignored(run, config):
    done = run("sync", config(), "--telemetry-level", "none", "--color", "never", "--data-dir", "x",
               CQ_TELEMETRY_LEVEL="nonsense")  # fmt: skip

    assert done.returncode == 0
    assert "'loud' is not one of 'none', 'errors', 'stats', 'all'" in run("sync", "--telemetry-level", "loud").stderr
    assert "there is no telemetry" in run("--help").stdout


@pytest.mark.parametrize(
    ("option", "folder"), [([], ".cq"), (["--cq-dir", "plugins"], "plugins"), (["--cq-dir", ""], ".cq")]
)
def test_the_folder_of_plugins_is_in_the_log(run, config, tmp_path, option, folder):
    run("sync", config(), *option)

    assert f"catchment cq_dir={folder} " in (tmp_path / "catchment.log").read_text()


def test_a_failure_is_logged(run, tmp_path):
    run("sync", "missing.yml")

    assert "ERR exiting with error error=" in (tmp_path / "catchment.log").read_text()
