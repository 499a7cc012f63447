"""The four Arrow extension types of the protocol (uuid, json, inet, mac), and what types are called.

Importing this module registers them with pyarrow, once per process. They are the protocol's own, not Arrow's canonical
`arrow.uuid` and `arrow.json`.
"""

from __future__ import annotations

from typing import Any, ClassVar, Self

import pyarrow as pa


class CloudQueryType(pa.ExtensionType):  # type: ignore[misc]
    """An extension type whose metadata is `<name>-serialized`; types are equal when their names are."""

    extension: ClassVar[str]
    storage: ClassVar[pa.DataType]

    def __init__(self) -> None:
        super().__init__(self.storage, self.extension)

    def __arrow_ext_serialize__(self) -> bytes:
        return f"{self.extension}-serialized".encode()

    @classmethod
    def __arrow_ext_deserialize__(cls, storage_type: pa.DataType, serialized: bytes) -> Self:
        expected = f"{cls.extension}-serialized".encode()
        if serialized != expected or storage_type != cls.storage:
            raise ValueError(
                f"extension type `{cls.extension}` came as {storage_type} with metadata {serialized!r}, "
                f"expected {cls.storage} with {expected!r}"
            )
        return cls()

    def __str__(self) -> str:
        return self.extension

    def __eq__(self, other: object) -> bool:
        return isinstance(other, type(self))

    def __hash__(self) -> int:
        return hash(self.extension)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), ()


class UUIDType(CloudQueryType):
    """16 bytes in big-endian order."""

    extension = "uuid"
    storage = pa.binary(16)


class JSONType(CloudQueryType):
    """UTF-8 JSON text; a null cell and the text `null` are different values."""

    extension = "json"
    storage = pa.binary()


class InetType(CloudQueryType):
    """ASCII CIDR text such as `10.1.2.3/8`, host bits kept."""

    extension = "inet"
    storage = pa.binary()


class MACType(CloudQueryType):
    """The raw bytes of a hardware address: 6, 8 or 20."""

    extension = "mac"
    storage = pa.binary()


_TYPES = {kind.extension: kind() for kind in (UUIDType, JSONType, InetType, MACType)}
for _type in _TYPES.values():
    pa.register_extension_type(_type)


def uuid() -> pa.DataType:
    """The type of UUID columns."""
    return _TYPES["uuid"]


def json() -> pa.DataType:
    """The type of JSON columns."""
    return _TYPES["json"]


def inet() -> pa.DataType:
    """The type of network address columns."""
    return _TYPES["inet"]


def mac() -> pa.DataType:
    """The type of hardware address columns."""
    return _TYPES["mac"]


def storage_type(data_type: pa.DataType) -> pa.DataType:
    """`data_type` with every extension type in it, however deep, replaced by what it is stored as."""
    if isinstance(data_type, pa.BaseExtensionType):
        return storage_type(data_type.storage_type)
    if pa.types.is_map(data_type):
        key, item = data_type.key_field, data_type.item_field
        return pa.map_(
            key.with_type(storage_type(key.type)), item.with_type(storage_type(item.type)), data_type.keys_sorted
        )
    if pa.types.is_struct(data_type):
        return pa.struct([field.with_type(storage_type(field.type)) for field in data_type])
    if pa.types.is_fixed_size_list(data_type):
        return pa.list_(_storage_field(data_type.value_field), data_type.list_size)
    if pa.types.is_large_list(data_type):
        return pa.large_list(_storage_field(data_type.value_field))
    if pa.types.is_list(data_type):
        return pa.list_(_storage_field(data_type.value_field))
    return data_type


def _storage_field(field: pa.Field) -> pa.Field:
    return field.with_type(storage_type(field.type))


def has_extension(data_type: pa.DataType) -> bool:
    """Whether an extension type is in `data_type`, however deep."""
    return not storage_type(data_type).equals(data_type)


def to_storage(array: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """`array` as its storage type; nothing is copied."""
    if isinstance(array, pa.ChunkedArray):
        chunks = [to_storage(chunk) for chunk in array.chunks]
        return pa.chunked_array(chunks, type=storage_type(array.type))
    return _with_type(array, storage_type(array.type)) if has_extension(array.type) else array


def from_storage(array: pa.Array | pa.ChunkedArray, data_type: pa.DataType) -> pa.Array | pa.ChunkedArray:
    """An array of `storage_type(data_type)` as `data_type`; nothing is copied."""
    if isinstance(array, pa.ChunkedArray):
        return pa.chunked_array([from_storage(chunk, data_type) for chunk in array.chunks], type=data_type)
    return _with_type(array, data_type) if has_extension(data_type) else array


def _with_type(array: pa.Array, data_type: pa.DataType) -> pa.Array:
    """The same buffers under another type of the same layout."""
    if array.type.equals(data_type):
        return array
    if isinstance(array.type, pa.BaseExtensionType):
        return _with_type(array.storage, data_type)
    if isinstance(data_type, pa.BaseExtensionType):
        return pa.ExtensionArray.from_storage(data_type, _with_type(array, data_type.storage_type))
    if pa.types.is_struct(data_type):
        children = [_with_type(array.field(index), field.type) for index, field in enumerate(data_type)]
        # `field` keeps the parent's offset applied, so the validity bitmap has to start at zero as well.
        mask = array.is_null() if array.null_count else None
        return pa.StructArray.from_arrays(children, fields=list(data_type), mask=mask)
    validity, *rest = array.buffers()[: 2 if not pa.types.is_fixed_size_list(data_type) else 1]
    child = _child_of(array)
    if pa.types.is_map(data_type):
        entries = pa.struct([data_type.key_field, data_type.item_field])
        target = entries
    else:
        target = data_type.value_type
    return pa.Array.from_buffers(
        data_type, len(array), [validity, *rest], array.null_count, array.offset, [_with_type(child, target)]
    )


def _child_of(array: pa.Array) -> pa.Array:
    """The whole child of a list or map, offsets not applied."""
    if pa.types.is_map(array.type):
        key, item = array.type.key_field, array.type.item_field
        return pa.StructArray.from_arrays([array.keys, array.items], fields=[key, item])
    return array.values


_NAMES = {
    pa.utf8(): "utf8",
    pa.large_utf8(): "large_utf8",
    pa.float16(): "float16",
    pa.float32(): "float32",
    pa.float64(): "float64",
    pa.date32(): "date32",
    pa.date64(): "date64",
    pa.month_day_nano_interval(): "month_day_nano_interval",
}


def type_string(data_type: pa.DataType) -> str:
    """What arrow-go calls the type: the name that docs, change texts and type schemas use."""
    if isinstance(data_type, CloudQueryType):
        return str(data_type)
    if isinstance(data_type, pa.BaseExtensionType):
        return str(data_type.extension_name)
    if data_type in _NAMES:
        return _NAMES[data_type]
    if pa.types.is_decimal128(data_type):
        return f"decimal({data_type.precision}, {data_type.scale})"
    if pa.types.is_decimal256(data_type):
        return f"decimal256({data_type.precision}, {data_type.scale})"
    if pa.types.is_fixed_size_binary(data_type):
        return f"fixed_size_binary[{data_type.byte_width}]"
    if pa.types.is_map(data_type):
        nullable = "items_nullable" if data_type.item_field.nullable else "items_non_nullable"
        ordered = ", keys_sorted" if data_type.keys_sorted else ""
        return f"map<{type_string(data_type.key_type)}, {type_string(data_type.item_type)}, {nullable}{ordered}>"
    if pa.types.is_struct(data_type):
        fields = (
            f"{field.name}: {type_string(field.type)}{' nullable' if field.nullable else ''}" for field in data_type
        )
        return f"struct<{', '.join(fields)}>"
    if pa.types.is_fixed_size_list(data_type):
        return f"fixed_size_list<{_element(data_type)}>[{data_type.list_size}]"
    if pa.types.is_large_list(data_type):
        return f"large_list<{_element(data_type)}>"
    if pa.types.is_list(data_type):
        return f"list<{_element(data_type)}>"
    return str(data_type)


def _element(data_type: pa.DataType) -> str:
    field = data_type.value_field
    return f"{field.name}: {type_string(field.type)}{', nullable' if field.nullable else ''}"
