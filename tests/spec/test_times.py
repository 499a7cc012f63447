"""Points in time, and every token of Go's layouts."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta, timezone

import pytest

from catchment.spec.times import substitute

NOON = datetime(2025, 3, 31, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("expression", "written"),
    [
        ("now", "2025-03-31T12:00:00Z"),
        ("2025-01-01", "2025-01-01T00:00:00Z"),
        ("2025-01-01T10:11:12Z", "2025-01-01T10:11:12Z"),
        ("2025-01-01T10:11:12+02:00", "2025-01-01T10:11:12+02:00"),
        ("2025-01-01T10:11:12.123456789-03:30", "2025-01-01T10:11:12-03:30"),
        ("1h", "2025-03-31T13:00:00Z"),
        ("+1h30m", "2025-03-31T13:30:00Z"),
        ("1.5h", "2025-03-31T13:30:00Z"),
        ("-1h", "2025-03-31T11:00:00Z"),
        ("90000ms", "2025-03-31T12:01:30Z"),
        ("60000000us", "2025-03-31T12:01:00Z"),
        ("60000000µs", "2025-03-31T12:01:00Z"),
        ("60000000000ns", "2025-03-31T12:01:00Z"),
        ("1 day ago", "2025-03-30T12:00:00Z"),
        ("2 days from now", "2025-04-02T12:00:00Z"),
        ("1 month ago", "2025-03-03T12:00:00Z"),
        ("1 month from now", "2025-05-01T12:00:00Z"),
        ("13 months ago", "2024-03-02T12:00:00Z"),
        ("1 year ago", "2024-03-31T12:00:00Z"),
        ("10 months 3 days 4h20m from now", "2026-02-03T16:20:00Z"),
        ("2h ago", "2025-03-31T10:00:00Z"),
        ("90 seconds ago", "2025-03-31T11:58:30Z"),
        ("5 minutes 1 hour ago", "2025-03-31T10:55:00Z"),
        ("1 millisecond from now", "2025-03-31T12:00:00Z"),
        ("5 us ago", "2025-03-31T11:59:59Z"),
        ("5 ns ago", "2025-03-31T11:59:59Z"),
        ("5 microseconds from now", "2025-03-31T12:00:00Z"),
        ("5 nanoseconds from now", "2025-03-31T12:00:00Z"),
        ("ago", "2025-03-31T12:00:00Z"),
    ],
)
def test_a_point_in_time_is_written_as_rfc_3339(expression, written):
    assert substitute(expression, NOON) == written


@pytest.mark.parametrize(
    "expression",
    [
        "1 day", "1 week ago", "2 d ago", "1 M ago", "5 ms ago", "-1 day ago", "Now", "2025-1-1", "2025-13-01",
        "2025-01-01T10:11:12", " now", "now ", "", "1d", "brkn123", "1 day  ago", "2hago", "+-1h", "--1h",
        "9999999 years ago", "999999999999999h", "99999999999999999999999999 days ago", "1h ago ago",
        "2025-01-01T10:11:12.1234567890Z", "٣ days ago",
    ],
)  # fmt: skip
def test_what_is_no_point_in_time_is_refused(expression):
    with pytest.raises(ValueError, match="invalid time format: ") as caught:
        substitute(expression, NOON)

    assert str(caught.value) == f"invalid time format: {expression}"


EARLY = "2006-01-02T03:04:05.006007008-07:00"
LATE = "2023-11-09T21:08:00.120000000+05:30"


@pytest.mark.parametrize(
    ("layout", "early", "late"),
    [
        ("2006", "2006", "2023"),
        ("06", "06", "23"),
        ("January", "January", "November"),
        ("Jan", "Jan", "Nov"),
        ("01", "01", "11"),
        ("1", "1", "11"),
        ("Monday", "Monday", "Thursday"),
        ("Mon", "Mon", "Thu"),
        ("02", "02", "09"),
        ("_2", " 2", " 9"),
        ("2", "2", "9"),
        ("002", "002", "313"),
        ("__2", "  2", "313"),
        ("15", "03", "21"),
        ("03", "03", "09"),
        ("3", "3", "9"),
        ("04", "04", "08"),
        ("4", "4", "8"),
        ("05", "05", "00"),
        ("5", "5", "0"),
        ("PM", "AM", "PM"),
        ("pm", "am", "pm"),
        ("MST", "-07", "+0530"),
        ("-0700", "-0700", "+0530"),
        ("-07:00", "-07:00", "+05:30"),
        ("-07", "-07", "+05"),
        ("-070000", "-070000", "+053000"),
        ("-07:00:00", "-07:00:00", "+05:30:00"),
        ("Z0700", "-0700", "+0530"),
        ("Z07:00", "-07:00", "+05:30"),
        ("Z07", "-07", "+05"),
        ("Z070000", "-070000", "+053000"),
        ("Z07:00:00", "-07:00:00", "+05:30:00"),
        ("05.000", "05.006", "00.120"),
        ("05.0", "05.0", "00.1"),
        ("05.000000", "05.006007", "00.120000"),
        ("05.000000000", "05.006007008", "00.120000000"),
        ("05.999", "05.006", "00.12"),
        ("05.9", "05", "00.1"),
        ("05.999999999", "05.006007008", "00.12"),
        ("05,000", "05,006", "00,120"),
        ("2006-01-02", "2006-01-02", "2023-11-09"),
        ("20060102150405", "20060102030405", "20231109210800"),
        ("Mon, 02 Jan 2006 15:04:05 -0700", "Mon, 02 Jan 2006 03:04:05 -0700", "Thu, 09 Nov 2023 21:08:00 +0530"),
        ("3:04PM", "3:04AM", "9:08PM"),
        ("Jan _2 15:04:05.000000", "Jan  2 03:04:05.006007", "Nov  9 21:08:00.120000"),
        ("_2006", "_2006", "_2023"),
        ("year=2006/month=01", "year=2006/month=01", "year=2023/month=11"),
        ("Month Janet", "Month Janet", "Month Janet"),
        ("xyz %Y", "xyz %Y", "xyz %Y"),
        ("v7.00 89", "v7.00 89", "v7.12 89"),
    ],
)
def test_every_token_of_a_layout(layout, early, late):
    assert substitute(f"{EARLY}|{layout}") == early.replace("v7.00", "v7.00")
    assert substitute(f"{LATE}|{layout}") == late


def test_utc_is_written_as_z_only_where_the_layout_has_one():
    assert substitute("2025-01-01|Z07:00") == "Z"
    assert substitute("2025-01-01|Z0700") == "Z"
    assert substitute("2025-01-01|-07:00") == "+00:00"
    assert substitute("2025-01-01|MST") == "UTC"


def test_noon_and_midnight_on_a_clock_of_twelve_hours():
    assert substitute("2025-01-01T12:00:00Z|3PM") == "12PM"
    assert substitute("2025-01-01T00:00:00Z|03pm") == "12am"


def test_a_day_before_the_year_1000_has_four_digits():
    assert substitute("0987-01-02|2006") == "0987"


def test_only_the_first_bar_ends_the_expression():
    assert substitute("2025-01-01|2006|01") == "2025"


def test_an_empty_layout_is_none():
    assert substitute("2025-01-01|") == "2025-01-01T00:00:00Z"


def test_the_offset_of_now_is_kept():
    now = datetime(2025, 3, 31, 12, tzinfo=timezone(timedelta(hours=-8)))

    assert substitute("1 day ago", now) == "2025-03-30T12:00:00-08:00"


def test_nanoseconds_are_exact():
    assert substitute("1 nanosecond ago|05.000000000", NOON) == "59.999999999"
    assert substitute("1001 ns from now|05.000000000", NOON) == "00.000001001"


def test_without_a_clock_given_the_zone_is_that_of_the_computer():
    script = "from catchment.spec.times import substitute; print(substitute('now|MST -0700'), substitute('1 month ago|15:04') == substitute('now|15:04'))"  # noqa: E501
    done = subprocess.run(
        [sys.executable, "-c", script], env=os.environ | {"TZ": "IST-5:30"}, capture_output=True, text=True, check=True
    )

    assert done.stdout.split() == ["IST", "+0530", "True"]


def test_calendar_steps_heed_summer_time():
    script = (
        "import catchment.spec.times as times\n"
        "from datetime import datetime\n"
        "class Clock(datetime):\n"
        "    @classmethod\n"
        "    def now(cls, tz=None): return datetime(2025, 4, 15, 12)\n"
        "times.datetime = Clock\n"
        "print(times.substitute('1 month ago'), times.substitute('744h ago'))\n"
    )
    zone = "CET-1CEST,M3.5.0,M10.5.0/3"
    done = subprocess.run(
        [sys.executable, "-c", script], env=os.environ | {"TZ": zone}, capture_output=True, text=True, check=True
    )

    assert done.stdout.split() == ["2025-03-15T12:00:00+01:00", "2025-03-15T11:00:00+01:00"]
