"""The source suite over every registered source, and the transformer suite over every transformer."""

from __future__ import annotations

from importlib.metadata import entry_points

import pytest

from catchment.testing import SourceCase, SourceSuite, TransformerCase, TransformerSuite
from catchment.transformers import test
from tests.conformance.sources import CASES

MARKS = {"postgresql": [pytest.mark.postgresql], "sqlite": [pytest.mark.sqlite]}


class TestSources(SourceSuite):
    @pytest.fixture(
        name="case", params=[pytest.param(case, id=case.name, marks=MARKS.get(case.name, [])) for case in CASES]
    )
    def _case(self, request: pytest.FixtureRequest) -> SourceCase:
        found: SourceCase = request.param
        return found


class TestTransformers(TransformerSuite):
    case = TransformerCase("test", lambda: (test.Test.as_plugin(), {}))


def test_every_registered_source_and_transformer_has_a_case():
    assert {case.name for case in CASES} == {point.name for point in entry_points(group="catchment.sources")}
    assert {TestTransformers.case.name} == {point.name for point in entry_points(group="catchment.transformers")}
