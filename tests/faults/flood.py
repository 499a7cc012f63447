"""A source whose rows come from a few numbers, so that a test can say on its own what has to arrive."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from pydantic import Field

from catchment.sdk import Context, Rows, Source, Spec
from tests.e2e.documents import source

Row = tuple[int, str]


class FloodSpec(Spec):
    """Rows that are made, or spelled out client by client and batch by batch."""

    version: int = 0
    """Stands in every row, so that those of two syncs are told apart."""
    rows: int = 0
    row_bytes: int = 20
    rows_per_batch: int = 1_000
    batches: dict[str, tuple[tuple[tuple[int, str], ...], ...]] = Field(default_factory=dict)
    """By client."""


@dataclass(frozen=True)
class Client:
    """What one client sends."""

    spec: FloodSpec
    id: str = ""


flood = Source("flood", spec=FloodSpec, client=Client)


def text_of(number: int, version: int, size_bytes: int) -> str:
    """The text of a made row, which no other row has, and which nothing makes much shorter."""
    return random.Random(f"{number}-{version}").randbytes(size_bytes // 2).hex()


def numbers(rows: int, version: int) -> list[int]:
    """The ids of a version: every fifth differs from those of all others, so that it leaves stale rows behind."""
    return [number if number % 5 else number + version * rows for number in range(rows)]


def _clients(client: Client) -> Sequence[Client]:
    return [Client(client.spec, name) for name in client.spec.batches] or [client]


@flood.table(
    pa.schema([("id", pa.int64()), ("version", pa.int64()), ("text", pa.utf8())]),
    primary_key=["id"],
    multiplex=_clients,
)
def drops(ctx: Context[Client]) -> Rows:
    """The rows."""
    spec = ctx.client.spec
    for batch in spec.batches.get(ctx.client.id, ()):
        yield [{"id": number, "version": spec.version, "text": text} for number, text in batch]
    ids = numbers(spec.rows, spec.version)
    for start in range(0, spec.rows, spec.rows_per_batch):
        part = ids[start : start + spec.rows_per_batch]
        texts = [text_of(number, spec.version, spec.row_bytes) for number in part]
        yield pa.RecordBatch.from_arrays(
            [pa.array(part, pa.int64()), pa.array([spec.version] * len(part), pa.int64()), pa.array(texts, pa.utf8())],
            names=["id", "version", "text"],
        )


def document(**spec: Any) -> dict[str, Any]:
    """The source in a config."""
    made: dict[str, Any] = source("flood", "tests.faults.flood:flood", ["*"], spec=spec)
    return made


def wanted(rows: int, version: int, row_bytes: int = 20) -> list[tuple[int, int, str]]:
    """What is in the table once a version has arrived."""
    return sorted((number, version, text_of(number, version, row_bytes)) for number in numbers(rows, version))


FOUND = "select id, version, text from drops"
