"""The rules between the documents of a config: names, references, versions, and what a reader asks for."""

from __future__ import annotations

import pytest

from catchment.spec.load import load_documents
from catchment.spec.model import PartlyWrong

PLUGIN = {"name": "n", "registry": "python", "path": "p"}


def source(name="s", **spec):
    return {"kind": "source", "spec": {**PLUGIN, "name": name, "tables": ["*"], "destinations": ["d"], **spec}}


def destination(name="d", **spec):
    return {"kind": "destination", "spec": {**PLUGIN, "name": name, **spec}}


def transformer(name="t", **spec):
    return {"kind": "transformer", "spec": {**PLUGIN, "name": name, **spec}}


def refused(*documents, require="strict"):
    with pytest.raises(PartlyWrong) as caught:
        load_documents(documents, require=require)
    return [str(problem) for problem in caught.value.problems]


def test_a_whole_config():
    config = load_documents([source(), destination(transformers=["t"]), transformer()])

    assert [plugin.name for plugin in (*config.sources, *config.destinations, *config.transformers)] == ["s", "d", "t"]


def test_names_are_unique_per_kind():
    load_documents([source("x", destinations=["x"]), destination("x", transformers=["x"]), transformer("x")])
    assert refused(source(), source(), destination()) == ["spec.name: duplicate source name s"]
    assert refused(source(), destination(), destination()) == ["spec.name: duplicate destination name d"]
    assert refused(source(), destination(), transformer(), transformer()) == ["spec.name: duplicate transformer name t"]
    assert refused(source(), source(), destination(), require="relaxed") == ["spec.name: duplicate source name s"]


def test_one_plugin_may_be_configured_twice():
    config = load_documents(
        [source("a"), source("b", destinations=["d", "e"]), destination("d", spec={"x": 1}), destination("e")]
    )

    assert [(d.name, d.path, d.spec) for d in config.destinations] == [("d", "p", {"x": 1}), ("e", "p", {})]
    assert [s.name for s in config.sources] == ["a", "b"]


def test_names_that_look_like_numbers():
    config = load_documents(
        [source("012345", destinations=["0123"]), source("6", destinations=["0123"]), destination("0123")]
    )

    assert [s.name for s in config.sources] == ["012345", "6"]


def test_references_must_lead_somewhere():
    assert refused(source(destinations=["dd", "d"]), destination("d")) == [
        'spec.destinations[0]: source "s": source s references unknown destination dd; did you mean `d`?'
    ]
    assert refused(source(), destination(transformers=["x"]), destination("e", transformers=["y"]), transformer()) == [
        'spec.transformers[0]: destination "d": destination d references unknown transformer x; known names are `t`',
        'spec.transformers[0]: destination "e": destination e references unknown transformer y; known names are `t`',
    ]
    assert refused(source(destinations=[]), destination()) == [
        'spec.destinations: source "s": at least one destination is required; known names are `d`'
    ]
    assert "references unknown destination " in refused(source(destinations=[None]), destination())[0]


def test_a_reference_to_a_document_with_a_mistake_is_no_second_mistake():
    assert refused(source(), destination(typo=1)) == [
        'spec.typo: unknown field "typo"; known names are `docker_registry_auth_token`, `env`, `expect`, '
        "`max_rejects`, `max_stale_ratio`, `migrate_mode`, `name`, `path`, `pk_mode`, `publish` and 8 more"
    ]


def test_references_are_checked_in_documents_with_other_mistakes_too():
    lines = refused(source(destinations=["x"], typo=1), destination())

    assert [line.split(": ")[-1].split("; ")[0] for line in lines] == [
        'unknown field "typo"', "source s references unknown destination x",
    ]  # fmt: skip


def test_there_must_be_something_to_do():
    assert refused() == [
        "expecting at least one source; add a document with `kind: source`",
        "expecting at least one destination; add a document with `kind: destination`",
    ]
    assert refused(destination()) == ["expecting at least one source; add a document with `kind: source`"]
    assert "expecting at least one destination; add a document with `kind: destination`" in refused(source())
    assert refused(transformer(), require="relaxed") == ["expecting at least one source or destination"]


def test_the_relaxed_reader_wants_less():
    assert load_documents([source(destinations=[])], require="relaxed").sources
    assert load_documents([destination(transformers=["none"])], require="relaxed").destinations
    assert load_documents([source(destinations=["none"])], require="relaxed").sources
    assert "sync_group_id is not supported" in refused(destination(sync_group_id="x"), require="relaxed")[0]


def test_a_source_without_destinations_is_fine_once_it_has_one():
    assert "at least one destination is required" in refused(source(destinations=[]), destination())[0]
    platform = destination("platform", write_mode="append", sync_group_id="20250101")
    assert load_documents([source(destinations=["platform"]), platform]).destinations[0].name == "platform"


def gcp(name, **spec):
    return source(name, path="cloudquery/gcp", **spec)


def test_two_versions_of_a_source_cannot_share_a_destination():
    hub = {"registry": "cloudquery", "version": "v1.0.1"}
    (line,) = refused(gcp("gcp", registry="local"), gcp("gcpv2", **hub), destination())
    assert line == (
        'destination "d": destination d is used by multiple sources cloudquery/gcp with different versions; '
        "source `gcp` has none and `gcpv2` has v1.0.1"
    )
    load_documents([gcp("a", **hub), gcp("b", **hub), destination()])
    load_documents([gcp("a", **hub), gcp("b", destinations=["e"], registry="local"), destination(), destination("e")])
    assert load_documents([gcp("a", **hub), gcp("b", registry="local"), destination()], require="relaxed").sources


def test_what_is_right_is_kept_beside_the_mistakes():
    with pytest.raises(PartlyWrong) as caught:
        load_documents([source(), destination(), destination("e", spec=5), transformer(typo=1)])

    config = caught.value.config
    assert ([s.name for s in config.sources], [d.name for d in config.destinations]) == (["s"], ["d"])
    # Without the key that nobody knows it is whole, so its plugin is asked about the rest of it.
    assert [t.name for t in config.transformers] == ["t"]


def test_documents_keep_their_order():
    config = load_documents([destination("z"), source("b", destinations=["z"]), source("a", destinations=["z", "y"]),
                             destination("y")])  # fmt: skip

    assert [s.name for s in config.sources] == ["b", "a"]
    assert [d.name for d in config.destinations] == ["z", "y"]
