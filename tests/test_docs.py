"""The hand-written pages: configs are valid, code and commands run, tables of rows are true, links lead somewhere."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from click.testing import CliRunner

from catchment.cli.main import root
from catchment.schema.changes import ChangeKind
from catchment.spec.load import load
from catchment.spec.model import MODELS

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.glob("*.md")])


def fenced(page: Path, *languages: str) -> list[str]:
    """The blocks of a page in these languages."""
    return re.findall(rf"^```(?:{'|'.join(languages)})\n(.*?)^```$", page.read_text(), re.M | re.S)


def blocks(language: str) -> list[Any]:
    return [
        pytest.param(text, id=f"{page.name}-{number}")
        for page in PAGES
        for number, text in enumerate(fenced(page, language))
    ]


def commands() -> list[Any]:
    lines = [(page, line) for page in PAGES for text in fenced(page, "sh") for line in text.splitlines()]
    return [pytest.param(line, id=f"{page.name}-{line}") for page, line in lines if line.startswith("catchment ")]


def check_config(text: str, folder: Path) -> None:
    """Raises for a config with mistakes; one that has a source has to be whole."""
    path = folder / "config.yml"
    path.write_text(text)
    config = load([path], require="strict" if "kind: source" in text else "relaxed")
    assert config.destinations


def check_command(words: list[str]) -> None:
    """Fails for a command line with an unknown command or flag; `--help` keeps it from running."""
    done = CliRunner().invoke(root, [*words, "--help"])
    assert done.exit_code == 0, done.output


def check_manifests(documents: list[Any], folder: Path) -> None:
    """A job whose config is valid, whose command exists, and whose volumes and variables are all there."""
    config_map, job = documents
    assert (config_map["apiVersion"], config_map["kind"]) == ("v1", "ConfigMap")
    assert (job["apiVersion"], job["kind"]) == ("batch/v1", "CronJob")
    pod = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    (text,) = config_map["data"].values()
    check_config(text, folder)
    check_command(container["args"])
    assert set(re.findall(r"\$\{(\w+)\}", text)) == {variable["name"] for variable in container["env"]}
    assert [mount["name"] for mount in container["volumeMounts"]] == [volume["name"] for volume in pod["volumes"]]
    assert container["volumeMounts"][0]["mountPath"] in container["args"]
    assert pod["volumes"][0]["configMap"]["name"] == config_map["metadata"]["name"]


@pytest.mark.parametrize("text", blocks("yaml"))
def test_yaml_is_valid(text, tmp_path, monkeypatch):
    for name in ("SHOP_URL", "COPY_URL"):
        monkeypatch.setenv(name, "postgresql://localhost/shop")
    first, *rest = yaml.safe_load_all(text)

    if "apiVersion" in first:
        check_manifests([first, *rest], tmp_path)
    elif "jobs" in first:
        runs = [step["run"] for job in first["jobs"].values() for step in job["steps"] if "run" in step]
        assert [run.split()[0] for run in runs].count("catchment") == len(runs) - 1
        for run in runs[1:]:
            check_command(run.split()[1:])
    else:
        check_config(text, tmp_path)


@pytest.mark.parametrize("line", commands())
def test_commands_exist(line):
    words = shlex.shlex(line, posix=True, punctuation_chars=True)
    words.whitespace_split = True
    command: list[str] = []
    for word in words:
        if set(word) <= set("|&;<>()"):
            break
        command.append(word)

    check_command(command[1:])


@pytest.mark.parametrize("page", [page for page in PAGES if fenced(page, "python")], ids=lambda page: page.name)
def test_python_runs(page, monkeypatch, tmp_path):
    """The blocks of a page, one after the other, as a reader would type them."""
    module = types.ModuleType("docs")
    monkeypatch.setitem(sys.modules, "docs", module)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(ROOT))

    for text in fenced(page, "python"):
        exec(compile(text, f"{page.name}", "exec", dont_inherit=True), vars(module))

    assert len(vars(module)) > 6


def test_the_quick_start_does_what_it_says(tmp_path):
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    output = ""
    shown = 0
    for language, text in re.findall(
        r"^```(sh|text|yaml)\n(.*?)^```$", (DOCS / "quickstart.md").read_text(), re.M | re.S
    ):
        if language != "sh":
            shown += 1
            assert text in output or all(line in output.splitlines() for line in text.splitlines()), output
        elif not text.startswith("pip install"):
            done = subprocess.run(
                ["bash", "-euc", text], cwd=tmp_path, env=os.environ | {"PATH": path}, capture_output=True, text=True,
                check=False,
            )  # fmt: skip
            assert done.returncode == 0, done.stderr
            output = done.stdout

    assert shown == 3


def rows_below(page: str, heading: str) -> list[list[str]]:
    """The cells of the first table below a heading, or of the one whose head starts with it."""
    text = page[page.index(heading) :]
    found = re.search(r"^\|[-|]+\|\n((?:\|.*\|\n)+)", text, re.M)
    assert found is not None
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in found[1].splitlines()]


@pytest.mark.parametrize("mode", ["append", "overwrite", "overwrite-delete-stale"])
def test_the_tables_of_the_write_modes_are_what_comes_out(mode, tmp_path):
    import catchment

    page = (DOCS / "write-modes.md").read_text()
    counts = dict(rows_below(page, "## Tables without a primary key"))
    found = {}
    for keys in (["id"], []):
        spec = {"path": str(tmp_path), "tables": [{"name": "people", "path": "people.csv", "primary_keys": keys}]}
        source = {"name": "crm", "registry": "python", "path": "file", "tables": ["*"], "destinations": ["db"]}
        destination = {"name": "db", "registry": "python", "path": "duckdb", "write_mode": mode,
                       "spec": {"connection_string": str(tmp_path / f"{len(keys)}.duckdb")}}  # fmt: skip
        config = [{"kind": "source", "spec": {**source, "spec": spec}}, {"kind": "destination", "spec": destination}]
        for day in ("Monday", "Tuesday"):
            lines = ["id,name", *(",".join(row) for row in rows_below(page, f"| {day}: id"))]
            (tmp_path / "people.csv").write_text("\n".join(lines) + "\n")
            catchment.sync(config, fail_on="table-error")
        rows = catchment.read(config, "people", columns=["id", "name", "_cq_sync_time"]).to_arrow().to_pylist()
        times = sorted({row["_cq_sync_time"] for row in rows})
        days = dict(zip(times, ["Monday", "Tuesday"][-len(times) :], strict=True))
        found[len(keys)] = sorted([str(row["id"]), row["name"], days[row["_cq_sync_time"]]] for row in rows)

    assert found[1] == rows_below(page, f"## `{mode}`\n")
    assert len(found[0]) == int(counts[f"`{mode}`"])


def test_the_guide_names_every_option():
    guide = (DOCS / "configuration.md").read_text()
    options = {option for model in MODELS.values() for option in model.model_fields} - {"spec"}

    assert [option for option in sorted(options) if not re.search(rf"[`\n -]{option}[`:]", guide)] == []


def test_the_page_on_migrations_names_every_change():
    page = (DOCS / "migrations.md").read_text()

    assert [kind for kind in get_args(ChangeKind) if f"`{kind}`" not in page] == []


@pytest.mark.parametrize("path", ["xkcd.py", "jsonl.py"])
def test_the_examples_in_the_docs_are_those_that_are_tested(path):
    code = (ROOT / "examples" / "plugins" / path).read_text()

    assert any(code in page.read_text() for page in PAGES)


def anchors(page: Path) -> set[str]:
    """What a link to a heading of the page may end in."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.M)
    return {re.sub(r"[^\w\s-]", "", heading.replace("`", "").lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    wrong = []
    for link in re.findall(r"\]\(([^):]+)\)", page.read_text()):
        file, _, anchor = link.partition("#")
        there = page.parent / file if file else page
        if not there.exists() or (anchor and anchor not in anchors(there)):
            wrong.append(link)

    assert wrong == []


def named(nav: Any) -> Iterator[str]:
    """The files in a site's navigation."""
    if isinstance(nav, str):
        yield nav
    else:
        for part in nav.values() if isinstance(nav, dict) else nav:
            yield from named(part)


def test_the_site_has_every_page():
    config = yaml.safe_load((ROOT / "mkdocs.yml").read_text())

    there = {str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md")}

    assert sorted(named(config["nav"])) == sorted(there)


def promises() -> list[Any]:
    """The rows of tables in which something is said to be proved, of every page."""
    found = []
    for page in PAGES:
        for table in re.findall(r"^\|.*\| proof \|\n\|[-|]+\|\n((?:\|.*\|\n)+)", page.read_text(), re.M):
            found += [pytest.param(line, id=f"{page.name}-{line[2:60]}") for line in table.splitlines()]
    return found


@pytest.mark.parametrize("line", promises())
def test_every_promise_has_a_test(line):
    proofs = [cell for cell in line.strip("|").split("|")][-1]
    named = re.findall(r"`([^`]+)`", proofs)

    assert named
    for proof in named:
        path, _, name = proof.partition("::")
        assert re.search(rf"^ *def {name}\(", (ROOT / path).read_text(), re.M), proof


def test_promises_are_found():
    assert {page for page in ("guarantees.md", "SECURITY.md") for row in promises() if row.id.startswith(page)} == {
        "guarantees.md",
        "SECURITY.md",
    }
