"""Secrets are put wherever a config takes them, everything is made to fail, and all that comes out is searched."""

from __future__ import annotations

import json
import os
import re
import sys
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
        if (tmp_path / ".cq" / "journal.sqlite").exists():
            # What is made of the journal, and the journal itself.
            for again in (("report", "--out", "x.html"), ("runs", "show", "--output", "json")):
                done = catchment(*again, "--log-file-name", "again.log", cwd=tmp_path, **environment)
                texts += [done.stdout, done.stderr]
        written = {".log", ".jsonl", ".txt", ".md", ".html", ".prom", ".sqlite", ".sqlite-wal"}
        found = [path for path in tmp_path.rglob("*") if path.suffix in written]
        assert (tmp_path / ".cq" / "journal.sqlite").exists() == (tmp_path / "x.html").exists()
        texts += [path.read_bytes().decode(errors="replace") for path in found]
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
    options = ["--summary-location", "s.jsonl", "--tables-metrics-location", "m.txt", "--prometheus-file", "m.prom"]

    text = everything("sync", path, *options, **environment, PASSWORD=SECRET, URL=url)

    assert_hidden(text, SECRET, OTHER, "correct horse", "battery", "staple")
    assert {"x.html", "m.prom"} <= {path.name for path in tmp_path.iterdir()}
    # The messages themselves are all there.
    wanted = {"client": "cannot log in with", "table": "bad answer to", "known": "does not know"}
    assert wanted.get(fails, f"RuntimeError: {fails} with") in text
    assert fails in ("client", "open") or "level 5 says" in text
    assert fails == "open" or "connecting to https://me:**********@example.com/x" in text or seeded != "literal"


@pytest.mark.parametrize(
    "command", ["test-connection", "tables", "migrate", "plan", "validate-config", "plugin install"]
)
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


LEAKY = '''
import pyarrow as pa

from catchment.sdk import Context, Secret, Source, Spec


class LeakySpec(Spec):
    token: Secret


source = Source("leaky", spec=LeakySpec, client=lambda spec: spec)
NOTE = pa.field("note", pa.utf8(), nullable=False)


@source.table(pa.schema([("id", pa.utf8()), ("echo", pa.utf8()), NOTE]), primary_key=["id"])
def things(ctx):
    """Things that an API gives with what it was asked with."""
    token = ctx.spec.token.reveal()
    yield [{"id": token, "echo": f"https://me:{token}@example.com/x", "note": None}, {"id": "b", "note": "c"}]
    ctx.skip_rows(1, f"{token} is no row")
'''


@pytest.fixture
def leaky(tmp_path, write_config):
    """Writes a config whose rows hold the secret that they were asked for with."""
    (tmp_path / "leaky.py").write_text(LEAKY)

    def make(destination, source="registry: python, path: 'leaky:source'"):
        return write_config(f"""
kind: source
spec: {{name: s, {source}, tables: ["*"], destinations: [d], spec: {{token: '${{TOKEN}}'}}}}
---
kind: destination
spec: {{name: d, registry: python, path: duckdb, spec: {{connection_string: {tmp_path}/x.duckdb}}, {destination}}}
""")

    found = [str(tmp_path), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    return make, {"PYTHONPATH": os.pathsep.join(filter(None, found)), "TOKEN": SECRET}


@pytest.mark.parametrize("publish", ["atomic", "stream"])
@pytest.mark.parametrize("most", [0, 5])
def test_a_refused_row_that_holds_a_secret(everything, leaky, publish, most):
    make, environment = leaky

    out = everything("sync", make(f"max_rejects: {most}, publish: {publish}"), **environment)

    assert_hidden(out, SECRET)
    assert ("put aside in `_catchment_rejects`" in out) == bool(most)
    assert "the row with key" in out or most


@pytest.mark.parametrize(
    "rules",
    [
        "things: {values: {id: [a, '${TOKEN}', c]}}",
        "things: {values: {_cq_sync_time: ['${TOKEN}']}}",
        "things: {fresh: {column: '${TOKEN}', within: 1h}}",
        "things: {unique: ['${TOKEN}']}",
        "'${TOKEN}*': {not_null: [id]}",
    ],
)
def test_rules_that_hold_a_secret(everything, leaky, rules):
    make, environment = leaky

    out = everything("sync", make(f"max_rejects: 5, expect: {{{rules}}}"), **environment)

    assert_hidden(out, SECRET)
    assert "expect" in out


@pytest.mark.parametrize(
    "words",
    [
        "raise ValueError(f'no entry with {ctx.spec.token.reveal()}')",
        "raise SystemExit(f'no entry with {ctx.spec.token.reveal()}')",
        "print('no entry with', ctx.spec.token.reveal(), file=sys.stderr); os._exit(3)",
    ],
)
def test_a_plugin_of_another_process_that_tells_its_secret(everything, leaky, tmp_path, words):
    make, environment = leaky
    text = LEAKY.replace("import pyarrow", "import os, sys\nimport pyarrow").replace(
        "    token = ", f"    {words}\n    token = "
    )
    (tmp_path / "leaky.py").write_text(text)
    program = tmp_path / "plugin"
    program.write_text(f"#!{sys.executable}\nfrom catchment.serve import serve\nserve('leaky:source')\n")
    program.chmod(0o755)

    out = everything("sync", make("max_rejects: 5", f"registry: local, path: {program}"), **environment)

    assert_hidden(out, SECRET)
    assert "no entry with" in out
