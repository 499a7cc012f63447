"""The audit of dependencies: a service that is silent clears nobody, and neither does a package that was skipped."""

from __future__ import annotations

import http.server
import runpy
import subprocess
import sys
import threading
from pathlib import Path

import pytest

TOOL = Path(__file__).parents[1] / "tools" / "audit.py"
audit = runpy.run_path(str(TOOL))
NOWHERE = "http://127.0.0.1:9/v1/query"


@pytest.mark.parametrize(("options", "code"), [([], 0), (["--required"], 1)])
def test_a_service_that_does_not_answer_is_told_loudly(options, code):
    done = subprocess.run(
        [sys.executable, str(TOOL), "--url", NOWHERE, *options], capture_output=True, text=True, check=False
    )

    assert "THE DEPENDENCIES WERE NOT AUDITED" in done.stdout
    assert done.returncode == code


@pytest.mark.parametrize(("status", "body", "answers"), [(200, b"{}", True), (404, b"{}", False), (200, b"<p>", False)])
def test_only_an_answer_of_the_service_itself_counts(status, body, answers):
    class Answers(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Answers) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        assert (audit["unreachable"](f"http://127.0.0.1:{server.server_port}/") == "") == answers


def test_advisories_and_what_was_not_looked_up_fail():
    sound = {"name": "a", "version": "1", "vulns": []}
    weak = {"name": "b", "version": "2", "vulns": [{"id": "CVE-1", "fix_versions": ["3"]}]}
    skipped = {"name": "c", "skip_reason": "not found"}

    assert audit["verdict"]([sound]) == (["1 dependencies, nothing is known against them"], 0)
    assert audit["verdict"]([sound, weak, skipped]) == (["b 2: CVE-1, mended in 3", "not audited: c: not found"], 1)
