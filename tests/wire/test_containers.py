"""What plugins in containers need that can be seen without an engine."""

from __future__ import annotations

import base64
import http.server
import socket
import subprocess
import sys
import threading

import pytest

from catchment.engine.foreign import check
from catchment.errors import PluginError, SpecError
from catchment.spec.model import SourceConfig
from catchment.wire.contained import Contained
from catchment.wire.containers import Image, discard, pull
from catchment.wire.relay import Relay
from tests.engine.plugins import Recorder
from tests.wire.serving import connected, served


@pytest.fixture
def answering(monkeypatch):
    """Something that answers every request, but is no engine."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"hello")

        do_DELETE = do_GET

        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        monkeypatch.setenv("DOCKER_HOST", f"tcp://127.0.0.1:{server.server_port}")
        yield
        server.shutdown()
        thread.join()


def test_engine_that_is_not_there_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none")

    with pytest.raises(PluginError, match=r"no Docker engine answers at 'unix:///.*/none': No such file") as caught:
        pull("x:1")

    assert "DOCKER_HOST" in caught.value.hint


@pytest.mark.parametrize("address", ["tcp://10.0.0.1:2375", "ssh://me@there", "npipe:////./pipe/docker_engine"])
def test_engine_on_another_machine_is_refused(monkeypatch, address):
    monkeypatch.setenv("DOCKER_HOST", address)

    with pytest.raises(PluginError, match="is not a plain one on this machine") as caught:
        pull("x:1")

    assert "registry: grpc" in caught.value.hint


def test_engine_over_tls_is_refused(monkeypatch):
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:2376")
    monkeypatch.setenv("DOCKER_TLS_VERIFY", "1")

    with pytest.raises(PluginError, match="is not a plain one on this machine"):
        pull("x:1")


@pytest.mark.parametrize("token", ["secret", base64.b64encode(b"secret").decode(), base64.b64encode(b'"x"').decode()])
def test_token_that_engines_would_not_understand_is_refused(answering, token):
    with pytest.raises(PluginError, match="`docker_registry_auth_token` is not the base64 of a JSON object") as caught:
        pull("x:1", token)

    assert token not in str(caught.value)


def test_engine_that_answers_nonsense_is_told(answering):
    with pytest.raises(PluginError, match="what answers as Docker engine is none: b'hello'"):
        discard("x")


@pytest.mark.parametrize(
    "path",
    ["x", "x:1", "org/x-y_z.a:v1.2", "ghcr.io/org/x:v1", "Host/x__y--z", "127.0.0.1:5000/x", f"x@sha256:{'a' * 64}"],
)
def test_names_of_images_are_accepted(path):
    check(SourceConfig(name="s", registry="docker", path=path))


@pytest.mark.parametrize("path", ["", "X", "x y", "x:", "-x", "x:1 --privileged", "../x", "x/../y", "x?y=1", "x/json#"])
def test_what_is_no_name_of_an_image_is_refused(path):
    with pytest.raises(SpecError, match="names no image"):
        check(SourceConfig(name="s", registry="docker", path=path))


def test_relay_leads_to_a_socket(tmp_path):
    with served(Recorder.as_plugin) as address:
        relay = Relay(address, tmp_path / "s")
        peer = connected(f"unix://{tmp_path / 's'}")
        peer.channel()
        peer.close()
        relay.close()

    assert (tmp_path / "s").stat().st_mode & 0o777 == 0o666


def test_where_sockets_do_not_work_in_containers_a_port_leads_there(monkeypatch):
    monkeypatch.setattr("catchment.wire.contained.shares_sockets", lambda: False)
    with served(Recorder.as_plugin) as address:
        peer = Contained("s", Image("x:1", reaches_back=True))
        host, _, port = peer.reached(address).partition(":")
        assert host == "host.docker.internal"
        assert peer.reached(address) == f"{host}:{port}"
        there = connected(f"127.0.0.1:{port}")
        there.channel()
        there.close()
        peer.close()

    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", int(port)))


def test_relay_to_nobody_hangs_up(tmp_path):
    relay = Relay(f"unix://{tmp_path / 'nobody'}", tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(5)
        probe.connect(str(tmp_path / "s"))
        assert probe.recv(1) == b""
    relay.close()


def test_plugins_that_are_served_load_nothing_of_it():
    script = "import sys, catchment.wire.client; print([n for n in sys.modules if n in ('httpx', 'http.client')])"

    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"
