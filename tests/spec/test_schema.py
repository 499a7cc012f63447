"""The JSON Schema of a config: what it takes, and that it and the reader agree where they should."""

from __future__ import annotations

import json

import pytest
from jsonschema import Draft202012Validator

from catchment.spec.load import load_documents
from catchment.spec.model import MODELS, BackendOptions, Timeouts
from catchment.spec.schema import config_schema

SCHEMA = config_schema()
ABSENT = object()


def is_valid(value, definition="Spec"):
    schema = {"$ref": f"#/$defs/{definition}", "$defs": SCHEMA["$defs"]}
    return Draft202012Validator(schema).is_valid(value)


def with_field(base, field, value):
    return base if value is ABSENT else {**base, field: value}


PLUGIN = {"name": "a", "path": "b", "version": "v1.0.0"}
SOURCE = {**PLUGIN, "tables": ["*"], "destinations": ["d"]}


def test_the_schema_is_one_and_stays_the_same():
    Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert set(SCHEMA["$defs"]) == {
        "Spec", "Source", "Destination", "Transformer", "BackendOptions", "Timeouts", "Rules", "RowRules", "FreshRule",
    }  # fmt: skip
    assert json.dumps(SCHEMA) == json.dumps(config_schema())


def test_every_field_is_there_with_a_description():
    for kind, model in MODELS.items():
        properties = SCHEMA["$defs"][kind.title()]["properties"]
        assert set(properties) == set(model.model_fields)
        assert [name for name, made in properties.items() if not made.get("description") and "$ref" not in made] == []
    for part in (BackendOptions, Timeouts):
        assert set(SCHEMA["$defs"][part.__name__]["properties"]) == set(part.model_fields)


def test_nothing_else_is_allowed_and_no_default_is_a_secret():
    assert all(made["additionalProperties"] is False for made in SCHEMA["$defs"].values())
    assert "*****" not in json.dumps(SCHEMA)
    assert SCHEMA["$defs"]["Timeouts"]["properties"]["start"]["default"] == "60s"
    assert SCHEMA["$defs"]["Destination"]["properties"]["write_mode"]["default"] == "overwrite-delete-stale"


@pytest.mark.parametrize(
    ("value", "valid"),
    [
        ({}, False),
        ({"table_name": "t"}, False),
        ({"connection": "c"}, False),
        ({"table_name": "", "connection": "c"}, False),
        ({"table_name": "t", "connection": ""}, False),
        ({"table_name": None, "connection": "c"}, False),
        ({"table_name": "t", "connection": None}, False),
        ({"table_name": 1, "connection": "c"}, False),
        ({"table_name": "t", "connection": 1}, False),
        ({"table_name": "t", "connection": "c"}, True),
        ({"table_name": "t", "connection": "c", "more": 1}, False),
        (None, False),
        ([], False),
    ],
)
def test_backend_options(value, valid):
    assert is_valid(value, "BackendOptions") is valid


NAMES = [(ABSENT, False), (None, False), ([], False), ("a", False), ([""], False), ([None], False), ([1], False),
         (["a"], True), (["a", "b"], True), (["a", ""], False)]  # fmt: skip
OPTIONAL_NAMES = [(ABSENT, True), (None, True), ([], True), ("a", False), ([""], False), ([None], False), ([1], False),
                  (["a"], True)]  # fmt: skip
BOOL = [(ABSENT, True), (True, True), (False, True), (None, False), ("true", False), (1, False)]
TEXT = [(ABSENT, True), ("", True), ("x", True), (None, False), (1, False)]
OBJECT = [(ABSENT, True), (None, True), ({}, True), ({"a": [1]}, True), ([], False), (1, False), ("x", False)]


@pytest.mark.parametrize(
    ("field", "value", "valid"),
    [
        *[("tables", *case) for case in NAMES],
        *[("destinations", *case) for case in NAMES],
        *[("skip_tables", *case) for case in OPTIONAL_NAMES],
        *[("skip_dependent_tables", *case) for case in [*BOOL[:3], (None, True), *BOOL[4:]]],
        *[("deterministic_cq_id", *case) for case in BOOL],
        *[("otel_endpoint_insecure", *case) for case in BOOL],
        *[("otel_endpoint", *case) for case in TEXT],
        *[("spec", *case) for case in OBJECT],
        ("backend_options", None, True),
        ("backend_options", {"table_name": "t", "connection": "c"}, True),
        ("backend_options", {"table_name": "t"}, False),
        ("backend_options", [], False),
        ("on_error", "stop", True),
        ("on_error", "x", False),
        ("client_id_column", True, True),
        ("client_id_column", "x", False),
        ("env", ["A"], True),
        ("env", [1], False),
        ("timeouts", {"start": "5s"}, True),
        ("timeouts", {"start": 5}, False),
        ("timeouts", {"begin": "5s"}, False),
        ("concurrency", 5, False),
        ("write_mode", "append", False),
    ],
)
def test_source(field, value, valid):
    base = {key: item for key, item in SOURCE.items() if key != field}

    assert is_valid(with_field(base, field, value), "Source") is valid


@pytest.mark.parametrize(
    ("field", "value", "valid"),
    [
        *[("spec", *case) for case in OBJECT],
        *[("transformers", *case) for case in OPTIONAL_NAMES],
        *[("send_sync_summary", *case) for case in BOOL],
        *[("sync_group_id", *case) for case in TEXT],
        *[("write_mode", mode, True) for mode in ("append", "overwrite", "overwrite-delete-stale")],
        *[("write_mode", mode, False) for mode in (None, "", "Append", "x", 1)],
        *[("migrate_mode", mode, True) for mode in ("safe", "forced")],
        *[("migrate_mode", mode, False) for mode in (None, "", "Safe", "x", 1)],
        *[("pk_mode", mode, True) for mode in ("default", "cq-id-only")],
        *[("pk_mode", mode, False) for mode in (None, "", "Default", "x", 1)],
        ("publish", "atomic", True),
        ("publish", "x", False),
        ("max_rejects", 0, True),
        ("max_rejects", -1, False),
        ("max_stale_ratio", 0.5, True),
        ("max_stale_ratio", 2, False),
        ("expect", {"t": {"unique": ["a"]}}, True),
        ("expect", {"t": {"rows": {"min": 1, "max": 9, "change": "30%"}, "severity": "warn"}}, True),
        ("expect", {"t": {"rows": {"change": 0.3}, "fresh": {"column": "at", "within": "24h"}}}, True),
        ("expect", {"t": {"values": {"a": ["x", 1, True]}}}, True),
        ("expect", {"t": {"rows": {"change": "much"}}}, False),
        ("expect", {"t": {"rows": {"least": 1}}}, False),
        ("expect", {"t": {"fresh": {"column": "at"}}}, False),
        ("expect", {"t": {"severity": "fatal"}}, False),
        ("expect", {"t": ["a"]}, False),
        ("tables", ["a"], False),
        ("batch_size", 5, False),
    ],
)
def test_destination(field, value, valid):
    assert is_valid(with_field(PLUGIN, field, value), "Destination") is valid


@pytest.mark.parametrize("value", [{}, None, [], "x", 5])
@pytest.mark.parametrize("definition", ["Source", "Destination", "Transformer", "Spec"])
def test_empty_ones_are_not_valid(definition, value):
    assert not is_valid(value, definition)


@pytest.mark.parametrize(
    ("fields", "valid"),
    [
        ({}, True),
        ({"name": ABSENT}, False), ({"name": ""}, False), ({"name": None}, False), ({"name": 1}, False),
        ({"path": ABSENT}, False), ({"path": ""}, False), ({"path": None}, False), ({"path": 1}, False),
        ({"registry": None}, False), ({"registry": 1}, False), ({"registry": "x"}, False),
        ({"registry": "GitHub"}, False),
        *[({"registry": registry}, True) for registry in ("", "github", "cloudquery")],
        *[({"registry": registry, "version": ABSENT}, False) for registry in ("", "github", "cloudquery", ABSENT)],
        *[({"registry": registry, "version": "1.0"}, False) for registry in ("", "github", "cloudquery", ABSENT)],
        *[({"registry": registry, "version": ""}, False) for registry in ("", "github", "cloudquery", ABSENT)],
        *[({"registry": registry, "version": "vfoo"}, True) for registry in ("", "github", "cloudquery", ABSENT)],
        *[({"registry": registry, "version": ABSENT}, True) for registry in ("local", "grpc", "docker", "python")],
        *[({"registry": registry, "version": "x"}, True) for registry in ("local", "grpc", "docker", "python")],
        *[({"registry": registry, "version": 1}, False) for registry in ("local", "grpc", "docker", "cloudquery")],
        *[({"registry": registry, "version": None}, False) for registry in ("local", "grpc", "docker", "cloudquery")],
        ({"docker_registry_auth_token": "x"}, True), ({"docker_registry_auth_token": 1}, False),
        ({"extra": 1}, False),
    ],
)  # fmt: skip
@pytest.mark.parametrize("definition", ["Destination", "Transformer"])
def test_what_all_plugins_have(definition, fields, valid):
    made = {key: value for key, value in {**PLUGIN, **fields}.items() if value is not ABSENT}

    assert is_valid(made, definition) is valid


@pytest.mark.parametrize(
    ("document", "valid"),
    [
        ({"kind": "source", "spec": SOURCE}, True),
        ({"kind": "destination", "spec": PLUGIN}, True),
        ({"kind": "transformer", "spec": PLUGIN}, True),
        ({"spec": SOURCE}, False),
        ({"kind": "source"}, False),
        ({"kind": "source", "spec": None}, False),
        ({"kind": "source", "spec": []}, False),
        ({"kind": None, "spec": SOURCE}, False),
        ({"kind": 1, "spec": SOURCE}, False),
        ({"kind": "", "spec": SOURCE}, False),
        ({"kind": "Source", "spec": SOURCE}, False),
        ({"kind": "platform", "spec": SOURCE}, False),
        ({"kind": "destination", "spec": SOURCE}, False),
        ({"kind": "source", "spec": PLUGIN}, False),
        ({"kind": "source", "spec": {**SOURCE, "write_mode": "append"}}, False),
        ({"kind": "destination", "spec": {**PLUGIN, "skip_tables": ["a"]}}, False),
        ({"kind": "transformer", "spec": {**PLUGIN, "write_mode": "append"}}, False),
        ({"kind": "source", "spec": SOURCE, "more": 1}, False),
    ],
)
def test_documents(document, valid):
    assert is_valid(document) is valid
    assert Draft202012Validator(SCHEMA).is_valid(document) is valid


@pytest.mark.parametrize("field", sorted({name for model in MODELS.values() for name in model.model_fields}))
@pytest.mark.parametrize("value", [0, 1, 1.5, "", "x", True, [], ["x"], [1], {}, {"x": 1}])
def test_what_the_schema_takes_the_reader_takes_too(field, value):
    for kind, model in MODELS.items():
        if field not in model.model_fields:
            continue
        document = {"kind": kind, "spec": {**(SOURCE if kind == "source" else PLUGIN), field: value}}
        if is_valid(document) and not (field == "sync_group_id" and value):
            load_documents([document, {"kind": "destination", "spec": {**PLUGIN, "name": "o"}}], require="relaxed")
