"""Embeddings of texts (`pgvector_config`): cut, sent to the API, and kept with the rows that they were made of.

Pieces and vectors are written with their row's `_cq_id`; what stands beside them is taken from the row itself when they
become visible. Embeddings of rows that are gone go too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from catchment.destinations.postgresql.spec import DIMENSIONS, EmbeddedTable, PgVectorConfig
from catchment.destinations.postgresql.splitter import split
from catchment.destinations.postgresql.types import DIALECT, constraint_name, quote, type_name
from catchment.sdk import PluginError, Table, Transient
from catchment.sdk.json_text import to_text
from catchment.sdk.staging import CQ_ID

MAX_INPUTS = 2_048
"""Texts of a request (https://platform.openai.com/docs/api-reference/embeddings/create)."""
MAX_CHARACTERS = 250_000
"""Characters of a request: the API takes 300,000 tokens, and a token has one character at least."""
TIMEOUT_S = 60.0

Piece = tuple[str, str, str]
"""`_cq_id`, text, and vector as the extension reads it."""


class Embeddings:
    """The embeddings of one destination."""

    def __init__(self, config: PgVectorConfig) -> None:
        self._config = config
        self._tables: Mapping[str, EmbeddedTable] = {table.source_table_name: table for table in config.tables}
        self._vector = f"vector({DIMENSIONS[config.openai_embedding.model_name]})"

    def of(self, table: str) -> EmbeddedTable | None:
        """What the config says of the table; None if its rows get no embeddings."""
        return self._tables.get(table)

    def prepare(self, connection: Any, table: Table) -> None:
        """Make the table of the vectors. Raises `PluginError` for a column that the config names and nobody sends."""
        wanted = self._tables[table.name]
        missing = [name for name in (*wanted.columns, *wanted.embed_columns) if name not in table]
        if missing:
            raise PluginError(
                f"`pgvector_config` names column `{missing[0]}` of table `{table.name}`, which has none of that name",
                hint=f"its columns are {', '.join(f'`{name}`' for name in table.column_names)}",
            )
        connection.execute("create extension if not exists vector")
        columns = ", ".join(f"{quote(name)} {type_name(table.column(name).type)}" for name in wanted.columns)
        target = DIALECT.table(wanted.target_table_name)
        connection.execute(f"create table if not exists {target} ({columns}, chunk text, embedding {self._vector})")
        index = quote(constraint_name(wanted.target_table_name, "_cqid_idx"))
        connection.execute(f"create index if not exists {index} on {target} ({quote(CQ_ID)})")

    def create(self, connection: Any, name: str, *, temporary: bool = False) -> None:
        """Make a table for pieces: of staged rows, or `temporary` of those of one transaction."""
        kind = "temporary table" if temporary else "table"
        connection.execute(f"create {kind} {name} ({quote(CQ_ID)} uuid, chunk text, embedding {self._vector})")

    def pieces(self, table: EmbeddedTable, rows: pa.Table) -> list[Piece]:
        """Of every row the pieces of its text with their vectors; of rows with equal ids those of the last."""
        cutting = self._config.text_splitter.recursive_text
        ids = to_text(rows.column(CQ_ID).combine_chunks()).to_pylist()
        columns = [to_text(rows.column(name).combine_chunks()).to_pylist() for name in table.embed_columns]
        texts = {
            row_id: "\n".join(value for value in values if value is not None)
            for row_id, values in zip(ids, zip(*columns, strict=True), strict=True)
        }
        cut = [
            (row_id, piece)
            for row_id, text in texts.items()
            for piece in split(text, cutting.chunk_size, cutting.chunk_overlap)
        ]
        vectors = [vector for part in _requests([piece for _, piece in cut]) for vector in self._vectors(part)]
        return [(row_id, piece, vector) for (row_id, piece), vector in zip(cut, vectors, strict=True)]

    def write(self, connection: Any, into: str, rows: pa.Table, pieces: Sequence[Piece]) -> None:
        """Put pieces into a table of pieces, in place of those of the same rows."""
        ids = to_text(rows.column(CQ_ID).combine_chunks()).to_pylist()
        connection.execute(f"delete from {into} where {quote(CQ_ID)} = any($1::uuid[])", [ids])
        with connection.cursor().copy(f"copy {into} ({quote(CQ_ID)}, chunk, embedding) from stdin") as copy:
            for piece in pieces:
                copy.write_row(piece)

    def publish(self, connection: Any, table: Table, pieces: str) -> None:
        """Bring the pieces of a table of pieces, which is dropped, beside their rows."""
        wanted = self._tables[table.name]
        target, live, key = DIALECT.table(wanted.target_table_name), DIALECT.table(table.name), quote(CQ_ID)
        connection.execute(f"delete from {target} as t using {pieces} as p where t.{key} = p.{key}")
        names = ", ".join(quote(name) for name in wanted.columns)
        values = ", ".join(f"l.{quote(name)}" for name in wanted.columns)
        connection.execute(
            f"insert into {target} ({names}, chunk, embedding) select {values}, p.chunk, p.embedding "
            f"from {pieces} as p join {live} as l on l.{key} = p.{key}"
        )
        connection.execute(f"drop table {pieces}")

    def clean(self, connection: Any, table: str) -> None:
        """Delete the pieces of rows that are gone."""
        target, key = DIALECT.table(self._tables[table].target_table_name), quote(CQ_ID)
        live = f"select from {DIALECT.table(table)} as l where l.{key} = t.{key}"
        connection.execute(f"delete from {target} as t where not exists ({live})")

    def _vectors(self, texts: Sequence[str]) -> list[str]:
        """A vector for each text. Raises `Transient` while the API is busy, `PluginError` if it refuses."""
        import httpx

        api = self._config.openai_embedding
        url = f"{api.base_url.rstrip('/')}/embeddings"
        headers = {"Authorization": f"Bearer {api.api_key.reveal()}"}
        asked = {"model": api.model_name, "input": list(texts)}
        try:
            response = httpx.post(url, json=asked, headers=headers, timeout=TIMEOUT_S)
        except httpx.TransportError as error:
            raise Transient(f"the embeddings API at {url!r} cannot be reached: {error}") from error
        if response.status_code == 429 or response.status_code >= 500:
            wait = response.headers.get("retry-after", "")
            raise Transient(
                f"the embeddings API answers {response.status_code}",
                retry_after_s=float(wait) if wait.isdigit() else None,
            )
        if response.is_error:
            raise PluginError(f"the embeddings API answers {response.status_code}: {response.text[:300]}")
        found = sorted(response.json()["data"], key=lambda item: item.get("index", 0))
        if len(found) != len(texts):
            raise PluginError(f"the embeddings API gave {len(found)} vectors for {len(texts)} texts")
        return ["[" + ",".join(map(repr, item["embedding"])) + "]" for item in found]


def _requests(texts: Sequence[str]) -> Iterator[list[str]]:
    """Texts in their order, as many in each part as a request takes."""
    part: list[str] = []
    size = 0
    for text in texts:
        if part and (len(part) >= MAX_INPUTS or size + len(text) > MAX_CHARACTERS):
            yield part
            part, size = [], 0
        part.append(text)
        size += len(text)
    if part:
        yield part
