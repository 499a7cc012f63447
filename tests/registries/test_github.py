"""The registry `github`, spoken to over HTTP."""

from __future__ import annotations

import pytest

from catchment.errors import PluginError
from tests.registries.server import TARGET, Reply, sha256, zipped

PROGRAM = b"#!/bin/sh\nexit 0\n"


def release(server, repository, tag, asset, member, checksums=True):
    archive = zipped((member, PROGRAM), ("README.md", b"hello"))
    path = f"/{repository}/releases/download/{tag}"
    server.put(f"{path}/{asset}", Reply(archive))
    if checksums:
        lines = f"{'1' * 64}  other.zip\n{sha256(archive)}  {asset}\n"
        server.put(f"{path}/checksums.txt", Reply(lines.encode()))
    return archive


def private(server, token="t0ken", **asset):
    """A release that only the API hands out, and only for the token."""
    name = f"cq-source-thing_{TARGET}.zip"
    archive = zipped(("cq-source-thing", PROGRAM))
    api = f"{server.url}/api/v3/repos/acme/cq-source-thing/releases"
    assets = [
        {"name": name, "url": f"{api}/assets/1", "digest": f"sha256:{sha256(archive)}"} | asset,
        {"name": "other.zip", "url": f"{api}/assets/2"},
    ]
    server.put_json("/api/v3/repos/acme/cq-source-thing/releases/tags/v1.2.3", {"assets": assets})
    server.put("/api/v3/repos/acme/cq-source-thing/releases/assets/1", Reply(archive))
    return archive


def test_the_repository_of_the_plugin_is_tried_first(server, buy):
    release(server, "cloudquery/cq-source-thing", "v1.2.3", f"cq-source-thing_{TARGET}.zip", "cq-source-thing")
    release(
        server, "cloudquery/cloudquery", "plugins-source-thing-v1.2.3", f"thing_{TARGET}.zip", "plugins/source/thing"
    )

    found = buy(registry="github", team="cloudquery")

    assert found.program.read_bytes() == PROGRAM
    assert server.paths() == [
        f"/cloudquery/cq-source-thing/releases/download/v1.2.3/cq-source-thing_{TARGET}.zip",
        "/cloudquery/cq-source-thing/releases/download/v1.2.3/checksums.txt",
    ]
    assert buy.warned == []


@pytest.mark.parametrize("kind", ["source", "destination"])
def test_the_vendor_s_own_plugins_may_lie_in_its_one_repository(server, buy, kind):
    tag = f"plugins-{kind}-thing-v1.2.3"
    release(server, "cloudquery/cloudquery", tag, f"thing_{TARGET}.zip", f"plugins/{kind}/thing")

    assert buy(registry="github", team="cloudquery", kind=kind).program.read_bytes() == PROGRAM


def test_a_transformer_is_looked_for_among_the_sources(server, buy):
    release(server, "acme/cq-source-thing", "v1.2.3", f"cq-source-thing_{TARGET}.zip", "cq-source-thing")

    assert "/transformer/" in str(buy(registry="github", kind="transformer").program)


def test_others_are_not_looked_for_in_the_vendor_s_repository(server, buy):
    with pytest.raises(
        PluginError, match=rf"is not on GitHub for `{TARGET}`; looked at .*acme/cq-source-thing"
    ) as error:
        buy(registry="github")

    assert server.paths() == [f"/acme/cq-source-thing/releases/download/v1.2.3/cq-source-thing_{TARGET}.zip"]
    assert "set `GITHUB_TOKEN` if the repository is private" in str(error.value)


def test_a_wrong_checksum_is_an_error(server, buy):
    asset = f"cq-source-thing_{TARGET}.zip"
    release(server, "acme/cq-source-thing", "v1.2.3", asset, "cq-source-thing")
    wrong = f"{'0' * 64} *{asset}\n".encode()
    server.put("/acme/cq-source-thing/releases/download/v1.2.3/checksums.txt", Reply(wrong))

    with pytest.raises(PluginError, match="checksum mismatch: expected 0000"):
        buy(registry="github")

    assert buy.files() == []


def test_a_release_without_checksums_gives_a_warning(server, buy):
    asset = f"cq-source-thing_{TARGET}.zip"
    archive = release(server, "acme/cq-source-thing", "v1.2.3", asset, "cq-source-thing", checksums=False)

    buy(registry="github")

    assert sha256(archive) in buy.warned[0]


def test_checksums_that_cannot_be_had_are_no_missing_checksums(server, buy):
    release(server, "acme/cq-source-thing", "v1.2.3", f"cq-source-thing_{TARGET}.zip", "cq-source-thing")
    server.put("/acme/cq-source-thing/releases/download/v1.2.3/checksums.txt", Reply(b"", 503))

    with pytest.raises(PluginError, match="GitHub answers 503"):
        buy(registry="github")


def test_a_private_repository_is_reached_with_a_token(server, buy, monkeypatch):
    monkeypatch.setenv("GITHUB_TOKEN", "t0ken")
    private(server)

    found = buy(registry="github")

    assert found.program.read_bytes() == PROGRAM
    assert buy.warned == []
    (public, headers), *api = server.asked
    assert public.startswith("/acme/")
    assert "Authorization" not in headers
    assert [headers["Authorization"] for _, headers in api] == ["Bearer t0ken"] * 2
    assert api[-1][1]["Accept"] == "application/octet-stream"


def test_the_digest_that_the_api_tells_is_verified(server, buy, monkeypatch):
    monkeypatch.setenv("GITHUB_TOKEN", "t0ken")
    private(server, digest=f"sha256:{'0' * 64}")

    with pytest.raises(PluginError, match="checksum mismatch"):
        buy(registry="github")


def test_the_token_goes_to_no_other_server(server, buy, monkeypatch):
    monkeypatch.setenv("GITHUB_TOKEN", "t0ken")
    private(server, url="http://evil.example/asset")

    with pytest.raises(PluginError, match="names an asset of another server, 'http://evil"):
        buy(registry="github")


@pytest.mark.parametrize(
    ("status", "expected"), [(401, "look at the token in `GITHUB_TOKEN`"), (403, "what the token .* may read")]
)
def test_a_token_that_is_not_accepted(server, buy, monkeypatch, status, expected):
    monkeypatch.setenv("GITHUB_TOKEN", "t0ken")
    server.put("/api/v3/repos/acme/cq-source-thing/releases/tags/v1.2.3", Reply(b"", status))

    with pytest.raises(PluginError, match=expected) as error:
        buy(registry="github")

    assert "t0ken" not in str(error.value)


def test_too_many_requests_are_waited_for_and_then_an_error(server, buy):
    path = f"/acme/cq-source-thing/releases/download/v1.2.3/cq-source-thing_{TARGET}.zip"
    server.put(path, Reply(b"", 429))

    with pytest.raises(PluginError, match=r"GitHub allows no more for now \(429\); try again later"):
        buy(registry="github")

    assert server.paths() == [path] * 3
