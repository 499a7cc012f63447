"""Whole configs, good and bad, with what they mean and the exact text of their mistakes.

`python -m tests.spec.test_golden` writes the expected results anew; look at the difference before you keep it.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from catchment.errors import SpecError
from catchment.spec.load import load
from catchment.spec.model import PluginConfig

FOLDER = Path(__file__).parent.parent / "golden" / "configs"
ENVIRON = {
    "NAME": "named", "BOOL": "true", "NUMBER": "5", "LIST": "[1, a]", "MAP": '{"k": {"n": 1}}', "PG": "postgresql://u:p@h/d",
    "TOKEN": "token-from-outside", "COLON": "a: b", "HASH": "a #b", "QUOTE": 'say "hi" \\x', "LINES": "one\ntwo\n",
    "CONNECTION": "x", "SECRET": "hunter2", "SHORT": "zq",
}  # fmt: skip


def documents(configs: tuple[PluginConfig, ...]) -> list[dict[str, Any]]:
    """What is written out in configs, by field."""
    return [
        {"version_string": config.version_string, **config.model_dump(mode="json", exclude_unset=True)}
        for config in configs
    ]


def outcome(path: Path) -> str:
    """What a config means as JSON, or its mistakes as text; paths count from the folder of the configs."""
    before = Path.cwd()
    os.chdir(FOLDER)
    try:
        config = load([path.relative_to(FOLDER)], environ=ENVIRON)
    except SpecError as error:
        return f"{error}\n"
    finally:
        os.chdir(before)
    made = {
        "sources": documents(config.sources),
        "destinations": documents(config.destinations),
        "transformers": documents(config.transformers),
        "warnings": [str(warning) for warning in config.warnings],
    }
    return json.dumps(made, indent=2, ensure_ascii=False) + "\n"


def expected(path: Path) -> Path:
    return path.with_suffix(".json" if path.parent.name == "good" else ".txt")


PATHS = sorted(FOLDER.glob("*/*.yml"))


@pytest.mark.parametrize("path", PATHS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_the_outcome_of_a_config(path):
    assert outcome(path) == expected(path).read_text()


def test_there_are_enough_of_them_and_none_is_left_over():
    good, bad = ([path.stem for path in PATHS if path.parent.name == kind] for kind in ("good", "bad"))

    assert len(good) >= 30
    assert len(bad) >= 60
    assert sorted(path.stem for path in FOLDER.glob("good/*.json")) == sorted(good)
    assert sorted(path.stem for path in FOLDER.glob("bad/*.txt")) == sorted(bad)


def test_no_mistake_shows_a_value_from_outside():
    texts = [path.read_text() for path in FOLDER.glob("bad/*.txt")]

    assert texts
    assert not [text for text in texts if "hunter2" in text or "zq" in text]


if __name__ == "__main__":
    for found in PATHS:
        expected(found).write_text(outcome(found))
