"""Configs as Python values, and how a test runs them in process."""

from __future__ import annotations

from typing import Any

from catchment.engine.plan import make_plan
from catchment.engine.result import Result
from catchment.engine.sync import Options, Sync
from catchment.spec.load import load_documents

HERE = "tests.e2e.plugins"
SHOP = "tests.engine.plugins:shop"


def source(name="shop", path=SHOP, tables=("shops", "orders"), destinations=("db",), spec=None, **more):
    body = {"name": name, "registry": "python", "path": path, "tables": list(tables),
            "destinations": list(destinations), "spec": spec or {}, **more}  # fmt: skip
    return {"kind": "source", "spec": body}


def made(destinations=("db",), **tables: dict[str, Any]):
    """A source with the tables of its arguments: `people=dict(columns=..., primary_key=..., rows=...)`."""
    return source("made", f"{HERE}:made", ["*"], destinations, {"tables": tables})


def destination(name="db", path="duckdb", **more) -> dict[str, Any]:
    return {"kind": "destination", "spec": {"name": name, "registry": "python", "path": path, **more}}


def transformer(name, path, **spec):
    return {"kind": "transformer", "spec": {"name": name, "registry": "python", "path": path, "spec": spec}}


def plan(*documents):
    return make_plan(load_documents(documents))


def run(*documents, **options) -> Result:
    return Sync(plan(*documents), Options(**options)).run()


def messages(result: Result) -> str:
    """Every error of a result, one a line."""
    return "\n".join(group.message for row in result.tables for group in row.errors)
