"""What authors and scripts import is sorted, complete, documented, and typed."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest

import catchment
import catchment.api
import catchment.sdk
import catchment.testing

MODULES = [catchment, catchment.sdk, catchment.testing]


@pytest.mark.parametrize("module", MODULES)
def test_all_is_sorted_and_exists(module):
    assert list(module.__all__) == sorted(module.__all__)
    assert all(hasattr(module, name) for name in module.__all__)


@pytest.mark.parametrize("module", MODULES)
def test_every_public_name_is_documented(module):
    undocumented = [
        name
        for name in module.__all__
        if (inspect.isclass(getattr(module, name)) or inspect.isfunction(getattr(module, name)))
        and not inspect.getdoc(getattr(module, name))
    ]

    assert undocumented == []


def test_the_package_names_what_its_api_has():
    assert catchment.__all__ == catchment.api.__all__


def test_type_checkers_look_into_the_package():
    assert (Path(catchment.__file__).parent / "py.typed").exists()
