"""The bytes of the protocol: golden ones, those of the vendor's packages, and every type there and back."""

from __future__ import annotations

import base64
import contextlib
import datetime

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from catchment.errors import ProtocolError
from catchment.messages import (
    Cursor,
    DeleteRecord,
    DeleteStale,
    Insert,
    MigrateTable,
    Predicate,
    PredicateGroup,
    TableError,
    TableRelation,
)
from catchment.schema import types
from catchment.schema.intervals import carried, day_time_interval, month_interval, shown
from catchment.schema.table import Column, Table
from catchment.testing import data
from catchment.wire import codec
from catchment.wire._pb import plugin_pb2 as pb
from tests.strategies import kinds, slices
from tests.wire.golden import RECORD_TAIL, SCHEMA

PLAIN = Table("plain", (Column("a", pa.utf8()),))


def there_and_back(table, batch):
    return codec.RecordReader().from_bytes(codec.RecordWriter().to_bytes(table, batch))


def test_schema_that_go_wrote_is_read():
    assert codec.table_from_bytes(SCHEMA) == PLAIN


def test_schema_we_write_says_what_go_says():
    ours, theirs = (pa.ipc.open_stream(made).schema for made in (codec.table_to_bytes(PLAIN), SCHEMA))

    assert ours.equals(theirs, check_metadata=True)
    assert codec.table_to_bytes(PLAIN)[-8:] == SCHEMA[-8:]


def test_record_that_go_wrote_is_read():
    table, batches = codec.RecordReader().from_bytes(SCHEMA[:-8] + RECORD_TAIL)

    assert table == PLAIN
    assert [batch.to_pydict() for batch in batches] == [{"a": ["x"]}]


def test_record_is_one_schema_one_batch_and_an_end():
    made = codec.RecordWriter().to_bytes(PLAIN, data.batch(PLAIN, ("x",), ("y",)))

    reader = pa.ipc.open_stream(made)
    assert [batch.num_rows for batch in reader] == [2]
    assert made.endswith(b"\xff\xff\xff\xff\0\0\0\0")


def test_every_column_of_the_test_table_comes_back():
    table = data.all_types("wide", keys=["id"])
    batch = data.rows(table, 7)

    came, (back,) = there_and_back(table, batch)

    assert came == table
    assert back.columns == batch.columns
    assert back.schema.equals(table.arrow_schema, check_metadata=True)


def test_intervals_travel_as_arrows_own_types():
    table = data.all_types("wide")
    travelled = pa.ipc.open_stream(codec.table_to_bytes(table)).schema

    assert str(travelled.field("interval_month").type) == "month_interval"
    assert str(travelled.field("interval_day_time").type) == "day_time_interval"
    assert not [
        field for field in travelled if b"catchment" in (field.metadata or {}).get(b"ARROW:extension:name", b"")
    ]
    assert shown(carried(table.to_schema())).equals(table.to_schema(), check_metadata=True)


def test_intervals_nested_in_anything_come_back():
    leaf = pa.struct([("m", month_interval()), ("d", pa.list_(day_time_interval(), 2))])
    table = data.named("deep", ("a", pa.map_(pa.utf8(), pa.large_list(leaf))))
    rows = [[("k", [{"m": 1, "d": [2, 3]}, None])], None]
    batch = pa.RecordBatch.from_arrays([data.array(rows, table.columns[0].type)], names=["a"])

    _, (back,) = there_and_back(table, batch)

    assert back.schema.types == batch.schema.types
    assert types.to_storage(back.column(0)).to_pylist() == rows


@given(pair=slices(kinds()))
def test_any_slice_of_any_type_comes_back(pair):
    array, values = pair
    table = Table("t", (Column("a", array.type),))

    _, (back,) = there_and_back(table, pa.RecordBatch.from_arrays([array], names=["a"]))

    assert back.column(0).type == array.type
    assert back.column(0).equals(array) or array.type != array.type or has_nan(values)


def has_nan(value):
    if isinstance(value, float):
        return value != value
    if isinstance(value, dict):
        return any(has_nan(item) for item in value.values())
    return isinstance(value, (list, tuple)) and any(has_nan(item) for item in value)


def test_several_batches_in_one_record_are_all_read():
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, PLAIN.to_schema()) as writer:
        for text in "xyz":
            writer.write_batch(pa.RecordBatch.from_arrays([pa.array([text])], schema=PLAIN.to_schema()))

    _, batches = codec.RecordReader().from_bytes(sink.getvalue().to_pybytes())

    assert [batch.column(0)[0].as_py() for batch in batches] == ["x", "y", "z"]


def test_compressed_and_dictionary_records_are_read():
    for options, kind in (
        (pa.ipc.IpcWriteOptions(compression="zstd"), pa.utf8()),
        (pa.ipc.IpcWriteOptions(), pa.dictionary(pa.int32(), pa.utf8())),
    ):
        schema = data.named("plain", ("a", kind)).to_schema()
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, schema, options=options) as writer:
            writer.write_batch(pa.RecordBatch.from_arrays([pa.array(["x" * 500] * 9).cast(kind)], schema=schema))

        _, batches = codec.RecordReader().from_bytes(sink.getvalue().to_pybytes())

        assert sum(batch.num_rows for batch in batches) == 9


def test_schema_without_a_table_name_is_refused():
    with pytest.raises(ProtocolError, match="missing table name"):
        codec.table_from_bytes(codec.schema_to_bytes(pa.schema([("a", pa.utf8())])))


def test_broken_values_inside_a_record_are_refused():
    made = bytearray(codec.RecordWriter().to_bytes(PLAIN, data.batch(PLAIN, ("x",))))
    place = made.rindex(b"\0\0\0\0\1\0\0\0")
    made[place + 4] = 100

    with pytest.raises(ProtocolError, match="table `plain`"):
        codec.RecordReader().from_bytes(bytes(made))


def test_large_batch_is_cut_and_no_row_is_lost():
    table = data.named("wide", ("id", pa.int64()), ("text", pa.utf8()))
    batch = pa.RecordBatch.from_arrays([pa.array(range(1000)), pa.array(["x" * 1000] * 1000)], names=["id", "text"])

    cut = list(codec.pieces(batch, 100_000))

    assert [value for piece in cut for value in piece.column(0).to_pylist()] == list(range(1000))
    assert max(len(codec.RecordWriter().to_bytes(table, piece)) for piece in cut) < 250_000


def test_uneven_rows_are_cut_by_their_own_size():
    batch = pa.RecordBatch.from_arrays([pa.array(["x"] * 900 + ["y" * 100_000] * 100)], names=["text"])

    cut = list(codec.pieces(batch, 1 << 20))

    assert sum(piece.num_rows for piece in cut) == 1000
    assert max(piece.nbytes for piece in cut) <= 2 << 20


def test_row_above_the_limit_is_an_error_that_names_the_table():
    table = data.named("huge", ("blob", pa.large_binary()))
    batch = pa.RecordBatch.from_arrays([pa.array([b"\0" * (200 << 20)], pa.large_binary())], names=["blob"])

    with pytest.raises(ProtocolError, match=r"table `huge`.*209,715,200"):
        codec.RecordWriter().to_bytes(table, batch)


WHERE = DeleteRecord(
    "parents",
    (
        PredicateGroup((Predicate("id", pa.array([7])), Predicate("kind", pa.array(["a"]))), "or"),
        PredicateGroup((Predicate("uid", data.array([bytes(16)], types.uuid())),), "and"),
    ),
    (TableRelation("children", "parents"),),
)


@pytest.mark.parametrize(
    "message",
    [MigrateTable(data.all_types("wide")), Insert(PLAIN, data.batch(PLAIN, ("x",))), TableError("t", "text"), WHERE],
    ids=lambda message: type(message).__name__,
)
def test_what_a_source_says_comes_back(message):
    (travelled,) = codec.sync_response(message, codec.RecordWriter())
    sent = pb.Sync.Response.FromString(travelled.SerializeToString())

    assert list(codec.sync_message(sent, codec.RecordReader())) == [message]


@pytest.mark.parametrize(
    "message",
    [
        MigrateTable(data.all_types("wide"), force=True),
        Insert(PLAIN, data.batch(PLAIN, ("x",))),
        DeleteStale(Table("t", ()), "me", datetime.datetime(2024, 1, 2, 3, 4, 5, 678_901, tzinfo=datetime.UTC)),
        WHERE,
    ],
    ids=lambda message: type(message).__name__,
)
def test_what_a_destination_is_told_comes_back(message):
    (travelled,) = codec.write_request(message, codec.RecordWriter())
    sent = pb.Write.Request.FromString(travelled.SerializeToString())

    assert list(codec.write_message(sent, codec.RecordReader())) == [message]


def test_what_has_no_word_in_the_protocol_is_left_out():
    assert list(codec.sync_response(Cursor("t", "k", "v"), codec.RecordWriter())) == []


def test_empty_request_says_nothing_and_an_empty_response_is_refused():
    assert list(codec.write_message(pb.Write.Request(), codec.RecordReader())) == []
    with pytest.raises(ProtocolError, match="unknown kind"):
        list(codec.sync_message(pb.Sync.Response(), codec.RecordReader()))


def test_sync_time_that_is_no_time_is_refused():
    stale = pb.Write.MessageDeleteStale(table_name="t")
    stale.sync_time.seconds = 1 << 60

    with pytest.raises(ProtocolError, match="no time"):
        list(codec.write_message(pb.Write.Request(delete=stale), codec.RecordReader()))


def test_types_that_were_asked_for_are_given_where_they_are_the_same_thing():
    assert codec.given_back(pa.uint64(), pa.int64()) == pa.uint64()
    assert codec.given_back(pa.timestamp("ns", "UTC"), pa.timestamp("us", "UTC")) == pa.timestamp("ns", "UTC")
    assert codec.given_back(pa.list_(pa.int64()), pa.utf8()) == pa.utf8()
    assert codec.given_back(pa.duration("s"), pa.utf8()) == pa.utf8()


SAMPLES = [
    next(codec.sync_response(Insert(table, data.rows(table, 3)), codec.RecordWriter())).insert.record
    for table in (data.all_types("wide"), data.named("two", ("id", pa.int64()), ("name", pa.utf8())))
] + [SCHEMA[:-8] + RECORD_TAIL]


@given(sample=st.sampled_from(SAMPLES), changes=st.lists(st.tuples(st.integers(0), st.integers(0, 255)), max_size=8),
       end=st.integers(0))  # fmt: skip
def test_changed_and_cut_records_are_read_or_refused(sample, changes, end):
    broken = bytearray(sample)
    for place, value in changes:
        broken[place % len(broken)] = value
    cut = bytes(broken[: end % (len(broken) + 1)]) if end % 3 else bytes(broken)

    for read in (codec.RecordReader().from_bytes, codec.table_from_bytes, predicate):
        with contextlib.suppress(ProtocolError):
            read(cut)


def predicate(record):
    where = [pb.PredicatesGroup(predicates=[pb.Predicate(column="a", record=record)])]
    request = pb.Write.Request(delete_record=pb.Write.MessageDeleteRecord(table_name="t", where_clause=where))
    return list(codec.write_message(request, codec.RecordReader()))


@given(noise=st.binary(max_size=200))
def test_noise_is_refused(noise):
    with pytest.raises(ProtocolError):
        codec.RecordReader().from_bytes(noise)


def test_reader_forgets_nothing_of_good_records_after_a_broken_one():
    reader, good = codec.RecordReader(), SCHEMA[:-8] + RECORD_TAIL
    reader.from_bytes(good)

    with pytest.raises(ProtocolError):
        reader.from_bytes(good[:-40])

    assert reader.from_bytes(good)[1][0].num_rows == 1


def test_vendors_messages_are_ours():
    """The vendor's package reads what we write and we read what it writes, field by field."""
    from cloudquery.plugin_v3 import plugin_pb2 as vendor

    record = codec.RecordWriter().to_bytes(PLAIN, data.batch(PLAIN, ("x",)))
    for ours, theirs in (
        (pb.Sync.Response(insert=pb.Sync.MessageInsert(record=record)), vendor.Sync.Response),
        (pb.Init.Request(spec=b"{}", no_connection=True, invocation_id="i"), vendor.Init.Request),
        (pb.GetTables.Request(tables=["a"], skip_tables=["b"], skip_dependent_tables=True), vendor.GetTables.Request),
        (next(codec.write_request(WHERE, codec.RecordWriter())), vendor.Write.Request),
        (pb.TestConnection.Response(failure_code="X", failure_description="y"), vendor.TestConnection.Response),
    ):
        sent = ours.SerializeToString()
        read = theirs.FromString(sent)
        assert type(ours).FromString(read.SerializeToString()) == ours
        assert str(read) == str(ours)


def fields(descriptor, prefix=""):
    found = {f"{prefix}{field.name}": (field.number, field.type) for field in descriptor.fields}
    for nested in descriptor.nested_types:
        found |= fields(nested, f"{prefix}{nested.name}.")
    return found


def test_every_number_is_the_vendors():
    from cloudquery.plugin_v3 import plugin_pb2 as vendor

    ours, theirs = (
        {name: fields(found) for name, found in made.DESCRIPTOR.message_types_by_name.items()} for made in (pb, vendor)
    )
    own = {"GetVersions", "GetVersionNames"}

    assert set(ours) - set(theirs) == own
    for name in set(ours) - own:
        # What the vendor added later, and asks for before it is used, is not there.
        assert ours[name].items() <= theirs[name].items()


def test_golden_base64_is_whole():
    assert (len(SCHEMA), len(SCHEMA) - 8 + len(RECORD_TAIL)) == (776, 952)
    assert base64.b64encode(SCHEMA[:6]) == b"//////gC"
