"""What authors import is sorted, complete and documented."""

from __future__ import annotations

import inspect

import pytest

import catchment.sdk
import catchment.testing


@pytest.mark.parametrize("module", [catchment.sdk, catchment.testing])
def test_all_is_sorted_and_exists(module):
    assert list(module.__all__) == sorted(module.__all__)
    assert all(hasattr(module, name) for name in module.__all__)


@pytest.mark.parametrize("module", [catchment.sdk, catchment.testing])
def test_every_public_name_is_documented(module):
    undocumented = [
        name
        for name in module.__all__
        if (inspect.isclass(getattr(module, name)) or inspect.isfunction(getattr(module, name)))
        and not inspect.getdoc(getattr(module, name))
    ]

    assert undocumented == []
