"""What a transformer's author writes: a class that changes tables and batches on their way."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Generic, TypeVar, get_args, get_origin

import pyarrow as pa

from catchment.errors import PluginError
from catchment.schema.table import Table
from catchment.spec.fields import Spec, parse_spec

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
        for origin in getattr(cls, "__orig_bases__", ()):
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

    @property
    def transformer(self) -> Transformer[Any]:
        """The author's object; only after `init`."""
        if self._transformer is None:
            raise PluginError(f"transformer `{self.name}` was used before `init`")
        return self._transformer

    def init(self, spec: Mapping[str, Any], *, invocation_id: str = "") -> None:
        """Check the spec and make the transformer."""
        self._transformer = self._type(parse_spec(self._type.spec_type, spec, where=f"transformer `{self.name}`"))

    def transform_table(self, table: Table) -> Table:
        """The author's answer."""
        return self.transformer.transform_table(table)

    def transform(self, table: Table, batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
        """The author's batches."""
        return self.transformer.transform(table, batch)

    def close(self) -> None:
        """Nothing is held."""
