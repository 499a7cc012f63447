"""The commands, as a person runs them."""

from __future__ import annotations

import json

import pytest

from tests.cli.run import TEST_CONFIG
from tests.cli.run import catchment as run_command

ID = "3f2504e0-4f89-41d3-9a0c-0305e82c3301"


@pytest.fixture
def catchment(tmp_path):
    """Runs a command in a folder of its own."""
    return lambda *arguments, cwd=tmp_path, **environment: run_command(*arguments, cwd=cwd, **environment)


def test_init_writes_a_config_that_works(catchment, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "people.csv").write_text("id,name\n1,Ada\n")
    assert catchment("init", "--source", "file", "--destination", "duckdb", cwd=tmp_path).returncode == 0

    assert catchment("validate-config", "file_to_duckdb.yml", cwd=tmp_path).returncode == 0
    again = catchment("init", "--source", "file", "--destination", "duckdb", cwd=tmp_path)
    assert again.returncode == 1
    assert "file_to_duckdb.yml" in again.stderr


def test_init_with_a_typo(catchment, tmp_path):
    done = catchment("init", "--source", "fiel", "--destination", "duckdb", cwd=tmp_path)

    assert done.returncode == 1
    assert "file" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_plugin_list(catchment, tmp_path):
    done = catchment("plugin", "list", "--output", "json")

    listed = json.loads(done.stdout)
    names = {(plugin["kind"], plugin["name"]) for plugin in listed}
    wanted = {("source", "file"), ("source", "postgresql"), ("source", "sqlite"), ("destination", "duckdb"),
              ("destination", "postgresql"), ("destination", "sqlite"), ("destination", "file")}  # fmt: skip
    assert wanted <= names


def test_tables(catchment, config):
    done = catchment("tables", config(), "--output", "json")

    assert done.returncode == 0, done.stderr
    assert "test_some_table" in done.stdout


def test_migrate_makes_tables_without_rows(catchment, write_config, tmp_path):
    import duckdb

    path = tmp_path / "m.duckdb"
    text = TEST_CONFIG.format(source="{}", destination=f"{{connection_string: {path}}}")
    done = catchment("migrate", write_config(text.replace("name: d, registry: python, path: test",
                                                          "name: d, registry: python, path: duckdb")))  # fmt: skip

    assert done.returncode == 0, done.stderr
    with duckdb.connect(str(path)) as connection:
        assert connection.execute("select count(*) from test_some_table").fetchall() == [(0,)]


def test_test_connection(catchment, config, write_config, tmp_path):
    assert catchment("test-connection", config()).returncode == 0

    text = TEST_CONFIG.format(source="{}", destination="{connection_string: /no/such/folder/x}")
    of_test, of_sqlite = "name: d, registry: python, path: test", "name: d, registry: python, path: sqlite"
    done = catchment("test-connection", write_config(text.replace(of_test, of_sqlite)))
    assert done.returncode == 1
    assert "does not exist" in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("source", "options", "code"),
    [
        ("{}", [], 0),
        ("{fail_tables: [test_some_table]}", [], 2),
        ("{fail_tables: [test_some_table]}", ["--fail-on", "error"], 0),
        ("{fail_immediately: true}", [], 2),
        ("{required_env: ['NO_SUCH=1']}", [], 1),
        ("{required_env: ['NO_SUCH=1']}", ["--fail-on", "never"], 0),
    ],
)
def test_exit_codes(catchment, config, source, options, code):
    done = catchment("sync", config(source), *options)

    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_report_names_the_table_and_its_error(catchment, config):
    done = catchment("sync", config("{fail_tables: [test_paid_table], num_rows: 3}"))

    assert "test_paid_table" in done.stdout
    assert "error in t → d test_paid_table [client_0]: `fail_tables` has " in done.stdout
    assert "Errors: 1" in done.stdout


def test_json_has_every_field_of_the_result(catchment, config):
    result = json.loads(catchment("sync", config(), "--output", "json", "--invocation-id", ID).stdout)

    assert result["invocation_id"] == ID
    assert set(result["tables"][0]) == {
        "source", "destination", "table", "parent", "rows_read", "rows_written", "rows_rejected", "rows_stale_deleted",
        "rows_stale_kept", "stale_kept_reason", "expectations", "bytes", "started", "seconds_read", "seconds_written",
        "published", "complete", "errors",
    }  # fmt: skip


def test_a_command_with_a_typo(catchment):
    done = catchment("snyc")

    assert done.returncode == 1
    assert "did you mean `sync`?" in done.stderr


def test_validate_config_says_what_it_checked(catchment, config):
    done = catchment("validate-config", config("{num_rows: 2, tables: 1}"))

    assert done.returncode == 0
    assert "ok: source t (python@test): its spec (num_rows, tables), its destinations (d)" in done.stdout
    assert (
        "ok: destination d (python@test): its spec, which is empty, that it can do what is asked "
        "(write_mode append, migrate_mode safe, publish stream)"
    ) in done.stdout
    document = json.loads(catchment("validate-config", config(), "--output", "json", "--license", "x").stdout)
    assert document["valid"]
    assert [plugin["kind"] for plugin in document["checked"]] == ["source", "destination"]


def test_validate_config_lists_every_mistake(catchment, config):
    path = config("{num_rowss: 2}", "{error_on_write: maybe}")

    text = catchment("validate-config", path)
    document = json.loads(catchment("validate-config", path, "--output", "json").stdout)

    assert text.returncode == 1
    assert text.stderr.count("Error: ") == 2
    assert "2 mistakes; nothing was read or written" in text.stderr
    assert [problem["path"] for problem in document["problems"]] == ["spec.spec.num_rowss", "spec.spec.error_on_write"]
    assert "did you mean `num_rows`?" in document["error"]
    assert document["valid"] is False


def test_test_connection_has_upstreams_lines_and_keys(catchment, write_config):
    text = TEST_CONFIG.format(source="{required_env: ['NO_SUCH=1']}", destination="{nope: 1}")
    path = write_config(text)

    shown = catchment("test-connection", path)
    document = json.loads(catchment("test-connection", path, "--output", "json").stdout)

    first, source, destination = shown.stdout.splitlines()[1:4]
    assert first == "Test Connection Results"
    assert source.startswith("source       t (python@test) Failure: UNKNOWN \t required_env")
    assert destination.startswith("destination  d (python@test) Failure: INVALID_SPEC \t ")
    assert shown.returncode == 1
    assert "at least one test connection failed" in shown.stderr
    assert document["error"] == "at least one test connection failed"
    assert [list(result) for result in document["results"]] == [
        ["plugin_ref", "plugin_kind", "success", "failure_code", "failure_description"]
    ] * 2


def test_test_connection_of_a_source_alone(catchment, write_config):
    path = write_config("kind: source\nspec: {name: t, registry: python, path: test, tables: ['*'], destinations: []}")

    assert catchment("test-connection", path).returncode == 0


def test_plugin_install_tells_what_is_missing(catchment, write_config):
    text = TEST_CONFIG.format(source="{}", destination="{}")
    good = catchment("plugin", "install", write_config(text))
    assert (good.returncode, good.stderr) == (0, "")
    assert "source t (python@test): installed" in good.stdout

    for path, message in (
        ("path: tset", "did you mean `test`?"),
        ("path: 'no_such_package:x'", "cannot be imported: No module named 'no_such_package'"),
    ):
        config = write_config(text.replace("path: test, write_mode", f"{path}, write_mode"))
        bad = catchment("plugin", "install", config)
        assert bad.returncode == 1
        assert message in bad.stdout
        assert "1 of 2 plugins cannot be used" in bad.stderr
        document = json.loads(catchment("plugin", "install", config, "--output", "json").stdout)
        assert message in document["plugins"][1]["missing"]
        assert document["error"] == "1 of 2 plugins cannot be used"


def test_plugin_install_names_the_extra_of_a_plugin_whose_driver_is_missing(catchment, write_config, tmp_path):
    # A package without its metadata is one that is not installed.
    hide = "import importlib.metadata as m\nv = m.version\ndef version(name):\n"
    hide += "    if name == 'psycopg': raise m.PackageNotFoundError(name)\n    return v(name)\nm.version = version\n"
    (tmp_path / "sitecustomize.py").write_text(hide)
    text = TEST_CONFIG.format(source="{}", destination="{connection_string: x}").replace(
        "name: d, registry: python, path: test", "name: d, registry: python, path: postgresql"
    )
    done = catchment("plugin", "install", write_config(text), PYTHONPATH=str(tmp_path))

    assert done.returncode == 1
    assert "lacks psycopg; pip install 'catchment[postgresql]'" in done.stdout


def test_schema_is_a_schema(catchment, config):
    import yaml

    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads(catchment("schema").stdout)
    assert json.loads(catchment("schema", "--output", "json").stdout) == schema

    jsonschema.Draft202012Validator.check_schema(schema)
    for document in yaml.safe_load_all(config().read_text()):
        jsonschema.validate(document, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"kind": "nonsense", "spec": {}}, schema)


@pytest.mark.parametrize(
    ("shell", "variable"), [("bash", "bash_complete"), ("zsh", "zsh_complete"), ("fish", "fish_complete")]
)
def test_completion(catchment, shell, variable):
    script = catchment("completion", shell)

    assert script.returncode == 0
    assert f"_CATCHMENT_COMPLETE={variable}" in script.stdout
    assert json.loads(catchment("completion", shell, "--output", "json").stdout)[
        "script"
    ] == script.stdout.removesuffix("\n")


@pytest.mark.parametrize(
    ("words", "found"),
    [("catchment mig", "migrate"), ("catchment sync --summ", "--summary-location"), ("catchment plugin l", "list")],
)
def test_completion_completes(catchment, words, found):
    done = catchment(_CATCHMENT_COMPLETE="bash_complete", COMP_WORDS=words, COMP_CWORD=str(words.count(" ")))

    assert found in done.stdout
    assert "login" not in done.stdout


def test_docs_are_written_and_checked(catchment, tmp_path):
    made = json.loads(catchment("docs", "--directory", "reference", "--output", "json").stdout)
    assert made["pages"] == made["written"] != []
    assert catchment("docs", "--directory", "reference", "--check").returncode == 0

    (tmp_path / "reference" / "cli.md").write_text("old")
    (tmp_path / "reference" / "gone.md").write_text("old")
    done = catchment("docs", "--directory", "reference", "--check")
    assert done.returncode == 1
    assert "stale reference pages: cli.md, gone.md; run `make docs`" in done.stderr


@pytest.mark.parametrize(
    "command",
    ["sync", "migrate", "tables", "validate-config", "test-connection", "plugin install", "plugin list", "schema",
     "completion bash", "init --yes"],
)  # fmt: skip
def test_json_is_all_that_is_on_standard_output(catchment, config, command):
    config_too = command in ("sync", "migrate", "tables", "validate-config", "test-connection", "plugin install")

    done = catchment(*command.split(" "), *([config()] if config_too else []), "--output", "json", "--log-console")

    assert done.returncode == 0, done.stderr
    json.loads(done.stdout)
