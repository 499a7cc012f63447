"""Secrets are put wherever a config takes them, everything is made to fail, and all that comes out is searched."""

from __future__ import annotations

import json
import re
from contextlib import closing
from pathlib import Path

import psycopg
import pytest

from catchment.engine.plan import make_plan
from catchment.engine.sync import Options, Sync
from catchment.spec.load import load
from tests.cli.run import TEST_CONFIG, catchment

SECRET = "hunter2-0xC0FFEE"
OTHER = "correct horse/battery@staple"


@pytest.fixture
def everything(tmp_path):
    """Runs a command with the loudest log, in text and as JSON, and gives all that came out of it."""

    def run(*arguments, **environment):
        texts = []
        for output in ("text", "json"):
            # No traceback either: what fails here fails for a reason that is told.
            done = catchment(
                *arguments, "--output", output, "--log-level", "trace", "--log-console", "--log-format", output,
                "--log-file-name", f"{output}.log", cwd=tmp_path, **environment,
            )  # fmt: skip
            texts += [done.stdout, done.stderr]
            if output == "json":
                json.loads(done.stdout)
        texts += [path.read_text() for path in tmp_path.rglob("*") if path.suffix in (".log", ".jsonl", ".txt", ".md")]
        return "\n".join(texts)

    return run


def assert_hidden(text, *secrets):
    found = [secret for secret in secrets if secret in text]
    assert found == []
    assert "**********" in text


@pytest.mark.parametrize("fails", ["client", "table", "known", "open", "migrate", "write"])
@pytest.mark.parametrize("seeded", ["env", "file", "literal"])
def test_a_plugin_that_tells_its_secrets(everything, chatty, tmp_path, fails, seeded):
    (tmp_path / "secret").write_text(f"{SECRET}\n")
    url = f"https://me:{OTHER}@example.com/x"
    values = {
        "env": ("'${PASSWORD}'", "'${URL}'"),
        "file": (f"'${{file:{tmp_path}/secret}}'", "'${URL}'"),
        "literal": (json.dumps(SECRET), json.dumps(url)),
    }[seeded]
    spec = "{{password: {}, url: {}, fails: {}, prints: true}}".format(*values, fails)
    path, environment = chatty(spec, spec)
    options = ["--summary-location", "s.jsonl", "--tables-metrics-location", "m.txt"]

    text = everything("sync", path, *options, **environment, PASSWORD=SECRET, URL=url)

    assert_hidden(text, SECRET, OTHER, "correct horse", "battery", "staple")
    # The messages themselves are all there.
    wanted = {"client": "cannot log in with", "table": "bad answer to", "known": "does not know"}
    assert wanted.get(fails, f"RuntimeError: {fails} with") in text
    assert fails in ("client", "open") or "level 5 says" in text
    assert fails == "open" or "connecting to https://me:**********@example.com/x" in text or seeded != "literal"


@pytest.mark.parametrize("command", ["test-connection", "tables", "migrate", "validate-config", "plugin install"])
def test_every_command_keeps_them(everything, chatty, command):
    spec = f"{{password: {SECRET}, url: '${{URL}}', fails: client, wrong_key: {SECRET}, prints: '{SECRET}'}}"
    for source in (spec, spec.replace(f", wrong_key: {SECRET}, prints: '{SECRET}'", "")):
        path, environment = chatty(source, source.replace("client", "open"))
        text = everything(*command.split(" "), path, **environment, URL=f"https://me:{OTHER}@example.com/x")
        assert SECRET not in text
        assert "battery" not in text


def test_names_from_the_environment_are_hidden_in_results_and_summaries(everything, write_config, tmp_path):
    text = TEST_CONFIG.format(source="{fail_tables: [test_paid_table]}", destination="{}")
    text = (
        text.replace("name: t,", "name: 'source-${A}',").replace("[d]", "['${B}']").replace("name: d,", "name: '${B}',")
    )

    out = everything("sync", write_config(text), "--summary-location", "s.jsonl", A=SECRET, B="other-hidden")

    assert_hidden(out, SECRET, "other-hidden")
    (line, _) = (tmp_path / "s.jsonl").read_text().splitlines()
    assert "**********" in json.loads(line)["source_name"]


def test_values_inside_a_document_from_the_environment(everything, write_config):
    text = TEST_CONFIG.format(source="'${SPEC}'".replace("'", ""), destination="{}")
    out = everything("sync", write_config(text), SPEC=json.dumps({"num_rows": SECRET, "nmu_rows": 3}))

    assert SECRET not in out
    assert "spec.spec.num_rows" in out or "did you mean `num_rows`?" in out


@pytest.mark.parametrize(
    "text",
    [
        "kind: '${X}'\nspec: {}",
        "'${X}'",
        "kind: source\nspec: '${X}'",
        "kind: source\nspec: {name: s, path: p, registry: '${X}', tables: ['*'], destinations: [d]}",
        "kind: source\nspec: {name: s, path: '${X}', registry: python, tables: ['*'], destinations: ['${X}']}",
        "kind: source\nspec: {name: s, '${X}': 1, path: test, registry: python, tables: '${X}', destinations: [d]}",
        "kind: source\nspec: {name: s, version: '${X}', path: a/b, tables: ['*'], destinations: [d]}",
    ],
)
def test_a_config_that_is_wrong_in_many_ways(everything, write_config, text):
    for command in ("sync", "validate-config", "test-connection"):
        assert SECRET not in everything(command, write_config(text), X=SECRET)


@pytest.fixture
def guarded_url(postgresql_url):
    """A connection string of a user whose password the server asks for, without it; the right one is `SECRET`."""
    with closing(psycopg.connect(postgresql_url, autocommit=True)) as connection:
        connection.execute(f"create role guarded login superuser password '{SECRET}'")
        ((file,),) = connection.execute("show hba_file").fetchall()
        rules = Path(file)
        before = rules.read_text()
        rules.write_text(f"host all guarded 127.0.0.1/32 scram-sha-256\n{before}")
        connection.execute("select pg_reload_conf()")
        yield postgresql_url.replace("user=postgres", "user=guarded")
        rules.write_text(before)
        connection.execute("select pg_reload_conf()")
        connection.execute("drop owned by guarded")
        connection.execute("drop role guarded")


@pytest.mark.parametrize("command", ["sync", "migrate", "test-connection"])
@pytest.mark.parametrize("form", ["words", "url", "broken words", "broken url"])
def test_a_wrong_password_for_a_real_server(everything, write_config, guarded_url, command, form):
    parts = dict(re.findall(r"(\w+)=(\S+)", guarded_url))
    wrong = "wr0ng+pass word/at@all"
    connection = {
        "words": f"{guarded_url} password='{wrong}'",
        "url": "postgresql://guarded:wr0ng%2Bpass%20word%2Fat%40all@127.0.0.1:{port}/{dbname}".format(**parts),
        "broken words": f"{guarded_url} password={wrong}",
        "broken url": "postgresql://guarded:{}@127.0.0.1:{port}/{dbname}".format(wrong, **parts),
    }[form]
    for value in (json.dumps(connection), "'${CONNECTION}'"):
        text = TEST_CONFIG.format(source="{}", destination=f"{{connection_string: {value}}}")
        text = text.replace("name: d, registry: python, path: test", "name: d, registry: python, path: postgresql")
        out = everything(command, write_config(text), CONNECTION=connection)

        assert not [piece for piece in (wrong, "wr0ng", "word/", "at@all", "%40all") if piece in out]
        wanted = "cannot be read: " if form.startswith("broken") else "password authentication failed"
        assert wanted in out


def test_the_right_password_for_a_real_server(everything, write_config, guarded_url):
    text = TEST_CONFIG.format(source="{}", destination="{connection_string: '${URL} password=${PASSWORD}'}")
    text = text.replace("name: d, registry: python, path: test", "name: d, registry: python, path: postgresql")

    out = everything("sync", write_config(text), URL=guarded_url, PASSWORD=SECRET)

    assert "Sync completed successfully. Resources: 13" in out
    assert SECRET not in out


@pytest.mark.parametrize("fails", ["client", "table", "open", "write"])
def test_the_result_and_the_log_of_a_sync_in_process(chatty, tmp_path, monkeypatch, caplog, fails):
    spec = f"{{password: {SECRET}, url: 'https://me:pw-{SECRET[:-1]}@example.com', fails: {fails}}}"
    path, _ = chatty(spec, spec)
    monkeypatch.syspath_prepend(str(tmp_path))
    caplog.set_level(1)

    result = Sync(make_plan(load([path])), Options(summary_location=str(tmp_path / "s.jsonl"))).run()

    shown = json.dumps(result.to_json()) + "".join(map(repr, (vars(record) for record in caplog.records))) + caplog.text
    assert_hidden(shown, SECRET[:-1])
