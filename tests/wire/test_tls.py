"""`grpcs://` addresses: the other side has to show a certificate that is trusted, and may ask for ours."""

from __future__ import annotations

import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from catchment.errors import PluginLost, SpecError
from catchment.plugin import SyncRequest
from catchment.schema.select import Selection
from catchment.serve import connect
from catchment.wire.client import RemoteSource
from catchment.wire.peer import Connected
from catchment.wire.server import About, Servicer
from tests.engine.plugins import shop

pytestmark = pytest.mark.skipif(not shutil.which("openssl"), reason="openssl makes the certificates")


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")

    def openssl(*arguments):
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "key", "-out", "cert", "-days", "2",
            "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost")  # fmt: skip
    return folder


@pytest.fixture
def address(certificates):
    key, cert = (certificates / "key").read_bytes(), (certificates / "cert").read_bytes()
    servicer = Servicer(shop.as_plugin, About("shop", "v1"), connect)
    server = grpc.server(ThreadPoolExecutor(4), handlers=servicer.handlers())
    port = server.add_secure_port("localhost:0", grpc.ssl_server_credentials([(key, cert)], cert, True))
    server.start()
    yield f"grpcs://localhost:{port}"
    server.stop(0).wait()


def test_both_sides_show_their_certificates(address, certificates):
    options = "&".join(
        f"{name}={certificates / file}" for name, file in (("ca", "cert"), ("cert", "cert"), ("key", "key"))
    )
    source = RemoteSource("shop", Connected(f"{address}?{options}", start_s=5.0))
    source.init({})

    assert len(list(source.sync(SyncRequest(Selection(("shops",), ()))))) == 2
    source.close()


@pytest.mark.parametrize("options", ["", "ca={folder}/cert"])
def test_certificate_that_is_not_trusted_or_not_shown_is_refused(address, certificates, options):
    source = RemoteSource("shop", Connected(f"{address}?{options.format(folder=certificates)}", start_s=1.0))

    with pytest.raises(PluginLost, match="no plugin answers"):
        source.init({})
    source.close()


def test_file_that_is_missing_is_named(certificates):
    with pytest.raises(SpecError, match="none cannot be read"):
        Connected(f"grpcs://localhost:1?ca={certificates}/none")
