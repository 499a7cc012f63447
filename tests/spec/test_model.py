"""Every field of a source, a destination and a transformer: its default, its rule, and the rules between documents."""

from __future__ import annotations

from typing import Any

import pytest

from catchment.errors import SpecError
from catchment.spec.fields import Secret
from catchment.spec.load import load_documents
from catchment.spec.model import BackendOptions, Rules, Timeouts

PLUGIN = {"name": "n", "registry": "python", "path": "p"}


def read(kind, **spec):
    """The config of one document without any rule between documents."""
    required = {**PLUGIN, "tables": ["*"]} if kind == "source" else PLUGIN
    document = {"kind": kind, "spec": {**required, **spec}}
    companion = {"kind": "destination", "spec": {**PLUGIN, "name": "companion"}}
    config = load_documents([document, companion], require="relaxed")
    return {"source": config.sources, "destination": config.destinations, "transformer": config.transformers}[kind][0]


def mistakes(kind, **spec):
    with pytest.raises(SpecError) as caught:
        read(kind, **spec)
    return [str(problem) for problem in caught.value.problems]


def warnings(kind, **spec):
    required = {**PLUGIN, "tables": ["*"]} if kind == "source" else PLUGIN
    config = load_documents(
        [
            {"kind": kind, "spec": {**required, **spec}},
            {"kind": "destination", "spec": {**PLUGIN, "name": "companion"}},
        ],
        require="relaxed",
    )
    return [str(warning) for warning in config.warnings]


SOURCE_DEFAULTS: dict[str, Any] = {
    "docker_registry_auth_token": Secret(""), "env": None, "timeouts": Timeouts(), "spec": {}, "version": "",
    "skip_tables": [], "skip_dependent_tables": True, "destinations": [], "backend_options": None,
    "deterministic_cq_id": None, "otel_endpoint": "", "otel_endpoint_insecure": False, "on_error": "continue",
    "client_id_column": False,
}  # fmt: skip
DESTINATION_DEFAULTS: dict[str, Any] = {
    "docker_registry_auth_token": Secret(""), "env": None, "timeouts": Timeouts(), "spec": {}, "version": "",
    "write_mode": "overwrite-delete-stale", "migrate_mode": "safe", "pk_mode": "default", "sync_group_id": "",
    "send_sync_summary": False, "transformers": [], "publish": None, "max_rejects": 0, "max_stale_ratio": None,
    "expect": {},
}  # fmt: skip
TRANSFORMER_DEFAULTS: dict[str, Any] = {
    "docker_registry_auth_token": Secret(""), "env": None, "timeouts": Timeouts(), "spec": {}, "version": "",
}  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "defaults", "required"),
    [
        ("source", SOURCE_DEFAULTS, {"name", "registry", "path", "tables"}),
        ("destination", DESTINATION_DEFAULTS, {"name", "registry", "path"}),
        ("transformer", TRANSFORMER_DEFAULTS, {"name", "registry", "path"}),
    ],
)
def test_the_default_of_every_field(kind, defaults, required):
    config = read(kind)

    assert {name: getattr(config, name) for name in type(config).model_fields if name not in required} == defaults


@pytest.mark.parametrize(
    ("kind", "field", "written", "made"),
    [
        ("source", "tables", ["a", "b*"], ["a", "b*"]),
        ("source", "tables", [""], [""]),
        ("source", "skip_tables", ["a"], ["a"]),
        ("source", "skip_dependent_tables", False, False),
        ("source", "destinations", ["x", "x"], ["x", "x"]),
        ("source", "backend_options", {"table_name": "t", "connection": "c"},
         BackendOptions(table_name="t", connection="c")),
        ("source", "backend_options", {}, None),
        ("source", "deterministic_cq_id", True, True),
        ("source", "deterministic_cq_id", False, False),
        ("source", "otel_endpoint", "localhost:4318", "localhost:4318"),
        ("source", "otel_endpoint_insecure", True, True),
        ("source", "on_error", "stop", "stop"),
        ("source", "client_id_column", True, True),
        ("source", "spec", {"a": [1, {"b": None}]}, {"a": [1, {"b": None}]}),
        ("source", "docker_registry_auth_token", "ey", Secret("ey")),
        ("source", "env", ["HOME"], ["HOME"]),
        ("source", "env", [], []),
        ("source", "timeouts", {"start": "2m", "idle": "1h", "stop": "500ms"},
         Timeouts.model_construct(start=120.0, idle=3600.0, stop=0.5)),
        ("destination", "write_mode", "overwrite", "overwrite"),
        ("destination", "write_mode", "append", "append"),
        ("destination", "write_mode", "overwrite-delete-stale", "overwrite-delete-stale"),
        ("destination", "migrate_mode", "forced", "forced"),
        ("destination", "pk_mode", "cq-id-only", "cq-id-only"),
        ("destination", "send_sync_summary", True, True),
        ("destination", "transformers", ["t"], ["t"]),
        ("destination", "publish", "stream", "stream"),
        ("destination", "publish", "atomic", "atomic"),
        ("destination", "max_rejects", 5, 5),
        ("destination", "max_stale_ratio", 0.5, 0.5),
        ("destination", "max_stale_ratio", 1, 1.0),
        ("destination", "expect", {"users*": {"not_null": ["id"]}}, {"users*": Rules(not_null=["id"])}),
        ("transformer", "spec", {"a": 1}, {"a": 1}),
    ],
)  # fmt: skip
def test_every_field_is_read(kind, field, written, made):
    assert getattr(read(kind, **{field: written}), field) == made


@pytest.mark.parametrize("registry", ["local", "grpc", "docker"])
@pytest.mark.parametrize("kind", ["source", "destination", "transformer"])
def test_registries_that_need_no_version_drop_it(kind, registry):
    assert read(kind, registry=registry, path="localhost:7777").version == ""
    assert read(kind, registry=registry, path="localhost:7777", version="anything").version == ""
    assert warnings(kind, registry=registry, version="anything") == warnings(kind, registry=registry)


@pytest.mark.parametrize("kind", ["source", "destination", "transformer"])
@pytest.mark.parametrize("registry", ["cloudquery", "github", None, ""])
def test_registries_that_need_a_version(kind, registry):
    assert read(kind, registry=registry, version="v1.2.3").version == "v1.2.3"
    assert mistakes(kind, registry=registry) == [
        f'spec.version: {kind} "n": version is required; write it as `v1.2.3`; `registry: python` needs none'
    ]
    assert mistakes(kind, registry=registry, version="1.1.0") == [
        f"spec.version: {kind} \"n\": version must start with v, got '1.1.0'; write `v1.1.0`"
    ]


@pytest.mark.parametrize("version", ["v1.2.3", "v0.0.1-pre.1", "v1.2.3+build.5", "v10.20.30-rc1+x"])
def test_versions_that_are_semver_give_no_warning(version):
    assert warnings("destination", registry="cloudquery", version=version) == []


@pytest.mark.parametrize("version", ["vfoo", "v1", "v1.2", "v01.2.3", "v1.2.3.4", "v1.2.3\n", "v\u0661.2.3", "v1.2.3-"])
def test_odd_versions_that_upstream_takes_give_a_warning(version):
    assert read("destination", registry="cloudquery", version=version).version == version
    assert warnings("destination", registry="cloudquery", version=version) == [
        f'spec.version: destination "n": version is not of the form `v1.2.3`, got {version!r}'
    ]


def test_python_ignores_a_version_with_a_warning():
    assert read("source", version="v1.2.3").version == ""
    assert warnings("source", version="v1.2.3") == [
        'spec.version: source "n": `version` is ignored with `registry: python`; leave it out'
    ]
    assert read("source", version="nonsense").version == ""


@pytest.mark.parametrize("kind", ["source", "destination", "transformer"])
def test_github_is_deprecated(kind):
    assert warnings(kind, registry="github", version="v1.0.0") == [
        f'spec.registry: {kind} "n": registry `github` is deprecated; write `registry: cloudquery`'
    ]


@pytest.mark.parametrize(("registry", "inferred"), [(None, True), ("", True), ("cloudquery", False)])
def test_it_is_remembered_whether_the_registry_was_inferred(registry, inferred):
    config = read("source", registry=registry, version="v1.0.0")

    assert config.registry == "cloudquery"
    assert config.is_registry_inferred is inferred


@pytest.mark.parametrize(
    ("registry", "path", "text"),
    [
        ("cloudquery", "cloudquery/aws", "n (cloudquery/aws@v1.0.0)"),
        ("cloudquery", "aws", "n (aws@v1.0.0)"),
        ("github", "cloudquery/aws", "n@github (cloudquery/aws@v1.0.0)"),
        ("local", "/bin/aws", "n (local@/bin/aws)"),
        ("grpc", "localhost:7777", "n (grpc@localhost:7777)"),
        ("docker", "ghcr.io/x/aws:v1", "n@docker (ghcr.io/x/aws:v1)"),
        ("python", "duckdb", "n (python@duckdb)"),
    ],
)
@pytest.mark.parametrize("kind", ["source", "destination", "transformer"])
def test_the_version_string(kind, registry, path, text):
    assert read(kind, registry=registry, path=path, version="v1.0.0").version_string == text


def test_a_document_is_asked_for_its_fields_one_after_the_other_as_upstream_does():
    spec: dict[str, Any] = {"name": None, "registry": None, "path": None, "tables": None}
    assert mistakes("source", **spec)[0] == "spec.name: name is required"
    spec["name"] = "aws"
    assert mistakes("source", **spec)[0] == (
        'spec.path: source "aws": path is required; did you mean `path: cloudquery/aws`?'
    )
    spec["path"] = "cloudquery/aws"
    assert "version is required" in mistakes("source", **spec)[0]
    spec["version"] = "1.1.0"
    assert "version must start with v" in mistakes("source", **spec)[0]
    spec["version"] = "v1.1.0"
    assert mistakes("source", **spec) == [
        "spec.tables: source \"aws\": tables configuration is required; write `tables: ['*']` for all"
    ]
    spec["tables"] = ["test"]
    made = read("source", **spec)
    assert (made.registry, made.spec, made.skip_dependent_tables) == ("cloudquery", {}, True)


def test_all_that_is_missing_is_told_at_once():
    assert [line.split(":")[0] for line in mistakes("source", name="", path="", registry="", tables=[])] == [
        "spec.name", "spec.path", "spec.version", "spec.tables",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "field"),
    [
        ("source", "skip_tables"), ("source", "skip_dependent_tables"), ("source", "backend_options"),
        ("source", "deterministic_cq_id"), ("source", "otel_endpoint"), ("source", "otel_endpoint_insecure"),
        ("source", "spec"), ("source", "registry"), ("source", "env"), ("source", "timeouts"),
        ("destination", "sync_group_id"), ("destination", "send_sync_summary"), ("destination", "transformers"),
        ("destination", "spec"), ("destination", "docker_registry_auth_token"), ("transformer", "spec"),
    ],
)  # fmt: skip
def test_null_means_the_default(kind, field):
    extra = {"version": "v1.0.0"} if field == "registry" else {}

    assert getattr(read(kind, **{field: None}, **extra), field) == {
        **SOURCE_DEFAULTS, **DESTINATION_DEFAULTS, "registry": "cloudquery",
    }[field]  # fmt: skip


@pytest.mark.parametrize(
    ("field", "words"),
    [("write_mode", "invalid write mode"), ("migrate_mode", "invalid migrate mode"), ("pk_mode", "invalid pk mode")],
)
@pytest.mark.parametrize("value", [None, "", "Append", "x", 5])
def test_modes_must_be_one_of_theirs(field, words, value):
    (line,) = mistakes("destination", **{field: value})

    assert line.startswith(f"spec.{field}: {words}: expected one of '")
    shown = "null" if value is None else repr(value)
    assert f", got {shown}" in line


def test_null_entries_of_lists_are_empty_texts():
    assert read("source", tables=[None, "a"], skip_tables=[None]).tables == ["", "a"]
    assert read("source", backend_options={"table_name": None, "connection": None}).backend_options is None


def test_keys_may_be_written_in_any_case():
    made = load_documents(
        [{"KIND": "destination", "Spec": {"NAME": "n", "Path": "p", "REGISTRY": "python", "Write_Mode": "append",
                                          "TimeOuts": {"START": "1s"}}},
         {"spec": {**PLUGIN, "tables": ["a"], "Backend_Options": {"TABLE_NAME": "t", "Connection": "c"}}}],
        require="relaxed",
    )  # fmt: skip

    assert made.destinations[0].write_mode == "append"
    assert made.destinations[0].timeouts.start == 1.0
    assert made.sources[0].backend_options == BackendOptions(table_name="t", connection="c")


@pytest.mark.parametrize("keys", [("NAME", "name"), ("name", "NAME")])
def test_of_a_key_in_two_cases_the_lower_one_counts(keys):
    spec = {"registry": "python", "path": "p", **{key: key for key in keys}}

    assert load_documents([{"kind": "destination", "spec": spec}], require="relaxed").destinations[0].name == "name"


@pytest.mark.parametrize("kind", ["Source", "SOURCE", "nice", "platform", "", None, 1, ["source"], {"a": 1}, True])
def test_an_unknown_kind(kind):
    with pytest.raises(SpecError) as caught:
        load_documents([{"kind": kind, "spec": PLUGIN}])

    assert str(caught.value.problems[0]).startswith("kind: unknown kind ")


@pytest.mark.parametrize("document", [[], "text", 5, None, True])
def test_a_document_that_is_no_mapping(document):
    with pytest.raises(SpecError, match="expected a mapping with `kind` and `spec`, got "):
        load_documents([document])


@pytest.mark.parametrize("spec", [[], "x", 5, True])
def test_a_spec_that_is_no_mapping(spec):
    with pytest.raises(SpecError, match="spec: expected a mapping, got "):
        load_documents([{"kind": "source", "spec": spec}])


def test_a_missing_spec_is_an_empty_one():
    for document in ({"kind": "source"}, {"kind": "source", "spec": None}):
        with pytest.raises(SpecError, match=r"spec\.name: name is required"):
            load_documents([document])


@pytest.mark.parametrize(
    ("kind", "spec", "line"),
    [
        ("source", {"name": 3}, "spec.name: expected a text, got 3; write it in quotes"),
        ("source", {"version": 1.5}, "spec.version: expected a text, got 1.5; write it in quotes"),
        ("source", {"tables": "*"}, "spec.tables: expected a list, got '*'"),
        ("source", {"tables": [5]}, "spec.tables[0]: expected a text, got 5; write it in quotes"),
        ("source", {"deterministic_cq_id": "true"}, "spec.deterministic_cq_id: expected `true` or `false`, got 'true'"),
        ("source", {"spec": []}, "spec.spec: expected a mapping, got a list"),
        ("source", {"spec": "x"}, "spec.spec: expected a mapping, got 'x'"),
        ("source", {"namea": 1}, 'spec.namea: unknown field "namea"; did you mean `name`?'),
        ("source", {"backend_options": {"tabl_name": "x"}},
         'spec.backend_options.tabl_name: unknown field "tabl_name"; did you mean `table_name`?'),
        ("source", {"backend_options": {"table_name": "x"}},
         'spec.backend_options.connection: source "n": connection is required, as there is `table_name`'),
        ("source", {"backend_options": {"connection": "x"}},
         'spec.backend_options.table_name: source "n": table_name is required, as there is `connection`'),
        ("source", {"backend_options": "x"}, "spec.backend_options: expected a mapping, got 'x'"),
        ("source", {"concurrency": 5},
         'spec.concurrency: unknown field "concurrency"; it belongs into the plugin\'s own `spec`'),
        ("source", {"scheduler": "dfs"},
         'spec.scheduler: unknown field "scheduler"; it belongs into the plugin\'s own `spec`'),
        ("source", {"table_concurrency": 5},
         'spec.table_concurrency: unknown field "table_concurrency"; it belongs into the plugin\'s own `spec`'),
        ("source", {"backend": "local"}, 'spec.backend: unknown field "backend"; use `backend_options`'),
        ("source", {"backend_spec": {}}, 'spec.backend_spec: unknown field "backend_spec"; use `backend_options`'),
        ("source", {"write_mode": "append"},
         'spec.write_mode: unknown field "write_mode"; it belongs into a destination'),
        ("destination", {"tables": ["a"]}, 'spec.tables: unknown field "tables"; it belongs into a source'),
        ("transformer", {"tables": ["a"]}, 'spec.tables: unknown field "tables"; it belongs into a source'),
        ("transformer", {"write_mode": "append"},
         'spec.write_mode: unknown field "write_mode"; it belongs into a destination'),
        ("destination", {"batch_size": 5},
         'spec.batch_size: unknown field "batch_size"; it belongs into the destination\'s own `spec`'),
        ("destination", {"batch_size_bytes": 5},
         'spec.batch_size_bytes: unknown field "batch_size_bytes"; it belongs into the destination\'s own `spec`'),
        ("destination", {"registry": "x"}, "spec.registry: unknown registry: expected one of 'cloudquery', "),
        ("destination", {"registry": "gihub"}, "got 'gihub'; did you mean `github`?"),
        ("destination", {"registry": 5}, "got 5"),
        ("destination", {"write_mode": "appnd"}, "got 'appnd'; did you mean `append`?"),
        ("destination", {"max_rejects": -1}, "spec.max_rejects: expected a number of at least 0, got -1"),
        ("destination", {"max_rejects": 1.5}, "spec.max_rejects: expected a whole number, got 1.5"),
        ("destination", {"max_rejects": True}, "spec.max_rejects: expected a whole number, got true"),
        ("destination", {"max_stale_ratio": 1.5}, "spec.max_stale_ratio: expected a number of at most 1, got 1.5"),
        ("destination", {"max_stale_ratio": "30%"}, "spec.max_stale_ratio: expected a number, got '30%'"),
        ("destination", {"publish": "atom"}, "got 'atom'; did you mean `atomic`?"),
        ("destination", {"timeouts": {"start": "5"}},
         "spec.timeouts.start: expected a duration such as '30s' or '1h30m' (units ns, us, ms, s, m, h), got '5'"),
        ("destination", {"timeouts": {"start": 5}},
         "spec.timeouts.start: expected a duration such as '30s' or '1h30m', got 5"),
        ("destination", {"sync_group_id": "x"},
         'spec.sync_group_id: destination "n": sync_group_id is not supported with write_mode: overwrite-delete-stale; '
         "write `write_mode: append` or `write_mode: overwrite`"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_with_the_value_and_what_is_allowed(kind, spec, line):
    (found,) = mistakes(kind, **spec)

    assert line in found
    if line.startswith("spec.") and not line.endswith((" ", ", ")):
        assert found == line


@pytest.mark.parametrize("write_mode", ["append", "overwrite"])
def test_sync_group_id_with_the_modes_that_keep_a_history(write_mode):
    assert read("destination", write_mode=write_mode, sync_group_id="{{YEAR}}").sync_group_id == "{{YEAR}}"


def test_a_wrong_write_mode_is_no_reason_to_complain_of_the_group_id_too():
    assert len(mistakes("destination", write_mode="x", sync_group_id="y")) == 1


def test_mistakes_of_type_and_of_rule_come_together():
    assert [line.split(":")[0] for line in mistakes("source", tabels=["a"], path="", on_error=5, tables=[])] == [
        "spec.on_error", "spec.tabels", "spec.path", "spec.tables",
    ]  # fmt: skip


def test_warnings_about_tables():
    assert warnings("source", tables=["*", "a"]) == [
        'spec.tables: source "n": `tables` has `*` and more, which changes nothing'
    ]
    assert warnings("source", tables=["*"], skip_dependent_tables=True) == [
        'spec.skip_dependent_tables: source "n": `skip_dependent_tables` changes nothing, as `*` in `tables` names '
        "child tables too"
    ]
    assert warnings("source", tables=["*"]) == []
    assert warnings("source", tables=["a"], skip_dependent_tables=True) == []
