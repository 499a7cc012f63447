"""All that a plugin's author imports."""

from typing import TYPE_CHECKING, Any

from catchment.errors import (
    CatchmentError,
    MigrationRefused,
    PluginError,
    PluginLost,
    Problem,
    RowsRefused,
    SpecError,
    Transient,
    Unsupported,
    did_you_mean,
)
from catchment.messages import DeleteRecord, Predicate, PredicateGroup, TableRelation
from catchment.plugin import BatchSize, Capabilities, Measure, PreviewedChange, Published, Swap, TablePreview
from catchment.schema.changes import ChangeKind
from catchment.schema.table import Column, Table
from catchment.schema.types import inet, json, mac, uuid
from catchment.sdk.destination import Destination
from catchment.sdk.rows import Rows
from catchment.sdk.source import Context, Discovered, Source
from catchment.sdk.transformer import Transformer
from catchment.spec.fields import BatchSpec, Duration, Secret, Spec

if TYPE_CHECKING:
    from catchment.serve import serve

__all__ = [
    "BatchSize",
    "BatchSpec",
    "Capabilities",
    "CatchmentError",
    "ChangeKind",
    "Column",
    "Context",
    "DeleteRecord",
    "Destination",
    "Discovered",
    "Duration",
    "Measure",
    "MigrationRefused",
    "PluginError",
    "PluginLost",
    "Predicate",
    "PredicateGroup",
    "PreviewedChange",
    "Problem",
    "Published",
    "Rows",
    "RowsRefused",
    "Secret",
    "Source",
    "Spec",
    "SpecError",
    "Swap",
    "Table",
    "TablePreview",
    "TableRelation",
    "Transformer",
    "Transient",
    "Unsupported",
    "did_you_mean",
    "inet",
    "json",
    "mac",
    "serve",
    "uuid",
]

if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        """`serve`, which only a program that is a plugin needs."""
        if name != "serve":
            raise AttributeError(f"module 'catchment.sdk' has no attribute {name!r}")
        from catchment.serve import serve

        return serve
