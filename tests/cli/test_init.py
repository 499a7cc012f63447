"""`catchment init`, with flags and on a terminal."""

from __future__ import annotations

import itertools
import json
import os
import pty
import subprocess
import sys

import pytest

from tests.cli.run import catchment

FIRST_LINE = "# yaml-language-server: $schema=catchment.schema.json"


@pytest.fixture
def run(tmp_path):
    return lambda *arguments, **environment: catchment(*arguments, cwd=tmp_path, **environment)


SOURCES = ["file", "postgresql", "sqlite", "test"]
DESTINATIONS = ["duckdb", "file", "postgresql", "sqlite", "test"]


@pytest.mark.parametrize(("source", "destination"), list(itertools.product(SOURCES, DESTINATIONS)))
def test_what_it_writes_is_valid(run, tmp_path, source, destination):
    done = run("init", "--source", source, "--destination", destination, "--output", "json")
    path = json.loads(done.stdout)["path"]
    (tmp_path / "data").mkdir()

    checked = run("validate-config", path, SOURCE_POSTGRESQL="dbname=x", DESTINATION_POSTGRESQL="dbname=y")

    assert path == f"{source}_to_{destination}.yml"
    assert checked.returncode == 0, checked.stderr
    assert (tmp_path / path).read_text().splitlines()[0] == FIRST_LINE


def test_the_schema_beside_it_is_what_schema_prints(run, tmp_path):
    run("init", "--yes")

    assert json.loads((tmp_path / "catchment.schema.json").read_text()) == json.loads(run("schema").stdout)
    assert (tmp_path / "file_to_duckdb.yml").exists()


def test_spec_path(run, tmp_path):
    (tmp_path / "configs").mkdir()
    done = run("init", "--yes", "--spec-path", "configs/mine.yml")

    assert "Wrote configs/mine.yml" in done.stdout
    assert {path.name for path in (tmp_path / "configs").iterdir()} == {"mine.yml", "catchment.schema.json"}


def test_nothing_is_overwritten(run, tmp_path):
    run("init", "--yes")
    (tmp_path / "file_to_duckdb.yml").write_text("mine")

    done = run("init", "--yes")

    assert done.returncode == 1
    assert "file_to_duckdb.yml is there already" in done.stderr
    assert (tmp_path / "file_to_duckdb.yml").read_text() == "mine"


@pytest.mark.parametrize(
    ("answers", "path"),
    [
        ("\n\n", "file_to_duckdb.yml"),
        ("3\n6\n", "sqlite_to_sqlite.yml"),
        ("postgresql\nfile\n", "postgresql_to_file.yml"),
        ("99\nfiel\ntest\n0\n7\n", "test_to_test.yml"),
    ],
)
def test_on_a_terminal_it_asks(tmp_path, answers, path):
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "catchment", "init"], cwd=tmp_path, stdin=theirs,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    os.write(ours, answers.encode())
    out, err = process.communicate(timeout=30)
    os.close(ours)
    os.close(theirs)

    assert process.returncode == 0, err
    assert f"Wrote {path}." in out
    assert (tmp_path / path).exists()
    assert "  1  file\n  2  postgresql\n  3  sqlite\n  4  test\n" in err
    assert ("did you mean `file`?" in err) == ("fiel" in answers)


def test_only_what_was_not_given_is_asked_on_a_terminal(tmp_path):
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "catchment", "init", "--source", "test"], cwd=tmp_path, stdin=theirs,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    os.write(ours, b"sqlite\n")
    out, err = process.communicate(timeout=30)
    os.close(ours)
    os.close(theirs)

    assert "Wrote test_to_sqlite.yml." in out
    assert "Source (" not in err
