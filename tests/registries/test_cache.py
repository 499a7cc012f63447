"""The cache: shared by processes, whole or not there, and looked through before use."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from catchment.errors import PluginError
from tests.registries.server import Reply, publish

ROOT = Path(__file__).parents[2]
PROGRAM = b"#!/bin/sh\necho hello\n"
SCRIPT = """
import sys, pathlib
from catchment.registries.acquire import acquire
from catchment.registries.wanted import Wanted
from catchment.registries.watch import Watch
thing = Wanted("cloudquery", "source", "acme", "thing", "v1.2.3")
found = acquire(thing, pathlib.Path(sys.argv[1]), Watch(print, print))
print(found.is_new, found.program.read_bytes() == pathlib.Path(sys.argv[2]).read_bytes())
"""


@pytest.fixture
def buyer(buy, tmp_path):
    """Starts a process that has the plugin."""
    wanted = tmp_path / "wanted"
    started = []

    def start(program=PROGRAM):
        wanted.write_bytes(program)
        process = subprocess.Popen(
            [sys.executable, "-c", SCRIPT, str(buy.folder), str(wanted)], cwd=ROOT, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_processes_that_want_the_same_download_it_once(server, buyer):
    archive = publish(server, PROGRAM)
    server.put("/files/thing.zip", Reply(archive, pieces=4, pause_s=0.3))

    processes = [buyer() for _ in range(3)]
    outputs = [process.communicate(timeout=60) for process in processes]

    assert [process.returncode for process in processes] == [0, 0, 0], outputs
    assert sorted(output.splitlines()[-1] for output, _ in outputs) == ["False True", "False True", "True True"]
    assert server.paths().count("/files/thing.zip") == 1


def test_threads_that_want_the_same_download_it_once(server, buy):
    archive = publish(server, PROGRAM)
    server.put("/files/thing.zip", Reply(archive, pieces=4, pause_s=0.05))
    found = []
    threads = [threading.Thread(target=lambda: found.append(buy())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(each.is_new for each in found) == [False, False, False, True]
    assert server.paths().count("/files/thing.zip") == 1


def test_a_download_that_is_killed_leaves_nothing_that_could_be_used(server, buy, buyer):
    program = os.urandom(300_000)
    archive = publish(server, program)
    server.put("/files/thing.zip", Reply(archive, pieces=10, pause_s=1.0), Reply(archive))
    process = buyer(program)
    assert server.sent.wait(30)
    # Until something of it is on the disk.
    deadline = time.monotonic() + 10
    while not any(path.stat().st_size for path in buy.folder.rglob("plugin.zip")) and time.monotonic() < deadline:
        time.sleep(0.02)

    process.send_signal(signal.SIGKILL)
    process.wait()
    left = buy.files()
    found = buy()

    assert left == ["plugin.zip"]
    assert found.is_new
    assert found.program.read_bytes() == program
    assert buy.files() == ["plugin", "plugin.json"]
    assert [path.name for path in found.program.parent.parent.iterdir() if path.is_dir()] == [found.program.parent.name]


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda folder: (folder / "plugin").write_bytes(b"evil"), "was changed: SHA-256 is"),
        (lambda folder: (folder / "plugin").write_bytes(PROGRAM[:-1]), "was changed: SHA-256 is"),
        (lambda folder: (folder / "plugin").unlink(), "cannot be read: No such file"),
        (lambda folder: (folder / "plugin").chmod(0o600), "is no executable file"),
        (lambda folder: (folder / "plugin.json").unlink(), "has no 'plugin.json'"),
        (lambda folder: (folder / "plugin.json").write_text("{"), "'plugin.json' in the cache cannot be read"),
        (lambda folder: (folder / "plugin.json").write_text('{"surprise": 1}'), "cannot be read"),
    ],
)
def test_a_damaged_plugin_is_fetched_again(server, buy, damage, told):
    publish(server, PROGRAM)
    folder = buy().program.parent
    damage(folder)

    found = buy()

    assert found.is_new
    assert found.program.read_bytes() == PROGRAM
    assert len(buy.warned) == 1
    assert told in buy.warned[0]
    assert buy.warned[0].endswith("it is fetched again")


def test_a_link_in_place_of_the_program_is_not_followed(server, buy, tmp_path):
    publish(server, PROGRAM)
    program = buy().program
    elsewhere = tmp_path / "elsewhere"
    program.rename(elsewhere)
    program.symlink_to(elsewhere)

    found = buy()

    assert found.is_new
    assert not found.program.is_symlink()


def test_a_damaged_plugin_is_an_error_when_it_cannot_be_fetched(server, buy, monkeypatch):
    publish(server, PROGRAM)
    buy().program.write_bytes(b"evil")
    monkeypatch.setenv("CLOUDQUERY_API_URL", "http://127.0.0.1:1")

    with pytest.raises(PluginError, match="cannot be had"):
        buy()

    assert "was changed" in buy.warned[0]


def test_registries_do_not_share_their_plugins(server, buy):
    publish(server, PROGRAM)
    buy()

    with pytest.raises(PluginError, match="is not on GitHub"):
        buy(registry="github")


def test_what_upstream_keeps_in_the_folder_is_left_alone(server, buy):
    publish(server, PROGRAM)
    theirs = buy.folder / "plugins/source/acme/thing/v1.2.3"
    theirs.mkdir(parents=True)
    (theirs / "plugin").write_bytes(b"theirs")

    found = buy()

    assert found.program.read_bytes() == PROGRAM
    assert (theirs / "plugin").read_bytes() == b"theirs"


def test_a_cache_that_cannot_be_written_says_what_to_do(server, buy):
    publish(server, PROGRAM)
    buy.folder.write_text("a file")

    with pytest.raises(PluginError, match=r"cannot be written: .*; name another folder with `--cq-dir`"):
        buy()


def test_a_full_disk_leaves_nothing_behind(server, buy):
    publish(server, os.urandom(200_000))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    # A write beyond the limit fails as one to a full disk does.
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(PluginError, match=r"cannot be written: File too large"):
            buy()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)

    assert buy.files() == []
    assert buy().is_new


def test_whoever_hangs_in_a_download_is_named_in_the_end(server, buy, buyer):
    archive = publish(server, PROGRAM)
    server.put("/files/thing.zip", Reply(archive, pieces=20, pause_s=1.0))
    buyer()
    assert server.sent.wait(30)

    with pytest.raises(PluginError, match=r"another process held '.*lock' for 1 seconds; .*; end it if it hangs"):
        buy(total_s=1.0)
