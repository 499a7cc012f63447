"""The hand-written pages: their YAML is valid, their Python runs, their links lead somewhere."""

from __future__ import annotations

import re
import sys
import types
from pathlib import Path

import pytest

from catchment.spec.load import load

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])


def blocks(language: str) -> list[object]:
    return [
        pytest.param(text, id=f"{page.name}-{number}")
        for page in PAGES
        for number, text in enumerate(re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), re.M | re.S))
    ]


@pytest.mark.parametrize("text", blocks("yaml"))
def test_yaml_is_a_valid_config(text, tmp_path, monkeypatch):
    monkeypatch.setenv("SHOP_URL", "postgresql://localhost/shop")
    path = tmp_path / "config.yml"
    path.write_text(text)

    config = load([path])

    assert config.sources
    assert config.destinations


@pytest.mark.parametrize("text", blocks("python"))
def test_python_runs(text, monkeypatch):
    module = types.ModuleType("docs")
    monkeypatch.setitem(sys.modules, "docs", module)

    exec(compile(text, "docs", "exec"), vars(module))

    assert len(vars(module)) > 6


@pytest.mark.parametrize("path", ["xkcd.py", "jsonl.py"])
def test_the_examples_in_the_docs_are_those_that_are_tested(path):
    code = (ROOT / "examples" / "plugins" / path).read_text()

    assert any(code in page.read_text() for page in PAGES)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    links = re.findall(r"\]\(([^)#:]+)\)", page.read_text())

    assert [link for link in links if not (page.parent / link).exists()] == []
