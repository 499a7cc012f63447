"""The destination suite over every registered destination."""

from __future__ import annotations

from importlib.metadata import entry_points

import pytest

from catchment.testing import DestinationCase, DestinationSuite
from tests.conformance.destinations import CASES

MARKS = {
    "clickhouse": [pytest.mark.clickhouse],
    "mysql-mariadb": [pytest.mark.mysql],
    "mysql-8": [pytest.mark.mysql],
    "postgresql": [pytest.mark.postgresql],
    "postgresql-debian": [pytest.mark.postgresql],
    "duckdb": [pytest.mark.duckdb],
    "sqlite": [pytest.mark.sqlite],
}


class TestDestinations(DestinationSuite):
    @pytest.fixture(
        name="case", params=[pytest.param(case, id=case.name, marks=MARKS.get(case.name, [])) for case in CASES]
    )
    def _case(self, request: pytest.FixtureRequest) -> DestinationCase:
        found: DestinationCase = request.param
        return found


def test_every_registered_destination_has_a_case():
    registered = {point.name for point in entry_points(group="catchment.destinations")}
    assert {case.name.partition("-")[0] for case in CASES} == registered
