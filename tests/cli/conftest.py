"""Configs for the commands, and a plugin that says more than it should."""

from __future__ import annotations

import os

import pytest

from tests.cli.run import TEST_CONFIG

CHATTY = '''
import logging

import pyarrow as pa

from catchment.sdk import Destination, PluginError, Secret, Source, Spec


class ChattySpec(Spec):
    password: Secret = Secret("")
    url: str = ""
    fails: str = ""
    prints: bool = False


def connect(spec):
    if spec.prints:
        logging.getLogger("a.driver").warning("connecting to %s with %s", spec.url, spec.password.reveal())
    if spec.fails == "client":
        raise ValueError(f"cannot log in with {spec.password.reveal()} at {spec.url}")
    return spec


source = Source("chatty", spec=ChattySpec, client=connect)


@source.table(pa.schema([("id", pa.int64())]), primary_key=["id"])
def things(ctx):
    """Things."""
    for level in (5, 10, 20, 30, 40):
        ctx.log.log(level, "level %d says %s", level, ctx.spec.password.reveal(), extra={"where": ctx.spec.url})
    try:
        raise KeyError(ctx.spec.password.reveal())
    except KeyError:
        ctx.log.exception("caught")
    yield [{"id": 1}]
    if ctx.spec.fails == "table":
        raise ValueError(f"bad answer to {ctx.spec.password.reveal()!r} from {ctx.spec.url}")
    if ctx.spec.fails == "known":
        raise PluginError(f"{ctx.spec.url} does not know {ctx.spec.password.reveal()}")


class Chatty(Destination[ChattySpec]):
    name = "chatty"

    def open(self):
        self.fail("open")

    def close(self): ...

    def migrate(self, table, *, force):
        self.fail("migrate")

    def write(self, table, rows):
        self.fail("write")

    def delete_stale(self, table, *, source_name, sync_time, clients=None): ...

    def read(self, table):
        return iter(())

    def fail(self, where):
        if self.spec.fails == where:
            raise RuntimeError(f"{where} with {self.spec.password.reveal()} at {self.spec.url}")
'''


@pytest.fixture
def config(write_config):
    """Writes a config of the test source and the test destination."""

    def make(source="{}", destination="{}"):
        return write_config(TEST_CONFIG.format(source=source, destination=destination))

    return make


@pytest.fixture
def chatty(tmp_path, write_config):
    """Writes a config of a source and a destination that tell their secrets wherever they can.

    Gives its path, and the environment that the command needs to find them.
    """
    (tmp_path / "chatty.py").write_text(CHATTY)

    def make(source="{}", destination="{}"):
        text = TEST_CONFIG.format(source=source, destination=destination)
        text = text.replace("name: t, registry: python, path: test", "name: t, registry: python, path: 'chatty:source'")
        text = text.replace("name: d, registry: python, path: test", "name: d, registry: python, path: 'chatty:Chatty'")
        found = [str(tmp_path), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
        return write_config(text), {"PYTHONPATH": os.pathsep.join(filter(None, found))}

    return make
