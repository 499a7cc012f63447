"""Encrypted registries: certificates are checked, and nobody leads from there to a place in the clear."""

from __future__ import annotations

import shutil
import ssl
import subprocess

import pytest

from catchment.errors import PluginError
from tests.registries.server import TARGET, Reply, hub_path, publish, running, sha256

pytestmark = pytest.mark.skipif(not shutil.which("openssl"), reason="openssl makes the certificates")

PROGRAM = b"#!/bin/sh\n"


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "key", "-out", "cert",
               "-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]  # fmt: skip
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return folder


@pytest.fixture
def encrypted(server, certificates, monkeypatch):
    """A hub over TLS that the environment trusts."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates / "cert", certificates / "key")
    with running(context) as started:
        monkeypatch.setenv("CLOUDQUERY_API_URL", started.url)
        monkeypatch.setenv("SSL_CERT_FILE", str(certificates / "cert"))
        yield started


def test_a_plugin_comes_over_tls(encrypted, buy):
    publish(encrypted, PROGRAM)

    assert buy().program.read_bytes() == PROGRAM


def test_a_certificate_that_nobody_trusts_is_an_error(encrypted, buy, monkeypatch):
    publish(encrypted, PROGRAM)
    monkeypatch.delenv("SSL_CERT_FILE")

    with pytest.raises(PluginError, match="certificate verify failed"):
        buy()


def test_certificates_that_are_not_there_are_an_error_that_says_so(encrypted, buy, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", "/no/such/file")

    with pytest.raises(PluginError, match="look at the environment variables `SSL_CERT_FILE`"):
        buy()


def test_a_place_in_the_clear_is_not_used(encrypted, server, buy):
    archive = publish(encrypted, PROGRAM, asset={"location": f"{server.url}/thing.zip"})
    server.put("/thing.zip", Reply(archive))

    with pytest.raises(PluginError, match=r"/thing\.zip is not encrypted, so it is not used"):
        buy()

    assert server.asked == []


def test_a_redirect_into_the_clear_is_not_followed_to_its_end(encrypted, server, buy, monkeypatch):
    monkeypatch.setenv("CLOUDQUERY_API_KEY", "cqsr_key")
    publish(encrypted, PROGRAM)
    evil = publish(server, b"#!/bin/sh\necho evil\n")
    document = b'{"location": "https://localhost/x.zip", "checksum": "%s"}' % sha256(evil).encode()
    server.put("/evil", Reply(document))
    encrypted.put(f"{hub_path()}/assets/{TARGET}", Reply(b"", 302, {"Location": f"{server.url}/evil"}))

    with pytest.raises(PluginError, match="/evil, which is not encrypted, so it is not used"):
        buy()

    assert ["Authorization" in headers for _, headers in server.asked] == [False]
