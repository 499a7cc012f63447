"""Durations, secrets and batch limits."""

from __future__ import annotations

import pytest
from pydantic import TypeAdapter

from catchment.errors import SpecError
from catchment.spec.fields import BatchSpec, Secret, duration_s, parse_spec


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30s", 30), ("1h30m", 5400), ("1.5h", 5400), ("500ms", 0.5), ("+5m", 300), (".5s", 0.5), ("1.s", 1), ("0", 0),
     ("1us", 1e-6), ("1µs", 1e-6), ("1ns", 1e-9), ("0s", 0)],
)  # fmt: skip
def test_durations(text, seconds):
    assert duration_s(text) == pytest.approx(seconds)


@pytest.mark.parametrize("value", ["", "5", "s", "1d", "5 s", "1h 30m", "-5s", "1h30", "abc", 5, None, True, "5S"])
def test_what_is_no_duration(value):
    with pytest.raises(ValueError, match="expected a duration such as '30s' or '1h30m'"):
        duration_s(value)


def test_a_secret_hides_itself():
    secret = Secret("hunter2")

    assert secret.reveal() == "hunter2"
    assert "hunter2" not in f"{secret} {secret!r} {[secret]}"
    assert TypeAdapter(Secret).dump_json(secret) == b'"**********"'
    assert secret == Secret("hunter2")
    assert hash(secret) == hash(Secret("hunter2"))
    assert secret != "hunter2"
    assert not Secret("")


def test_batch_limits():
    read = parse_spec(BatchSpec, {"batch_size": 5, "batch_size_bytes": 6, "batch_timeout": "7s"}, where="x")

    assert (read.batch_size, read.batch_size_bytes, read.batch_timeout) == (5, 6, 7.0)
    assert parse_spec(BatchSpec, None, where="x") == BatchSpec()
    for wrong in ({"batch_size": 0}, {"batch_size": "5"}, {"batch_size": 1.5}, {"batch_timeout": 5}):
        with pytest.raises(SpecError, match="got "):
            parse_spec(BatchSpec, wrong, where="x")
