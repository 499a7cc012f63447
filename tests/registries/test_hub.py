"""The registry `cloudquery`, spoken to over HTTP."""

from __future__ import annotations

import base64
import json
import time

import pytest

from catchment.errors import PluginError, SpecError
from catchment.registries.images import login_for
from catchment.registries.wanted import wanted
from tests.registries.server import TARGET, Reply, hub_path, publish, running, sha256, zipped

PROGRAM = b"#!/bin/sh\nexit 0\n"
ASSET = f"{hub_path()}/assets/{TARGET}"


def test_a_plugin_is_downloaded_verified_and_executable(server, buy):
    archive = publish(server, PROGRAM)

    found = buy()

    assert found.is_new
    assert found.program.read_bytes() == PROGRAM
    assert found.program.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in buy.folder.rglob("*") if path.is_dir()} == {0o700}
    assert buy.files() == ["plugin", "plugin.json"]
    record = json.loads((found.program.parent / "plugin.json").read_text())
    assert record["archive_sha256"] == sha256(archive)
    assert record["sha256"] == sha256(PROGRAM)
    assert record["url"] == f"{server.url}/files/thing.zip"
    assert buy.told == [f"Downloading {server.url}/files/thing.zip (0.0 MB)"]
    assert buy.warned == []


def test_a_cached_plugin_needs_no_network(server, buy, monkeypatch):
    publish(server, PROGRAM)
    first = buy()
    asked = len(server.asked)
    # Nobody listens there.
    monkeypatch.setenv("CLOUDQUERY_API_URL", "http://127.0.0.1:1")

    begun = time.monotonic()
    second = buy()

    assert second.program == first.program
    assert not second.is_new
    assert len(server.asked) == asked
    assert time.monotonic() - begun < 0.5


def test_nothing_is_kept_or_unpacked_when_the_checksum_is_wrong(server, buy):
    archive = publish(server, PROGRAM, asset={"checksum": "0" * 64})

    with pytest.raises(PluginError, match=f"checksum mismatch: expected {'0' * 64}, got {sha256(archive)}"):
        buy()

    assert buy.files() == []


def test_a_checksum_may_be_missing_and_a_warning_says_so(server, buy):
    archive = publish(server, PROGRAM, asset={"checksum": ""})

    buy()

    assert len(buy.warned) == 1
    assert "tells no checksum" in buy.warned[0]
    assert sha256(archive) in buy.warned[0]


def test_a_truncated_download_is_tried_again_and_then_an_error(server, buy):
    archive = publish(server, PROGRAM)
    server.put("/files/thing.zip", Reply(archive, cut=40))

    with pytest.raises(
        PluginError, match=r"source plugin `acme/thing` v1\.2\.3: http://127.* cannot be had: peer"
    ) as error:
        buy()

    assert server.paths().count("/files/thing.zip") == 3
    assert "secret" not in str(error.value)
    assert "registry: local" in str(error.value)
    assert buy.files() == []


def test_a_download_that_breaks_once_is_had_all_the_same(server, buy):
    archive = publish(server, PROGRAM)
    server.put("/files/thing.zip", Reply(archive, cut=40), Reply(b"", 503), Reply(archive))

    assert buy().program.read_bytes() == PROGRAM


def test_a_server_that_fails_once_is_asked_again(server, buy):
    publish(server, PROGRAM)
    server.put(ASSET, Reply(b"", 500), Reply(b"", 502), *server.replies[ASSET])

    assert buy().is_new


def test_a_server_that_keeps_failing_is_an_error_that_names_it(server, buy):
    publish(server, PROGRAM)
    server.put(ASSET, Reply(b"", 503))

    with pytest.raises(PluginError, match=rf"the hub at {server.url} answers 503; try again later"):
        buy()

    assert server.paths().count(ASSET) == 3


def test_retry_after_is_obeyed(server, buy):
    publish(server, PROGRAM)
    server.put(ASSET, Reply(b"", 429, {"Retry-After": "1"}), *server.replies[ASSET])

    begun = time.monotonic()
    buy()

    assert time.monotonic() - begun >= 1.0


def test_whoever_wants_a_long_pause_is_not_waited_for(server, buy):
    publish(server, PROGRAM)
    server.put(ASSET, Reply(b"", 429, {"Retry-After": "3600"}))

    with pytest.raises(PluginError, match=r"no more downloads for 3600 seconds; .* set `CLOUDQUERY_API_KEY`"):
        buy()

    assert server.paths().count(ASSET) == 1


@pytest.mark.parametrize(
    ("status", "key", "expected"),
    [
        (401, "", "the hub wants to know who asks; set `CLOUDQUERY_API_KEY`"),
        (401, "cqsr_wrong", "does not accept the key in `CLOUDQUERY_API_KEY`"),
        (403, "", "it is not for everyone; set `CLOUDQUERY_API_KEY`"),
        (403, "cqsr_other", "the team of the key in `CLOUDQUERY_API_KEY` may not use it"),
    ],
)
def test_a_refusal_says_what_to_do(server, buy, monkeypatch, status, key, expected):
    monkeypatch.setenv("CLOUDQUERY_API_KEY", key)
    publish(server, PROGRAM)
    server.put(ASSET, Reply(b"", status))

    with pytest.raises(PluginError, match=expected) as error:
        buy()

    assert "cqsr" not in str(error.value)


def test_a_version_that_is_not_there_names_the_latest(server, buy):
    server.put_json("/plugins/acme/source/thing", {"latest_version": "v9.0.0"})

    with pytest.raises(PluginError, match=r"version v1\.2\.3 does not exist; the latest is v9\.0\.0"):
        buy()


def test_a_plugin_that_is_not_there_may_be_a_private_one(server, buy):
    with pytest.raises(PluginError, match=r"is not on the hub; .* set `CLOUDQUERY_API_KEY` if it is a private one"):
        buy()


def test_a_machine_that_it_is_not_made_for_is_told_from_a_missing_version(server, buy):
    server.put_json(hub_path(), {"package_type": "native", "supported_targets": ["plan9_mips"]})

    with pytest.raises(PluginError, match=f"is not made for `{TARGET}`; there are `plan9_mips`"):
        buy()


def test_the_key_goes_to_the_hub_and_not_to_where_the_files_lie(server, buy, monkeypatch):
    monkeypatch.setenv("CLOUDQUERY_API_KEY", "team-key")
    archive = publish(server, PROGRAM)
    with running() as store:
        store.put("/thing.zip", Reply(archive))
        document = {"location": f"{store.url}/thing.zip", "checksum": sha256(archive)}
        server.put_json("/teams", {"items": [{"name": "mine"}], "metadata": {}})
        server.put_json(f"/teams/mine{ASSET}", document)
        buy()
        sent = [headers.get("Authorization") for _, headers in store.asked]

    assert sent == [None]
    assert {headers["Authorization"] for _, headers in server.asked} == {"Bearer team-key"}
    assert server.paths() == [hub_path(), "/teams", f"/teams/mine{ASSET}"]


def test_the_key_does_not_follow_a_redirect(server, buy, monkeypatch):
    monkeypatch.setenv("CLOUDQUERY_API_KEY", "cqsr_key")
    publish(server, PROGRAM)
    with running() as other:
        other.replies = server.replies
        server.replies = {hub_path(): [Reply(b"", 302, {"Location": f"{other.url}{hub_path()}"})],
                          ASSET: [Reply(b"", 302, {"Location": f"{other.url}{ASSET}"})],
                          "/files/thing.zip": [other.replies["/files/thing.zip"][0]]}  # fmt: skip
        buy()

    assert "Authorization" in server.asked[0][1]
    assert all("Authorization" not in headers for _, headers in other.asked)


def test_the_key_of_a_run_belongs_to_the_team_of_the_environment(server, buy, monkeypatch):
    monkeypatch.setenv("CLOUDQUERY_API_KEY", "cqsr_key")
    monkeypatch.setenv("_CQ_TEAM_NAME", "mine")
    publish(server, PROGRAM)
    server.put(f"/teams/mine{ASSET}", *server.replies.pop(ASSET))

    assert buy().is_new


def test_a_download_that_trickles_ends_in_an_error(server, buy):
    archive = publish(server, b"x" * 100_000)
    server.put("/files/thing.zip", Reply(archive, pieces=len(archive), pause_s=0.05))

    begun = time.monotonic()
    with pytest.raises(PluginError, match=r"/files/thing\.zip is too slow: \d+ bytes came in"):
        buy(attempts=2)

    assert time.monotonic() - begun < 5


def test_a_download_that_never_ends_is_broken_off(server, buy):
    archive = publish(server, b"x" * 100_000)
    server.put("/files/thing.zip", Reply(archive, pieces=len(archive), pause_s=0.1))

    with pytest.raises(PluginError, match=r"did not arrive within 0\.5 seconds"):
        buy(total_s=0.5, stalled_s=10.0)


def test_a_silent_server_ends_in_an_error(server, buy):
    archive = publish(server, PROGRAM)
    server.put("/files/thing.zip", Reply(archive, pieces=2, pause_s=1.0))

    with pytest.raises(PluginError, match="cannot be had: timed out"):
        buy(attempts=1)


def test_nobody_at_home_is_one_clear_error(buy, server, monkeypatch):
    monkeypatch.setenv("CLOUDQUERY_API_URL", "http://127.0.0.1:1")

    with pytest.raises(
        PluginError, match=r"source plugin `acme/thing` v1\.2\.3: http://127\.0\.0\.1:1/plugins/.* cannot be had"
    ):
        buy()


def test_a_download_has_a_largest_size(server, buy):
    publish(server, PROGRAM)

    with pytest.raises(PluginError, match=r"is larger than 0\.0 MB, so it is not used"):
        buy(archive_bytes=20)

    assert buy.files() == []


def test_a_plugin_that_is_an_image_is_named_and_remembered(server, buy, monkeypatch):
    server.put_json(hub_path(), {"package_type": "docker"})

    first = buy()
    monkeypatch.setenv("CLOUDQUERY_API_URL", "http://127.0.0.1:1")
    second = buy()

    assert first.program is second.program is None
    assert first.image == second.image == "docker.cloudquery.io/acme/source-thing:v1.2.3"


def test_images_of_the_hub_are_pulled_with_the_key(monkeypatch):
    monkeypatch.setenv("CLOUDQUERY_API_KEY", "k")

    login = json.loads(base64.urlsafe_b64decode(login_for("docker.cloudquery.io/acme/source-thing:v1")))

    assert (login["username"], login["password"]) == ("managedplugin", "k")
    assert login_for("docker.cloudquery.io.example.com/x") == ""


@pytest.mark.parametrize("path", ["thing", "a/b/c", "../x", "a/..", "a/", "/b", "", "a b/c", "a/b?c"])
def test_a_path_that_no_plugin_can_have(path):
    with pytest.raises(SpecError, match="expected team/name, got"):
        wanted("cloudquery", "source", path, "v1.0.0")


@pytest.mark.parametrize("version", ["v1/../../x", "1.0.0", "v1 0", ""])
def test_a_version_that_no_plugin_can_have(version):
    with pytest.raises(SpecError, match=r"write it as `v1\.2\.3`"):
        wanted("cloudquery", "source", "a/b", version)


def test_an_archive_without_the_program_tells_what_is_in_it(server, buy):
    publish(server, PROGRAM, archive=zipped(("README.md", b"hello")))

    with pytest.raises(PluginError, match=r"expected 'plugin-thing-v1\.2\.3-.* in the archive, got 'README\.md'"):
        buy()
