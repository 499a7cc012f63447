"""What a transformer's author writes: a class that changes tables and batches on their way."""

from __future__ import annotations

import contextlib
import logging
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Generic, TypeVar, get_args, get_origin

import pyarrow as pa

from catchment.errors import CatchmentError, PluginError
from catchment.messages import Insert
from catchment.schema.table import Table
from catchment.spec.fields import Spec, parse_spec, secrets_of

log = logging.getLogger("catchment.transformer")

S = TypeVar("S", bound=Spec)


class Transformer(ABC, Generic[S]):
    """Changes tables and their rows; subclass it as `class Mine(Transformer[MineSpec])` and set `name`."""

    name: ClassVar[str]
    """Name in a config."""
    spec_type: ClassVar[type[Spec]]
    """Taken from the class's type argument."""

    def __init__(self, spec: S) -> None:
        self.spec: S = spec

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        for origin in cls.__dict__.get("__orig_bases__", ()):
            if get_origin(origin) is Transformer and isinstance(get_args(origin)[0], type):
                cls.spec_type = get_args(origin)[0]

    @classmethod
    def as_plugin(cls) -> TransformerHost:
        """The plugin around a new object of this class."""
        return TransformerHost(cls)

    @abstractmethod
    def transform_table(self, table: Table) -> Table:
        """The table that comes out for `table`: the same answer every time, and no I/O."""

    @abstractmethod
    def transform(self, table: Table, batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
        """Batches with the columns of `transform_table(table)` for one batch of `table`; none drops the rows."""


class TransformerHost:
    """A `Transformer` with the face of `TransformerPlugin`."""

    def __init__(self, transformer_type: type[Transformer[Any]]) -> None:
        self.name = transformer_type.name
        self._type = transformer_type
        self._transformer: Transformer[Any] | None = None
        self.secrets: frozenset[str] = frozenset()
        """What must not be shown of the spec, known after `init`."""

    @property
    def transformer(self) -> Transformer[Any]:
        """The author's object; only after `init`."""
        if self._transformer is None:
            raise PluginError(f"transformer `{self.name}` was used before `init`")
        return self._transformer

    def init(self, spec: Mapping[str, Any], *, invocation_id: str = "") -> None:
        """Check the spec and make the transformer."""
        parsed = parse_spec(self._type.spec_type, spec, where=f"transformer `{self.name}`")
        self.secrets = secrets_of(parsed)
        self._transformer = self._type(parsed)

    def transform_table(self, table: Table) -> Table:
        """The author's answer."""
        with self._explained(table):
            return self.transformer.transform_table(table)

    def transform(self, table: Table, batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
        """The author's batches."""
        with self._explained(table):
            yield from self.transformer.transform(table, batch)

    def collect(self, *, last: bool = False) -> Iterator[Insert]:
        """Nothing: what a batch becomes is given with it."""
        return iter(())

    def close(self) -> None:
        """Nothing is held."""

    @contextlib.contextmanager
    def _explained(self, table: Table) -> Iterator[None]:
        """Whatever the author's code raises becomes a `PluginError`; a stranger's traceback goes to the log."""
        try:
            yield
        except PluginError:
            raise
        except Exception as error:
            log.exception("a transformer failed", extra={"plugin": self.name, "table": table.name})
            text = str(error) if isinstance(error, CatchmentError) else f"{type(error).__name__}: {error}"
            raise PluginError(f"transformer `{self.name}` failed on table `{table.name}`: {text}") from error
