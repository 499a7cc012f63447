"""Tables read back with the library: every store, every type, as Arrow, pandas and Polars."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

import catchment
from catchment.schema.types import CloudQueryType
from catchment.sdk import Discovered, Source, Spec, Table
from catchment.sdk.types import SCALARS
from catchment.testing import data
from tests import services
from tests.e2e.conftest import at_file, duck, store
from tests.e2e.documents import destination, source
from tests.engine.plugins import Recorder
from tests.test_api import config

__all__ = ["config", "duck", "store"]


everything = Source("everything", spec=Spec, client=lambda spec: spec)
TYPES = data.all_types("types")


@everything.discover
def _types(spec: Spec) -> Iterator[Discovered[Spec]]:
    rows = [data.rows(TYPES, 5), data.rows(TYPES, 3, first_id=6, nulls=True)]
    yield Discovered(TYPES, lambda ctx: iter(rows))


class Vault(Recorder):
    """Cannot be read, and tells its password."""

    name = "vault"

    def stored_table(self, name: str) -> Table | None:
        raise catchment.PluginError("the password hunter2hunter2 is wrong")


class TestRead:
    def test_a_table_comes_back_with_the_columns_that_the_database_has(self, store):
        catchment.sync([source(), store.document()])

        found = catchment.read(store.document(), "orders")

        assert found.name == "orders"
        assert found.primary_keys == ("id",)
        rows = found.to_arrow()
        assert rows.schema.equals(found.schema)
        assert set(rows.column_names) == {"_cq_id", "_cq_parent_id", "_cq_source_name", "_cq_sync_time", "id", "shop"}
        assert sorted(zip(*rows.select(["id", "shop"]).to_pydict().values(), strict=True)) == sorted(
            store.query("select id, shop from orders")
        )
        assert set(rows["_cq_source_name"].to_pylist()) == {"shop"}

    def test_values_of_every_type_come_back(self, store):
        catchment.sync([source("all", everything, ["*"]), store.document(write_mode="append")])

        rows = catchment.read(store.document(), "types").to_arrow()

        rows.validate(full=True)
        rows = rows.take(pc.sort_indices(rows["id"]))
        sent = pa.Table.from_batches([data.rows(TYPES, 5)])
        # PostgreSQL writes JSON with other blanks.
        same = [name for name, kind, _ in SCALARS if rows.schema.field(name).type.equals(kind) and name != "json"]
        assert {"int64", "float64", "boolean", "string", "binary"} <= set(same)
        for name in same:
            assert rows[name].slice(0, 5).equals(sent[name]), name
            assert rows[name].slice(5).null_count == 3, name

    def test_a_type_that_only_the_database_has_is_read_as_text(self, store):
        if store.plugin == "sqlite":
            pytest.skip("SQLite has no types of its own")
        catchment.sync([source(), store.document()])
        odd = {"clickhouse": "toIPv4('1.2.3.4')", "duckdb": "hugeint '170141183460469231731687303715884105727'",
               "postgresql": "interval '1 day'"}[store.plugin]  # fmt: skip
        engine = "engine = MergeTree order by tuple() " if store.plugin == "clickhouse" else ""
        execute(store, f"create table odd {engine}as select {odd} as value, true as yes")

        rows = catchment.read(store.document(), "odd").to_arrow().to_pylist()

        wanted = {"clickhouse": "1.2.3.4", "duckdb": "170141183460469231731687303715884105727", "postgresql": "1 day"}
        assert rows == [{"value": wanted[store.plugin], "yes": True}]

    def test_views_are_read_like_tables(self, store):
        catchment.sync([source(), store.document()])
        execute(store, "create view big as select id, name from shops where id > 1")

        assert catchment.read(store.document(), "big").to_arrow().to_pylist() == [{"id": 2, "name": "shop 2"}]

    def test_each_reading_sees_the_rows_of_its_time(self, duck):
        catchment.sync([source(), duck.document()])
        shops = catchment.read(duck.document(), "shops", columns=["id"])

        first = [row["id"] for batch in shops for row in batch.to_pylist()]
        catchment.sync([source(spec={"shops": [8]}), duck.document()])

        assert (sorted(first), [batch.to_pydict() for batch in shops]) == ([1, 2], [{"id": [8]}])

    def test_a_misspelt_table_or_column_is_told_with_the_nearest(self, store):
        catchment.sync([source(), store.document()])

        with pytest.raises(catchment.SpecError, match="no table 'ordesr'; did you mean `orders`"):
            catchment.read(store.document(), "ordesr")
        with pytest.raises(catchment.SpecError, match="table `orders` has no column 'shp'; did you mean `shop`"):
            catchment.read(store.document(), "orders", columns=["shp"])

    def test_the_destination_is_named_where_there_are_several(self, config, tmp_path):
        path, _ = config
        with path.open("a") as file:
            file.write(f"---\n{json.dumps(at_file(str(tmp_path / 'other.duckdb')).document('other'))}\n")
        catchment.sync(path)

        assert catchment.read(path, "shops", destination="db").to_arrow().num_rows == 2
        with pytest.raises(catchment.SpecError, match="name it with `destination=`, there are `db`, `other`"):
            catchment.read(path, "shops")
        with pytest.raises(catchment.SpecError, match="destination 'othr' is not in the config; did you mean `other`"):
            catchment.read(path, "shops", destination="othr")

    @pytest.mark.parametrize("file_format", ["parquet", "csv"])
    def test_files_are_read_back(self, tmp_path, file_format):
        spec = {"path": str(tmp_path / "{{TABLE}}/{{UUID}}.{{FORMAT}}"), "format": file_format}
        files = destination(path="file", write_mode="append", spec=spec)
        catchment.sync([source(), files])
        catchment.sync([source(), files])

        rows = catchment.read(files, "shops", columns=["id"]).to_arrow()

        assert sorted(rows["id"].cast(pa.int64()).to_pylist()) == [1, 1, 2, 2]

    def test_what_cannot_be_read_is_told(self, tmp_path):
        lines = destination(
            path="file", write_mode="append", spec={"path": str(tmp_path / "{{TABLE}}/{{UUID}}.json"), "format": "json"}
        )
        catchment.sync([source(), lines])

        with pytest.raises(catchment.PluginError, match="files in the format `json` do not tell their columns"):
            catchment.read(lines, "shops")
        with pytest.raises(catchment.PluginError, match="destination `db` keeps nothing that could be read"):
            catchment.read(destination(path="test"), "shops")
        with pytest.raises(catchment.PluginError, match="destination `recorder` cannot tell the columns of its tables"):
            catchment.read(destination(path=Recorder), "shops")

    def test_secrets_are_in_no_error(self, write_config, monkeypatch):
        monkeypatch.setenv("VAULT", "hunter2hunter2")
        path = write_config(
            "kind: destination\nspec: {name: v, registry: python, path: 'tests.test_api_read:Vault',\n"
            " spec: {take_s: 0, refuse: ['${VAULT}']}}\n"
        )

        with pytest.raises(catchment.PluginError, match=r"the password \*+ is wrong"):
            catchment.read(path, "shops")


class TestDataFrames:
    @pytest.mark.parametrize("library", ["polars", "pandas"])
    def test_a_missing_library_is_told_with_the_line_that_installs_it(self, duck, monkeypatch, library):
        catchment.sync([source(), duck.document()])
        monkeypatch.setitem(sys.modules, library, None)

        with pytest.raises(catchment.CatchmentError, match=f"{library} is not installed; pip install {library}"):
            getattr(catchment.read(duck.document(), "shops"), f"to_{library}")()

    @pytest.mark.parametrize("library", ["polars", "pandas"])
    def test_values_of_every_type_make_a_data_frame(self, store, library):
        catchment.sync([source("all", everything, ["*"]), store.document(write_mode="append")])
        document = store.document()
        script = (
            f"import catchment; frame = catchment.read({document!r}, 'types').to_{library}(); "
            "print(*frame.shape, sorted(frame['id'].to_list()))"
        )

        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", script],
            env=os.environ | {"PYTHONPATH": str(services.peers())}, capture_output=True, text=True, check=False,
        )  # fmt: skip

        columns = len(catchment.read(document, "types").schema)
        assert done.stdout == f"8 {columns} {list(range(1, 9))}\n", done.stderr

    def test_extension_types_become_text(self):
        from catchment.api import _framed

        batch = data.rows(TYPES, 2)

        framed = _framed(pa.Table.from_batches([batch]))

        kinds = {name: kind for name, kind, _ in SCALARS if isinstance(kind, CloudQueryType)}
        assert {"uuid", "inet", "mac", "json"} <= set(kinds)
        for name in kinds:
            assert framed.schema.field(name).type.equals(pa.utf8()), name
            assert None not in framed[name].to_pylist()
        assert framed.schema.field("int64").type.equals(pa.int64())


def execute(store, statement):
    """Run a statement in the database, by its own driver."""
    import sqlite3

    import duckdb
    import psycopg

    if store.plugin == "clickhouse":
        store.query(statement)
        return

    connect: Any = {"postgresql": psycopg.connect, "duckdb": duckdb.connect, "sqlite": sqlite3.connect}[store.plugin]
    with contextlib.closing(connect(store.connection)) as connection:
        connection.execute(statement)
        if store.plugin != "duckdb":
            connection.commit()
