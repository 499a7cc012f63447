"""Errors: all at once, each with its place, and never a secret in them."""

from __future__ import annotations

from typing import Annotated

import pytest
from pydantic import Field, field_validator, model_validator

from catchment.errors import Problem, SpecError
from catchment.spec.fields import Duration, Secret, Spec, parse_spec
from catchment.spec.load import load
from catchment.spec.model import Config, PartlyWrong

HIDDEN = "**********"


@pytest.fixture
def refuse(tmp_path):
    """Reads a config that is wrong and gives its error without the name of the file."""

    def read(text, environ=None):
        path = tmp_path / "c.yml"
        path.write_text(text)
        with pytest.raises(PartlyWrong) as caught:
            load([path], require="relaxed", environ=environ or {})
        error = caught.value
        shown = "\n".join([str(error), repr(error), *map(repr, error.problems), *map(str, error.config.warnings)])
        return str(error).replace(f"{path}:", "").splitlines(), shown

    return read


def test_a_problem_is_written_with_file_line_column_and_path():
    assert str(Problem("m", "f.yml", 12, 5, "spec.a", "h")) == "f.yml:12:5 spec.a: m; h"
    assert str(Problem("m", "f.yml", 12, 5)) == "f.yml:12:5: m"
    assert str(Problem("m", "f.yml")) == "f.yml: m"
    assert str(Problem("m", path="spec.a")) == "spec.a: m"
    assert str(Problem("m")) == "m"


def test_all_mistakes_come_at_once_in_the_order_of_the_file(refuse):
    lines, _ = refuse(
        "kind: source\n"
        "spec:\n"
        "  nam: s\n"
        "  registry: pyton\n"
        "  path: p\n"
        "  tables: [1, a, 2]\n"
        "  backend_options: {table_name: 5, conection: x}\n"
        "extra: 1\n"
        "---\n"
        "kind: destinatoin\n"
        "---\n"
        "- a list\n"
        "---\n"
        "kind: destination\n"
        "spec: {name: d, path: p, registry: python, write_mode: upsert,\n"
        "       spec: {a: 1}, publish: 5}\n"
    )

    assert lines == [
        "2:1 spec.name: name is required",
        '3:3 spec.nam: unknown field "nam"; did you mean `name`?',
        "4:3 spec.registry: unknown registry: expected one of 'cloudquery', 'github', 'local', 'grpc', 'docker' or "
        "'python', got 'pyton'; did you mean `python`?",
        "6:12 spec.tables[0]: expected a text, got 1; write it in quotes",
        "6:18 spec.tables[2]: expected a text, got 2; write it in quotes",
        "7:21 spec.backend_options.table_name: expected a text, got 5; write it in quotes",
        '7:36 spec.backend_options.conection: unknown field "conection"; did you mean `connection`?',
        '8:1 extra: unknown field "extra"; known names are `kind`, `spec`',
        "10:1 kind: unknown kind destinatoin; did you mean `destination`?",
        "12:1: expected a mapping with `kind` and `spec`, got a list",
        "15:44 spec.write_mode: invalid write mode: expected one of 'overwrite-delete-stale', 'overwrite' or 'append', "
        "got 'upsert'",
        "16:22 spec.publish: expected one of 'atomic' or 'stream', got 5",
    ]


def test_a_key_in_other_letters_is_found_where_it_stands(refuse):
    lines, _ = refuse("SPEC:\n  NAME: 5\n  path: p\n  registry: python\n  tables: [a]\n")

    assert lines == ["2:3 SPEC.NAME: expected a text, got 5; write it in quotes"]


def test_a_long_value_is_cut(refuse):
    (line,), _ = refuse(f"kind: destination\nspec: {{name: d, path: p, registry: python, pk_mode: {'x' * 500}}}\n")

    assert f"got '{'x' * 76}..." in line
    assert len(line) < 250


def test_very_many_mistakes_are_not_all_told(refuse):
    lines, _ = refuse("spec:\n  name: s\n" + "".join(f"  x{i}: 1\n" for i in range(5000)))

    assert "1:1 spec: there are more than 100 mistakes, the rest is not shown" in lines
    assert len(lines) < 110


SECRET = "hunter2-and-more"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("tables: ${V}", "5:3 spec.tables: expected a list, got '${V}'"),
        ("tables: 'x${V}y'", "5:3 spec.tables: expected a list, got 'x${V}y'"),
        ("tables: 'say \"${V}\" twice: ${V}'", "5:3 spec.tables: expected a list, got 'say \"${V}\" twice: ${V}'"),
        ("tables: [a]\n  on_error: ${V}", "got '${V}'"),
        ("tables: [a]\n  on_error: ${file:secret.txt}", "got '${file:secret.txt}'"),
        ("tables: [a]\n  version: ${V}\n  registry: cloudquery", "version must start with v, got '${V}'"),
        ("tables: [a]\n  ${V}: 1", '6:3 spec.${V}: unknown field "${V}"'),
        ("tables: [a]\n  backend_options: {'${V}': 1}", 'spec.backend_options.${V}: unknown field "${V}"'),
        ("tables: [a]\n  backend_options: ${JSON}", 'spec.backend_options.${JSON}: unknown field "${JSON}"'),
        ("tables: ${JSON}", "spec.tables: expected a list, got "),
        ("tables: [a]\n  timeouts: {start: '${V}'}", "spec.timeouts.start: expected a duration"),
        ("tables: [a]\n  destinations: ${LIST}", "spec.destinations[0]: expected a text, got "),
        ("tables: [a]\n  deterministic_cq_id: ${V}", "got '${V}'"),
        ("tables: [a]\n  deterministic_cq_id: >-\n    ${V}", "got '${V}'"),
        ("tables: [a]\n  spec: ${V}", "got '${V}'"),
        ("tables: [a]\n  spec: {a: !!int '${V}'}", "`!!int` does not fit '${V}'"),
    ],
)
@pytest.mark.parametrize("secret", [SECRET, "abc", "x", '"', "it's", "w1.2\n", "a: b #c"])
def test_values_from_outside_are_never_shown(refuse, tmp_path, monkeypatch, text, line, secret):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "secret.txt").write_text(secret)
    import json

    environ = {"V": secret, "JSON": json.dumps({f"{secret}-key": {f"{secret}-k2": secret}}),
               "LIST": json.dumps([{secret: secret}, [secret]])}  # fmt: skip
    lines, shown = refuse(f"spec:\n  name: s\n  path: p\n  registry: python\n  {text}\n", environ)

    assert any(line in found for found in lines), lines
    if len(secret) >= 4:
        assert secret not in shown
        assert repr(secret)[1:-1] not in shown
    for template in ("got {}", '"{}"', "'{}'", "spec.{}:", "fit {}"):
        assert template.format(secret) not in shown


@pytest.mark.parametrize(
    ("environ", "line"),
    [
        ({"V": "0"}, "spec.max_rejects: expected a whole number, got '${V}'"),
        ({"V": "-7"}, "spec.max_rejects: expected a number of at least 0, got '${V}'"),
        ({"V": "7.25"}, "spec.max_rejects: expected a whole number, got '${V}'"),
        ({"V": "true"}, "spec.max_rejects: expected a whole number, got '${V}'"),
        ({"V": ".inf"}, "spec.max_rejects: expected a finite number, got '${V}'; write it in quotes"),
    ],
)
def test_numbers_from_outside_are_not_shown_either(refuse, environ, line):
    head = "kind: destination\nspec: {name: d, path: p, registry: python, max_rejects: "
    lines, _ = refuse(head + ("'${V}'" if environ["V"] == "0" else "${V}") + "}", environ)

    assert len(lines) == 1
    assert line in lines[0]


def test_names_from_outside_are_shown_as_they_are_written(tmp_path):
    path = tmp_path / "c.yml"
    path.write_text(
        "spec: {name: '${V}', path: p, registry: python, tables: [a], destinations: ['${V}', x-${V}]}\n---\n"
        "kind: destination\nspec: {name: '${V}y', path: p, registry: python, transformers: ['${V}']}\n---\n"
        "kind: destination\nspec: {name: '${V}y', path: p, registry: python}\n"
    )

    with pytest.raises(SpecError) as caught:
        load([path], environ={"V": "zq"})

    assert "zq" not in str(caught.value)
    found = [str(problem).split(": ", 1)[1] for problem in caught.value.problems]
    assert found == [
        'source "${V}": source ${V} references unknown destination ${V}; did you mean `${V}y`?',
        'source "${V}": source ${V} references unknown destination x-${V}; did you mean `${V}y`?',
        'destination "${V}y": destination ${V}y references unknown transformer ${V}',
        f"duplicate destination name ${{V}}y; the first is at {path}:4",
    ]


def test_times_and_defaults_are_no_secrets(refuse):
    lines, _ = refuse("spec: {name: s, path: p, registry: python, tables: '${time:2025-01-01}', on_error: '${N:-x}'}\n")

    assert [line.split("got ")[1] for line in lines] == ["'2025-01-01T00:00:00Z'", "'x'"]


def test_the_config_knows_what_came_from_outside(tmp_path):
    path = tmp_path / "c.yml"
    path.write_text(
        "kind: destination\nspec: {name: d, path: p, registry: '${R}', write_mode: '${W}', spec: {a: 'x${A}', b: ${J}}}"
    )
    environ = {"R": "python", "W": "append", "A": "secret-a", "J": '{"k": "secret-j"}'}

    config = load([path], require="relaxed", environ=environ)

    assert "secret-a" in config.secrets
    assert "secret-j" in config.secrets
    assert not {"python", "append"} & config.secrets
    assert "secret-a" not in repr(config.secrets and Config())
    assert config.destinations[0].spec == {"a": "xsecret-a", "b": {"k": "secret-j"}}


class Login(Spec):
    """A nested part."""

    user: str = ""
    """Who."""
    passwords: dict[str, Secret] = Field(default_factory=dict)
    """By name."""


class Example(Spec):
    """A plugin's spec."""

    token: Secret = Secret("")
    """A secret."""
    size: Annotated[int, Field(ge=1)] = 1
    """A number."""
    wait: Duration = 1.0
    """A duration."""
    login: Login = Login()
    """A nested part."""
    either: int | list[str] = 1
    """A union."""
    odd: str = "a"
    """With a rule of its own."""

    @field_validator("odd")
    @classmethod
    def _is_odd(cls, value: str) -> str:
        if len(value) % 2 == 0:
            raise ValueError(f"{value!r} has an even length")
        return value

    @model_validator(mode="after")
    def _fits(self) -> Example:
        if self.size == 13:
            raise ValueError("`size` brings bad luck")
        return self


def spec_mistakes(**spec):
    with pytest.raises(SpecError) as caught:
        parse_spec(Example, spec, where="`example`")
    return [str(problem) for problem in caught.value.problems]


@pytest.mark.parametrize(
    ("spec", "line"),
    [
        ({"siz": 1}, 'spec.spec.siz: `example`: unknown field "siz"; did you mean `size`?'),
        ({"size": 0}, "spec.spec.size: `example`: expected a number of at least 1, got 0"),
        ({"size": "10k"}, "spec.spec.size: `example`: expected a whole number, got '10k'"),
        ({"size": 13}, "spec.spec: `example`: `size` brings bad luck"),
        ({"wait": "5 minutes"}, "spec.spec.wait: `example`: expected a duration such as '30s' or '1h30m' (units ns, "
                                "us, ms, s, m, h), got '5 minutes'"),
        ({"odd": "ab"}, "spec.spec.odd: `example`: 'ab' has an even length, got 'ab'"),
        ({"login": {"usr": "x"}}, 'spec.spec.login.usr: `example`: unknown field "usr"; did you mean `user`?'),
        ({"login": []}, "spec.spec.login: `example`: expected a mapping, got a list"),
    ],
)  # fmt: skip
def test_mistakes_in_a_plugins_spec(spec, line):
    assert spec_mistakes(**spec) == [line]


def test_every_branch_of_a_union_is_at_the_same_path():
    assert spec_mistakes(either={"a": 1}) == [
        "spec.spec.either: `example`: expected a whole number, got a mapping",
        "spec.spec.either: `example`: expected a list, got a mapping",
    ]
    assert spec_mistakes(either=["a", 5])[-1] == (
        "spec.spec.either[1]: `example`: expected a text, got 5; write it in quotes"
    )


@pytest.mark.parametrize(
    "spec",
    [{"token": 12345678}, {"token": ["hunter2x"]}, {"token": {"a": "hunter2x"}},
     {"login": {"passwords": {"a": 12345678}}},
     {"login": {"passwords": ["hunter2x"]}}, {"token": "hunter2x", "size": "hunter2x"}],
)  # fmt: skip
def test_secret_fields_are_never_shown(spec):
    (line,) = spec_mistakes(**spec)

    assert "hunter2x" not in line
    assert "12345678" not in line


def test_a_secret_in_a_library_users_config_is_passed_on_as_it_is():
    assert parse_spec(Example, {"token": Secret("t")}, where="x").token == Secret("t")
    assert repr(Secret("t")) + str(Secret("t")) == f"Secret('{HIDDEN}'){HIDDEN}"


def test_mistakes_of_a_plugins_spec_are_placed_and_hide_what_came_from_outside(tmp_path):
    path = tmp_path / "c.yml"
    path.write_text(
        "kind: destination\nspec:\n  name: d\n  path: p\n  registry: python\n  spec:\n    size: ${N}\n    siz: 1\n"
        "    ${K}: 1\n    odd: ${O}\n    either: x-${O}\n"
    )
    environ = {"N": "0", "K": "kk", "O": "oo"}
    config = load([path], require="relaxed", environ=environ).destinations[0]

    with pytest.raises(SpecError) as caught:
        parse_spec(Example, config.spec, where="`p`")
    found = [str(config.located(problem)).removeprefix(f"{path}:") for problem in caught.value.problems]

    assert sorted(found) == [
        "10:5 spec.spec.odd: destination \"d\": `p`: '${O}' has an even length, got '${O}'",
        "11:5 spec.spec.either: destination \"d\": `p`: expected a list, got 'x-${O}'",
        "11:5 spec.spec.either: destination \"d\": `p`: expected a whole number, got 'x-${O}'",
        "7:5 spec.spec.size: destination \"d\": `p`: expected a number of at least 1, got '${N}'",
        '8:5 spec.spec.siz: destination "d": `p`: unknown field "siz"; did you mean `size`?',
        '9:5 spec.spec.${K}: destination "d": `p`: unknown field "${K}"; known names are `either`, `login`, `odd`, '
        "`size`, `token`, `wait`",
    ]


def test_a_mapping_from_outside_where_a_text_is_wanted_says_how_to_keep_the_text(refuse):
    lines, _ = refuse(
        "spec: {name: s, path: p, registry: python, tables: [a], otel_endpoint: ${J}}\n", {"J": '{"a": 1}'}
    )

    assert lines == ["1:57 spec.otel_endpoint: expected a text, got a mapping; write it in quotes"]


def test_equal_keys_from_outside_are_told_without_the_key(tmp_path):
    path = tmp_path / "c.yml"
    path.write_text("spec: {name: s, path: p, registry: python, tables: [a], spec: ${J}}\n")

    config = load([path], require="relaxed", environ={"J": '{"secret": 1, "secret": 2}'})

    assert [str(w).removeprefix(f"{path}:") for w in config.warnings] == [
        "1:57 spec.spec.${J}: a key is given twice; the last one counts"
    ]
