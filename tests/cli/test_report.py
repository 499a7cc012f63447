"""`catchment report`: one page that tells all of a run, needs nothing but itself, and that no name can break."""

from __future__ import annotations

import json
import random
import re
import shutil
import subprocess
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from typing import Any

import pytest

from catchment.cli.html_report.page import render
from catchment.engine.journal import Journal, Run
from catchment.engine.result import Expectation, PluginResult, Result, TableResult
from tests import services
from tests.cli.run import catchment
from tests.conftest import needed

MOMENT = datetime(2026, 8, 1, 3, 15, tzinfo=UTC)
RUN = Run(2, "3f2504e0-4f89-41d3-9a0c-0305e82c3301", "", "", "partial", 2, "0.1.0", 1, 1, ("/srv/a.yml",))
HOSTILE = [
    "<script>document.title='owned'</script>", "</script><script>document.title='owned'</script>",
    "<img src=x onerror=\"document.title='owned'\">", "\"><svg onload=\"document.title='owned'\">", "' onclick='x",
    "</style></title></textarea>-->", "&lt;b&gt;", "{{7*7}}${7*7}", "a\x00b\u202ec\ud800",
]  # fmt: skip


class Page(HTMLParser):
    """What a browser would find: elements with their attributes, and the text between them."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.texts, self.open = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in ("meta", "input"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("script", "style"):
            self.texts.append(data)


def table(name="orders", **more):
    values: dict[str, Any] = {
        "rows_read": 10,
        "rows_written": 10,
        "bytes": 800,
        "seconds_read": 1.5,
        "seconds_written": 0.5,
    }
    values |= {"started": MOMENT + timedelta(seconds=1), "published": True, "complete": True, "rows_stale_deleted": 0}
    return TableResult("shop", "copy", name, **values | more)


def result(*tables, outcome="complete", **more):
    return Result(
        RUN.invocation_id, "0.1.0", MOMENT, MOMENT + timedelta(seconds=4), outcome, tables=list(tables),
        sources=[PluginResult("shop", "shop (python@postgresql)", seconds=3.0)],
        destinations=[PluginResult("copy", "copy (python@duckdb)")], **more,
    )  # fmt: skip


def words(text):
    return " ".join(" ".join(Page(text).texts).split())


def test_the_last_run_becomes_a_page(tmp_path, config):
    path = config("{num_rows: 3, fail_tables: [test_paid_table]}")
    for _ in range(2):
        catchment("sync", path, "--no-log-file", cwd=tmp_path)

    done = catchment("report", cwd=tmp_path)

    [last, first] = Journal(tmp_path / ".cq").runs(5)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"The report of run {last.invocation_id} is in report.html\n"
    shown = words((tmp_path / "report.html").read_text())
    assert "The sync ended, and some tables are incomplete" in shown
    assert "`fail_tables` has table `test_paid_table`" in shown
    assert f"Compared with {first.invocation_id[:8]}" in shown
    assert "Tables: 4 the same." in shown


def test_a_run_is_named_and_a_place_too(tmp_path, config):
    catchment("sync", config(), "--no-log-file", cwd=tmp_path)
    [run] = Journal(tmp_path / ".cq").runs(5)

    done = catchment("report", run.invocation_id[:6], "--out", "made/here.html", "--output", "json", cwd=tmp_path)

    assert json.loads(done.stdout) == {"file": "made/here.html", "invocation_id": run.invocation_id}
    assert "No earlier run of this config is in the journal." in words((tmp_path / "made" / "here.html").read_text())
    assert "no run 'x' is in the journal" in catchment("report", "x", cwd=tmp_path).stderr
    assert catchment("report", "--out", "made", cwd=tmp_path).returncode == 1


def test_everything_that_went_wrong_is_told():
    failed = table(
        "invoices", complete=False, published=False, rows_stale_kept=7, stale_kept_reason="it was read badly"
    )
    failed.add_error("eu", "access denied", "access denied: request 17", count=3)
    other = table("items", rows_rejected=4, expectations=[Expectation("rows min 99", False, "warn", "10 rows")])
    other.add_error("us", "access denied")
    made = result(failed, other, table(expectations=[Expectation("unique id", True, "error", "0 twice")]))
    made.destinations[0].error = "the server went away"

    shown = words(render(RUN, made, None))

    assert "access denied 4 times for 2 clients, in invoices (shop → copy) [eu], items (shop → copy) [us]" in shown
    assert "the first of them access denied: request 17" in shown
    assert "the server went away once, in copy (python@duckdb)" in shown
    assert "it was read badly 7 rows in invoices (shop → copy)" in shown
    assert "items (shop → copy) rows min 99 10 rows broken" in shown
    assert "1 rule is kept" in shown
    assert "items (shop → copy) 4" in shown
    assert "not published" in shown


def test_a_whole_run_has_nothing_to_look_at():
    shown = words(render(RUN, result(table()), None))

    assert "What needs a look Nothing: every table is complete." in shown
    assert "1 of 1 tables complete" in shown


def test_the_run_before_is_compared():
    before = result(table(rows_written=8, rows_read=8), table("old"), table("same"))

    shown = words(render(RUN, result(table(), table("new"), table("same")), before))

    assert "Tables: 1 changed, 1 added, 1 removed, 1 the same." in shown
    assert "orders (shop → copy) 8 → 10 (+2)" in shown
    assert "30 rows read +7.1%" in shown


def test_bars_lie_where_their_tables_ran():
    made = result(
        table(seconds_read=2.0), table("early", started=MOMENT, seconds_read=1.0), table("last", seconds_read=0.5)
    )

    text = render(RUN, made, None)

    bars = [found for tag, found in Page(text).elements if tag == "div" and found.get("class") == "bar"]
    places = {found["title"].partition(":")[0]: found["style"].split(";") for found in bars}
    assert places["early"] == ["top:0px", "height:24px", "left:0.00%", "width:25.00%"]
    assert places["orders"] == ["top:0px", "height:24px", "left:25.00%", "width:50.00%"]
    assert places["last"] == ["top:26px", "height:24px", "left:25.00%", "width:12.50%"]
    assert [f"{second} s" for second in range(5)] == re.findall(r'class="tick" style="[^"]*">([^<]*)<', text)


def hostile():
    """A result and the one before it, with the same texts wherever a text can stand."""
    tables = []
    for text in HOSTILE:
        row = TableResult(text, text, text, parent=text, rows_read=1, started=MOMENT, stale_kept_reason=text,
                          expectations=[Expectation(text, False, text, text)])  # fmt: skip
        row.add_error(text, text, f"{text} again")
        tables.append(row)
    made = result(*tables)
    made.sources = [PluginResult(text, text, "failed", text) for text in HOSTILE]
    return made, result(*(TableResult("s", "d", text) for text in HOSTILE))


def test_no_name_and_no_error_breaks_out_of_its_place():
    run = Run(2, HOSTILE[0], "", "", "failed", 1, HOSTILE[1], 1, 1, tuple(HOSTILE))

    page = Page(render(run, *hostile()))

    assert page.open == []
    assert not {tag for tag, _ in page.elements} & {"img", "svg", "textarea", "a", "iframe"}
    assert [tag for tag, _ in page.elements].count("script") == 1
    names = {name for _, found in page.elements for name in found}
    assert not {name for name in names if name.startswith("on") or name in ("src", "href")}
    for text in HOSTILE[:-1]:
        assert text in page.texts


def test_the_page_fetches_nothing():
    text = render(RUN, result(table()), None)

    assert not re.findall(r"https?:|//[a-z]|@import|url\(|\bsrc=|\bhref=", text)
    assert "default-src 'none'" in text.replace("&#x27;", "'")


def many(count, seed):
    """A run of so many tables, a few of them with errors; the names stay, the numbers differ."""
    rng = random.Random(seed)
    made = result(outcome="partial")
    for number in range(count):
        rows = rng.randrange(10**6)
        row = table(f"aws_{'ec2' if number % 2 else 'iam'}_some_longer_name_of_things_{number}", rows_read=rows,
                    rows_written=rows, bytes=rows * 90, started=MOMENT + timedelta(seconds=rng.random() * 3),
                    seconds_read=rng.random(), seconds_written=rng.random())  # fmt: skip
        if number % 20 == 0:
            row.complete = False
            row.stale_kept_reason = f"it was read with {number} errors"
            row.add_error(f"client-{number}", f"table {number} is broken: " + "long text " * 2_000)
        made.tables.append(row)
    return made


def test_a_run_of_many_tables_is_a_page_of_less_than_a_megabyte():
    text = render(RUN, many(600, 2), many(610, 1))

    page = Page(text)
    assert len(text) < 1_000_000
    rows = [found for tag, found in page.elements if tag == "tr" and "say" in (found.get("class") or "").split()]
    assert len(rows) == 30
    assert sum("more" in (found.get("class") or "").split() for tag, found in page.elements if tag == "tr") == 550
    assert "Show all 600" in page.texts
    assert any("(20,019 characters)" in piece for piece in page.texts)


@pytest.fixture
def chromium(request):
    """The program of a browser."""
    names = ("chromium", "chromium-browser", "google-chrome")
    with needed(request, "chromium", everywhere=False):
        found = next(filter(None, map(shutil.which, names)), None)
        if found is None:
            raise services.Missing("chromium is not installed: nothing opens the report in a browser")
        yield found


def test_a_browser_runs_our_script_alone(chromium, tmp_path):
    made, before = hostile()
    made.tables += many(100, 1).tables
    file = tmp_path / "report.html"
    file.write_text(render(RUN, made, before), encoding="utf-8", errors="replace")

    done = subprocess.run(
        [chromium, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}",
         "--dump-dom", file.as_uri()],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip

    assert "50 of 109 shown" in done.stdout
    title = re.search("<title>(.*?)</title>", done.stdout)
    assert title is not None
    assert title[1].startswith("complete: sync 3f2504e0")
    assert not re.search(r"<(img|svg)\b", done.stdout)
