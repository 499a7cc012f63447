"""The suites once more, with every plugin behind the protocol: served in a thread, over a real socket."""

from __future__ import annotations

import dataclasses

import pytest

from catchment.testing import DestinationSuite, SourceSuite, TransformerSuite
from catchment.wire import codec
from catchment.wire.client import RemoteDestination, RemoteSource, RemoteTransformer
from tests.conformance import destinations, sources
from tests.conformance.test_destinations import MARKS
from tests.conformance.test_sources import TestTransformers as InProcess
from tests.wire.serving import connected, served


class Known(RemoteDestination):
    """A remote destination of which the test knows what the protocol cannot tell."""

    def __init__(self, name, peer, made):
        super().__init__(name, peer)
        self._local = made

    @property
    def capabilities(self):
        able = self._local[-1].capabilities
        return dataclasses.replace(
            able,
            publish="none",
            deletes_by_client=False,
            confirms_at_end=True,
            stored_as=lambda kind: codec.given_back(kind, able.stored_as(kind)),
        )

    @capabilities.setter
    def capabilities(self, value): ...


def _marks(name):
    """Those of the suite in process; where each question takes long, the second run is for `make test` only."""
    found = MARKS.get(name, [])
    marks = list(found) if isinstance(found, (list, tuple)) else [found]
    is_slow = name in ("clickhouse", "mysql-mariadb", "mysql-8", "postgresql-debian")
    return [*marks, pytest.mark.thorough] if is_slow else marks


class TestDestinations(DestinationSuite):
    @pytest.fixture(name="case", params=[pytest.param(c, id=c.name, marks=_marks(c.name)) for c in destinations.CASES])
    def _case(self, request):
        return request.param

    @pytest.fixture
    def made(self, case, tmp_path, request):
        for name in case.requires:
            request.getfixturevalue(name)
        made = []

        def make():
            made.append(case.make(tmp_path)[0])
            return made[-1]

        with served(make) as address:
            yield Known(case.name, connected(address), made), case.make(tmp_path)[1]


class TestSources(SourceSuite):
    @pytest.fixture(
        name="case", params=[pytest.param(c, id=c.name, marks=MARKS.get(c.name, [])) for c in sources.CASES]
    )
    def _case(self, request):
        return request.param

    @pytest.fixture
    def made(self, case, tmp_path, request):
        for name in case.requires:
            request.getfixturevalue(name)
        plugin, spec = case.make(tmp_path)
        with served(lambda: type(plugin)(plugin._source)) as address:
            yield RemoteSource(case.name, connected(address)), spec


class TestTransformers(TransformerSuite):
    @pytest.fixture(name="case")
    def _case(self):
        case = InProcess.case
        with served(lambda: case.make()[0]) as address:
            yield dataclasses.replace(
                case, make=lambda: (RemoteTransformer(case.name, connected(address)), case.make()[1])
            )
