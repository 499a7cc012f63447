"""`validate-config` holds the spec of a program of `registry: local` against the schema that the program gives."""

from __future__ import annotations

import json

import pytest

from tests.cli.run import catchment
from tests.wire.test_local import launcher, nothing_is_left
from tests.wire.test_misbehaving import bad

__all__ = ["bad", "launcher", "nothing_is_left"]

CONFIG = """
kind: source
spec:
  name: s
  registry: local
  path: {path}
  tables: ["*"]
  destinations: [d]
  spec: {spec}
---
kind: destination
spec: {{name: d, registry: python, path: test, write_mode: append}}
"""


@pytest.fixture
def validated(write_config, tmp_path):
    def run(path, spec, *flags):
        return catchment("validate-config", write_config(CONFIG.format(path=path, spec=spec)), *flags, cwd=tmp_path)

    return run


def test_spec_that_is_as_the_program_wants_it_is_checked(validated, bad):
    done = validated(bad("schema"), "{rows: 3, address: here}")

    assert done.returncode == 0, done.stderr
    assert "its spec (rows, address), its destinations (d)" in done.stdout
    assert "not checked" not in done.stdout


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ("{address: here, rows: many}", ":9:25 spec.spec.rows: source \"s\": expected integer or null, got 'many'"),
        ("{address: here, row: 3}", 'spec.spec.row: source "s": unknown field "row"; did you mean `rows`?'),
        ("{rows: 3}", 'spec.spec.address: source "s": address is required'),
        ("{address: [1]}", 'spec.spec.address: source "s": expected string, got [1]'),
        ("{address: here, env: [a=b, c]}", "spec.spec.env[1]: source \"s\": 'c' does not match"),
    ],
)
def test_mistake_in_the_spec_of_a_program_has_its_place(validated, bad, spec, told):
    path = bad("schema")
    text, document = validated(path, spec), json.loads(validated(path, spec, "--output", "json").stdout)

    assert text.returncode == 1
    assert told in text.stderr
    assert "1 mistake;" in text.stderr
    assert document["valid"] is False
    assert len(document["problems"]) == 1


def test_mistakes_in_the_spec_of_our_own_program_are_found_as_well(validated, launcher):
    done = validated(launcher("catchment.sources.test:test"), "{num_rows: many, num_row: 1}")

    assert done.returncode == 1
    assert "spec.spec.num_rows: source \"s\": expected integer, got 'many'" in done.stderr
    assert 'unknown field "num_row"; did you mean' in done.stderr


def test_value_that_sounds_like_a_secret_is_not_shown(validated, bad):
    done = validated(bad("schema"), "{address: here, rows: 1, password: hunter-2222, env: hunter-2222}")

    assert done.returncode == 1
    assert 'unknown field "password"' in done.stderr
    assert 'spec.spec.env: source "s": expected array, got' in done.stderr
    assert "hunter-2222" not in done.stderr + done.stdout


@pytest.mark.parametrize(
    ("mistake", "reason"),
    [
        ("no-schema", "its plugin gives no schema for it"),
        ("far-schema", "its plugin gives a schema that cannot be used: "),
        ("wrong-schema-type", "its plugin gives a schema that cannot be used: "),
        ("wrong-schema-pattern", "its plugin gives a schema that cannot be used: "),
        ("exit-schema", "its process ended with status 7"),
    ],
)
def test_spec_that_cannot_be_checked_is_no_mistake_and_is_told(validated, bad, mistake, reason):
    path = bad(mistake)
    text, document = validated(path, "{rows: 3}"), json.loads(validated(path, "{rows: 3}", "--output", "json").stdout)

    assert text.returncode == 0, text.stderr
    assert f"not checked: source s (local@{path}): its spec, as " in text.stdout
    assert reason in text.stdout
    assert "its spec (rows)" not in text.stdout
    assert reason in document["checked"][0]["unchecked"]


def test_plugin_that_runs_elsewhere_is_not_reached(write_config, tmp_path):
    text = CONFIG.format(path="127.0.0.1:1", spec="{rows: 3}").replace("registry: local", "registry: grpc")
    done = catchment("validate-config", write_config(text), cwd=tmp_path)

    assert done.returncode == 0
    assert "not checked: source s (grpc@127.0.0.1:1): its spec, as it runs elsewhere" in done.stdout
