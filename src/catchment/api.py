"""The library: sync a config, and read what was synced, from a script or a notebook."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, wait
from typing import TYPE_CHECKING, Any, TypeAlias

import pyarrow as pa

from catchment.engine import registry
from catchment.engine.acquire import CQ_DIR, acquire, needed
from catchment.engine.giving_up import ENDING_S
from catchment.engine.plan import Plan, config_secrets, make_plan
from catchment.engine.result import FailOn, Result, exit_code
from catchment.engine.sync import BUFFER_BYTES, Options, Sync
from catchment.engine.sync import migrate as migrate_plan
from catchment.errors import CatchmentError, PluginError, SpecError, Unsupported, did_you_mean
from catchment.plugin import DestinationPlugin
from catchment.redact import Redactor
from catchment.schema.arrays import colon_texts, uuid_texts
from catchment.schema.intervals import interval_texts, is_interval
from catchment.schema.table import Table
from catchment.schema.types import CloudQueryType, MACType, UUIDType, storage_type, to_storage
from catchment.spec.load import load, load_documents
from catchment.spec.model import Config, DestinationConfig, PartlyWrong, PluginConfig, Require
from catchment.telemetry.exports import exporting

if TYPE_CHECKING:
    import pandas
    import polars

__all__ = [
    "CatchmentError",
    "ConfigLike",
    "PluginError",
    "Result",
    "SpecError",
    "StoredTable",
    "SyncFailed",
    "migrate",
    "read",
    "sync",
]

log = logging.getLogger("catchment.api")

PathLike: TypeAlias = str | os.PathLike[str]
Document: TypeAlias = Mapping[str, Any] | PluginConfig
ConfigLike: TypeAlias = PathLike | Document | Config | Sequence[PathLike] | Sequence[Document]
"""Files and folders; mappings with `kind` and `spec`, or config objects; or what `catchment.spec.load` made of them."""


class SyncFailed(CatchmentError):
    """Raised by `sync` and `migrate` for an outcome that `fail_on` names; `result` tells all of it."""

    def __init__(self, message: str, result: Result) -> None:
        super().__init__(message)
        self.result = result


def sync(
    config: ConfigLike,
    *,
    fail_on: FailOn = "never",
    invocation_id: str = "",
    sources_in_parallel: int = 0,
    migrate: bool = True,
    shard: tuple[int, int] | None = None,
    columns_not_null: bool = False,
    summary_location: PathLike = "",
    prometheus_file: PathLike = "",
    buffer_bytes: int = BUFFER_BYTES,
    cq_dir: PathLike = CQ_DIR,
) -> Result:
    """Sync every source of `config` into its destinations; what came of it, as `--output json` prints it.

    The keywords are the options of `catchment sync`. Raises `SpecError` with every mistake of the config before
    anything starts, `PluginError` for plugins that cannot be downloaded, and `SyncFailed` for an outcome that `fail_on`
    names. KeyboardInterrupt ends the sync in order.
    """
    if shard is not None and not 1 <= shard[0] <= shard[1]:
        raise SpecError(f"shard {shard!r}: the first number must be from 1 to the second")
    options = Options(
        invocation_id=invocation_id or str(uuid.uuid4()),
        sources_in_parallel=sources_in_parallel,
        migrate=migrate,
        shard=shard,
        columns_not_null=columns_not_null,
        summary_location=os.fspath(summary_location),
        buffer_bytes=buffer_bytes,
    )
    plan = _plan(config, cq_dir)
    with exporting(plan, options.invocation_id, os.fspath(prometheus_file)) as observers:
        result = _run(Sync(plan, options, observers))
    return _checked(result, fail_on)


def _run(run: Sync) -> Result:
    # The run has a thread of its own, so that an interrupt reaches this one while it waits.
    outcome: Future[Result] = Future()

    def work() -> None:
        try:
            outcome.set_result(run.run())
        except BaseException as error:
            outcome.set_exception(error)

    threading.Thread(target=work, name="sync", daemon=True).start()
    try:
        # A wait without end might not see an interrupt that comes just before it.
        while not wait([outcome], timeout=0.2).done:
            pass
        result = outcome.result()
    except BaseException:
        run.interrupt()
        # A plugin that is stuck is left behind.
        wait([outcome], timeout=ENDING_S)
        raise
    for note in run.notes:
        log.warning("%s", note)
    return result


def migrate(
    config: ConfigLike,
    *,
    fail_on: FailOn = "never",
    invocation_id: str = "",
    sources_in_parallel: int = 0,
    columns_not_null: bool = False,
    cq_dir: PathLike = CQ_DIR,
) -> Result:
    """Create and change every table as a sync of `config` would, and write no rows; raises as `sync`."""
    options = Options(
        invocation_id=invocation_id or str(uuid.uuid4()),
        sources_in_parallel=sources_in_parallel,
        columns_not_null=columns_not_null,
    )
    plan = _plan(config, cq_dir)
    with exporting(plan, options.invocation_id) as observers:
        result = migrate_plan(plan, options, observers)
    return _checked(result, fail_on)


class StoredTable:
    """A table in a destination. Its rows are read anew each time they are asked for, in no order."""

    def __init__(self, table: Table, schema: pa.Schema, batches: Callable[[], Iterator[pa.RecordBatch]]) -> None:
        self.name = table.name
        self.primary_keys = table.primary_keys
        self.schema = schema
        """Names and types of the columns, as the batches have them."""
        self._batches = batches

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        """The rows in batches, one after the other; the whole table is never in memory."""
        return self._batches()

    def to_arrow(self) -> pa.Table:
        """All rows as a `pyarrow.Table`."""
        return pa.Table.from_batches(self, self.schema)

    def to_polars(self) -> polars.DataFrame:
        """All rows as a Polars data frame. Raises `CatchmentError` where Polars is not installed."""
        try:
            import polars
        except ImportError as error:
            raise CatchmentError("polars is not installed", hint="pip install polars") from error
        frame = polars.from_arrow(_framed(self.to_arrow()))
        assert isinstance(frame, polars.DataFrame)
        return frame

    def to_pandas(self) -> pandas.DataFrame:
        """All rows as a pandas data frame. Raises `CatchmentError` where pandas is not installed."""
        try:
            import pandas  # noqa: F401
        except ImportError as error:
            raise CatchmentError("pandas is not installed", hint="pip install pandas") from error
        return _framed(self.to_arrow()).to_pandas()

    def __repr__(self) -> str:
        return f"<table `{self.name}`: {', '.join(self.schema.names)}>"


def read(
    config: ConfigLike,
    table: str,
    *,
    destination: str = "",
    columns: Sequence[str] | None = None,
    cq_dir: PathLike = CQ_DIR,
) -> StoredTable:
    """A table of a destination of `config`; the database itself tells the columns.

    `destination` is its name, needed where the config has several. `columns` are those to read, None means all.
    Raises `SpecError` for mistakes of the config and unknown names, `PluginError` where the destination cannot be read.
    """
    redactor = Redactor()
    chosen = _destination(_load(config, redactor, require="relaxed"), destination)
    make_plan(Config(destinations=(chosen,)), redactor=redactor)
    acquire([chosen], cq_dir)
    with _opened(chosen, redactor) as plugin:
        if not plugin.capabilities.readable:
            raise Unsupported(f"destination `{chosen.name}` keeps nothing that could be read")
        found = plugin.stored_table(table)
        if found is None:
            hint = did_you_mean(table, plugin.stored_names())
            raise SpecError(f"destination `{chosen.name}` has no table {table!r}", hint=hint)
        wanted = found if columns is None else _only(found, columns)
        stored_as = plugin.capabilities.stored_as
        schema = pa.schema([pa.field(column.name, stored_as(column.type)) for column in wanted.columns])

    def batches() -> Iterator[pa.RecordBatch]:
        with _opened(chosen, redactor) as plugin:
            for batch in plugin.read(wanted):
                yield pa.RecordBatch.from_arrays(batch.columns, schema=schema)

    return StoredTable(wanted, schema, batches)


def _load(config: ConfigLike, redactor: Redactor, require: Require = "strict") -> Config:
    """The config, whatever it is given as; warnings go to the log."""
    if isinstance(config, Config):
        redactor.add(config_secrets(config))
        return config
    parts = [config] if isinstance(config, (str, os.PathLike, Mapping, PluginConfig)) else list(config)
    paths = [os.fspath(part) for part in parts if isinstance(part, (str, os.PathLike))]
    documents = [part for part in parts if not isinstance(part, (str, os.PathLike))]
    if paths and documents:
        raise SpecError("files and mappings cannot be mixed in one config", hint="write all of it into files")
    try:
        loaded = load(paths, require=require) if paths else load_documents(documents, require=require)
    except PartlyWrong as error:
        redactor.add(config_secrets(error.config))
        raise
    redactor.add(config_secrets(loaded))
    for warning in loaded.warnings:
        log.warning("%s", redactor.text(str(warning)))
    return loaded


def _plan(config: ConfigLike, cq_dir: PathLike) -> Plan:
    """The config with its plugins checked, and at hand. Raises `SpecError` with the mistakes of both at once."""
    redactor = Redactor()
    try:
        loaded = _load(config, redactor)
    except PartlyWrong as error:
        return make_plan(error.config, error.problems, redactor)
    plan = make_plan(loaded, redactor=redactor)
    acquire(needed(plan.config), cq_dir)
    return plan


def _checked(result: Result, fail_on: FailOn) -> Result:
    if exit_code(result.outcome, fail_on) == 0 or fail_on == "never":
        return result
    parts = [f"`{part.name}`: {part.error}" for part in (*result.sources, *result.destinations) if part.error]
    parts += [f"table `{row.table}`: {group.message}" for row in result.tables for group in row.errors]
    more = f" and {len(parts) - 1} more" if len(parts) > 1 else ""
    raise SyncFailed(f"the sync is {result.outcome}: {parts[0] if parts else 'it was broken off'}{more}", result)


def _destination(config: Config, name: str) -> DestinationConfig:
    names = [destination.name for destination in config.destinations]
    if not name and len(names) == 1:
        return config.destinations[0]
    for destination in config.destinations:
        if destination.name == name:
            return destination
    if not name:
        listed = ", ".join(f"`{known}`" for known in names) or "none"
        raise SpecError("which destination is to be read?", hint=f"name it with `destination=`, there are {listed}")
    raise SpecError(f"destination {name!r} is not in the config", hint=did_you_mean(name, names))


def _only(table: Table, columns: Sequence[str]) -> Table:
    for name in columns:
        if name not in table:
            raise SpecError(f"table `{table.name}` has no column {name!r}", hint=did_you_mean(name, table.column_names))
    return table.with_columns([table.column(name) for name in columns])


@contextlib.contextmanager
def _opened(config: DestinationConfig, redactor: Redactor) -> Iterator[DestinationPlugin]:
    """The destination, connected until the block ends; no error that comes out of it shows a secret."""
    plugin = registry.destination_for(config)
    try:
        plugin.init(config.spec)
        yield plugin
    except CatchmentError as error:
        error.args = tuple(redactor.text(str(part)) for part in error.args)
        error.hint = redactor.text(error.hint)
        raise
    finally:
        plugin.close()


def _framed(rows: pa.Table) -> pa.Table:
    """`rows` as data frames can take them: columns of uuid, inet, mac, json and intervals as text, not inside lists."""
    columns = [
        pa.chunked_array([_framed_array(chunk) for chunk in column.chunks], type=_framed_type(column.type))
        for column in rows.columns
    ]
    return pa.Table.from_arrays(columns, names=rows.schema.names)


def _framed_array(array: pa.Array) -> pa.Array:
    if isinstance(array.type, UUIDType):
        return uuid_texts(array.storage)
    if isinstance(array.type, MACType):
        return colon_texts(array.storage)
    if is_interval(array.type):
        return interval_texts(array)
    return to_storage(array).cast(_framed_type(array.type))


def _framed_type(data_type: pa.DataType) -> pa.DataType:
    is_text = isinstance(data_type, CloudQueryType) or is_interval(data_type)
    return pa.utf8() if is_text else _inner_type(storage_type(data_type))


def _inner_type(data_type: pa.DataType) -> pa.DataType:
    """The same type, but for the bytes of a fixed length that pandas cannot have in a list."""
    if pa.types.is_map(data_type):
        return pa.map_(_inner_type(data_type.key_type), _inner_type(data_type.item_type))
    if pa.types.is_struct(data_type):
        return pa.struct([field.with_type(_inner_type(field.type)) for field in data_type])
    if pa.types.is_list(data_type) or pa.types.is_large_list(data_type) or pa.types.is_fixed_size_list(data_type):
        return pa.list_(_inner_type(data_type.value_type))
    return pa.binary() if pa.types.is_fixed_size_binary(data_type) else data_type
