"""The two examples pass the public suites, as a stranger's plugins would."""

from __future__ import annotations

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from examples.plugins.jsonl import Folder
from examples.plugins.xkcd import xkcd

from catchment.engine.registry import make_destination, make_source
from catchment.testing import DestinationCase, DestinationSuite, SourceCase, SourceSuite

_address: list[str] = []


class _Comics(BaseHTTPRequestHandler):
    """Answers as the site does, for 405 comics."""

    def do_GET(self) -> None:
        number = self.path.strip("/").partition("/")[0]
        number = "405" if number == "info.0.json" else number
        comic = {"num": int(number), "title": f"Title {number}", "img": "x.png", "alt": "…", "year": "2008", "news": ""}
        self.send_response(404 if number == "404" else 200)
        self.end_headers()
        self.wfile.write(json.dumps(comic).encode())

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def site() -> Iterator[None]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Comics)
    Thread(target=server.serve_forever, daemon=True).start()
    _address[:] = [f"http://127.0.0.1:{server.server_port}"]
    yield
    server.shutdown()
    server.server_close()


class TestXkcd(SourceSuite):
    case = SourceCase("xkcd", lambda folder: (xkcd.as_plugin(), {"base_url": _address[0]}), requires=["site"])


def _peek(spec, table):
    lines = (Path(spec["folder"]) / f"{table}.jsonl").read_text().splitlines()
    return [(int(row["id"]), row["name"]) for row in map(json.loads, lines)]


class TestFolder(DestinationSuite):
    case = DestinationCase(
        "folder", lambda folder: (Folder.as_plugin(), {"folder": str(folder / "out")}), _peek, required_key="folder"
    )


def test_examples_are_found_by_module_and_object():
    assert make_source("python", "examples.plugins.xkcd:xkcd").name == "xkcd"
    assert make_destination("python", "examples.plugins.jsonl:Folder").name == "folder"


def test_source_has_thirty_lines_and_destination_at_most_a_hundred_and_fifty():
    def code(path: str) -> int:
        lines = (Path(__file__).parent.parent / "examples" / "plugins" / path).read_text().splitlines()
        return len([line for line in lines if line.strip() and not line.strip().startswith(('"""', "#"))])

    assert code("xkcd.py") <= 30
    assert code("jsonl.py") <= 150
