"""Servers, and downloads that do not wait long."""

from __future__ import annotations

import pytest

from catchment.registries.acquire import acquire
from catchment.registries.wanted import Wanted
from catchment.registries.watch import Limits, Watch
from tests.registries.server import running

QUICK = Limits(connect_s=2.0, stalled_s=0.4, total_s=20.0, attempts=3, first_wait_s=0.01, longest_wait_s=2.0)


@pytest.fixture
def server(monkeypatch):
    for name in ("CLOUDQUERY_API_KEY", "GITHUB_TOKEN", "_CQ_TEAM_NAME", "http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    with running() as started:
        monkeypatch.setenv("CLOUDQUERY_API_URL", started.url)
        monkeypatch.setenv("CATCHMENT_GITHUB_URL", started.url)
        yield started


class Buyer:
    """Has plugins in a cache of the test's own, and keeps what is told."""

    def __init__(self, folder):
        self.folder = folder
        self.told: list[str] = []
        self.warned: list[str] = []

    def __call__(self, name="thing", registry="cloudquery", kind="source", team="acme", version="v1.2.3", **limits):
        chosen = Limits(**{each: getattr(QUICK, each) for each in QUICK.__slots__} | limits)
        watch = Watch(self.told.append, self.warned.append, limits=chosen)
        return acquire(Wanted(registry, kind, team, name, version), self.folder, watch)

    def files(self):
        """What is in the cache, without its locks."""
        found = [path for path in self.folder.rglob("*") if path.is_file() and not path.name.endswith(".lock")]
        return sorted(path.name for path in found)


@pytest.fixture
def buy(tmp_path):
    return Buyer(tmp_path / "cq")
