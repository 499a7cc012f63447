"""What a user writes for the clickhouse destination."""

from __future__ import annotations

import ssl
from typing import Annotated, TypeAlias

from pydantic import Field, field_validator

from catchment.destinations.clickhouse.address import Address, parse
from catchment.sdk import BatchSpec, Secret, Spec

Scalar: TypeAlias = str | int | float | bool
Text: TypeAlias = Annotated[str, Field(min_length=1)]


class Engine(Spec):
    """The engine that tables are made with."""

    name: Annotated[str, Field(pattern="MergeTree$")] = "MergeTree"
    """Any of the MergeTree family."""
    parameters: tuple[Scalar, ...] = ()
    """Its parameters, in order; texts are quoted."""


class Choice(Spec):
    """Which tables an entry is for."""

    tables: tuple[str, ...] = ("*",)
    """Globs of table names."""
    skip_tables: tuple[str, ...] = ()
    """Globs of table names that the entry is not for."""


class Partition(Choice):
    """How tables are partitioned."""

    partition_by: Text
    """The expression after `partition by`, such as `toYYYYMM(_cq_sync_time)`."""
    skip_incremental_tables: bool = False
    """Whether the entry is not for incremental tables."""


class Order(Choice):
    """How rows are sorted."""

    order_by: Annotated[tuple[Text, ...], Field(min_length=1)]
    """The expressions after `order by`."""


class TTL(Choice):
    """When rows go by themselves."""

    ttl: Text
    """How long after `_cq_sync_time`, such as `interval 30 day`."""


class ClickHouseSpec(BatchSpec):
    """Spec of the clickhouse destination."""

    connection_string: Secret
    """DSN of the server, such as `clickhouse://user:password@host:9000/database?secure=true`."""
    cluster: str = ""
    """Cluster on which tables are made and changed (`on cluster`); empty: only on the server of the connection."""
    engine: Engine = Engine()
    """The engine that tables are made with."""
    ca_cert: str = ""
    """Certificates in PEM form that are trusted besides the system's, where the connection uses TLS."""
    partition: tuple[Partition, ...] = ()
    """How tables are partitioned; at most one entry may fit a table."""
    order: tuple[Order, ...] = ()
    """How rows are sorted, where not by their keys; at most one entry may fit a table."""
    ttl: tuple[TTL, ...] = ()
    """When rows go by themselves; at most one entry may fit a table."""
    http_port: Annotated[int, Field(ge=1, le=65_535)] | None = None
    """Port of the HTTP interface, where that of the connection string is another."""

    @field_validator("connection_string")
    @classmethod
    def _check_address(cls, value: Secret) -> Secret:
        parse(value.reveal())
        return value

    @field_validator("ca_cert")
    @classmethod
    def _check_certificates(cls, value: str) -> str:
        if value:
            try:
                ssl.create_default_context().load_verify_locations(cadata=value)
            except ssl.SSLError:
                raise ValueError("expected certificates in PEM form") from None
        return value

    def address(self) -> Address:
        """Where the server is, and how it is spoken to."""
        return parse(self.connection_string.reveal(), http_port=self.http_port)
