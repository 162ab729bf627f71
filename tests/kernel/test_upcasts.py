"""The table of upcasters: what each line makes of a message, and what is refused where it is declared."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from google.protobuf.descriptor_pb2 import (
    EnumValueDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    MethodDescriptorProto,
    OneofDescriptorProto,
)
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.protobuf.struct_pb2 import ListValue, Struct
from google.protobuf.wrappers_pb2 import BoolValue, BytesValue, Int32Value, Int64Value, StringValue

from shop.customers.v1.events_pb2 import CustomerCreated
from shop.orders.v1.events_pb2 import OrderApproved, OrderCreated, OrderRejected
from shop.orders.v1.saga_mode_pb2 import (
    SAGA_MODE_CHOREOGRAPHY,
    SAGA_MODE_ORCHESTRATION,
    SAGA_MODE_UNSPECIFIED,
)
from tests.dead_letters.journal import JOURNAL, Journal
from tests.kernel.test_schema import STREAM, event, recorded
from tests.mistakes.test_start import service
from twinlog import Aggregate, Projection, Schema, Upcast, View, Writer
from twinlog.consume import Progress
from twinlog.log.ports import CheckpointAdvance, Snapshot
from twinlog.log.snapshots import StateCodec, StateCodecs
from twinlog.model.errors import UpcasterFailed
from twinlog.model.upcasts import WrongUpcast
from twinlog.service.mistakes import Mistake
from twinlog.testing import START, MemoryLog, MemoryViews
from twinlog.testing.internals import Batch, RandomIds, SystemClock


def today(line: Upcast, message: Message) -> list[Message]:
    return [*Schema([line]).decode(recorded(1, message))]


def others(of: type[Message], kept: type[Message]) -> list[str]:
    """The fields of one type that another one does not have."""
    return [name for name in of.DESCRIPTOR.fields_by_name if name not in kept.DESCRIPTOR.fields_by_name]


def test_a_rename_copies_fields_of_one_name_and_those_that_are_named() -> None:
    old = MethodDescriptorProto(name="a", input_type="b", client_streaming=True)
    old.options.deprecated = True
    names = {"input_type": "type_name", "client_streaming": "proto3_optional"}
    line = Upcast.rename(
        MethodDescriptorProto,
        FieldDescriptorProto,
        names,
        without=["output_type", "server_streaming", "options"],
    )
    [new] = today(line, old)
    assert new == FieldDescriptorProto(name="a", type_name="b", proto3_optional=True)
    assert not today(line, MethodDescriptorProto())[0].ByteSize()  # what was not there stays so


def test_a_rename_copies_messages_lists_and_maps() -> None:
    order = OrderCreated(order_id="a", customer_id="c", saga_mode=SAGA_MODE_ORCHESTRATION)
    order.total.units = 7
    line = Upcast.rename(OrderCreated, OrderApproved, without=others(OrderCreated, OrderApproved))
    assert today(line, order) == [
        OrderApproved(order_id="a", customer_id="c", saga_mode=SAGA_MODE_ORCHESTRATION)
    ]
    line = Upcast.rename(
        OrderCreated,
        CustomerCreated,
        {"total": "credit_limit"},
        without=["order_id", "saga_mode", "deadline"],
    )
    assert today(line, order) == [CustomerCreated(customer_id="c", credit_limit=order.total)]
    struct, values = Struct(), ListValue()
    struct.update({"a": 1})
    values.extend(["x", 2])
    for message in (struct, values):
        [reading] = Upcast.rename(type(message), type(message)).readings
        assert reading.upcast(message) == [message]


def test_a_merge_copies_where_nothing_else_is_said() -> None:
    line = Upcast.merge(
        {StringValue: None, BytesValue: lambda old: StringValue(value=old.value.decode())}, StringValue
    )
    assert line
    line = Upcast.merge({OrderApproved: None, OrderRejected: lambda old: OrderCreated()}, OrderCreated)
    assert today(line, OrderApproved(order_id="a")) == [OrderCreated(order_id="a")]
    assert today(line, OrderRejected(order_id="a")) == [OrderCreated()]


def test_a_default_fills_what_is_missing_and_nothing_else() -> None:
    line = Upcast.default(EnumValueDescriptorProto, number=7, name=lambda each: f"n{each.number}")
    assert today(line, EnumValueDescriptorProto()) == [EnumValueDescriptorProto(number=7, name="n7")]
    there = EnumValueDescriptorProto(number=0, name="")
    assert today(line, there) == [there]
    line = Upcast.default(OrderCreated, saga_mode=SAGA_MODE_ORCHESTRATION)
    assert today(line, OrderCreated()) == [OrderCreated(saga_mode=SAGA_MODE_ORCHESTRATION)]
    line = Upcast.default(OrderCreated, total=OrderCreated(total={"units": 1}).total)
    assert today(line, OrderCreated()) == [OrderCreated(total={"units": 1})]


def test_what_was_renamed_is_completed_too() -> None:
    schema = Schema(
        [
            Upcast.rename(OneofDescriptorProto, EnumValueDescriptorProto, without=["options"]),
            Upcast.default(EnumValueDescriptorProto, number=7),
        ]
    )
    assert schema.decode(recorded(1, OneofDescriptorProto(name="a"))) == [
        EnumValueDescriptorProto(name="a", number=7)
    ]


REFUSED: Mapping[str, tuple[Callable[[], Any], str]] = {
    "a field that the old type does not have": (
        lambda: Upcast.rename(Int32Value, Int64Value, {"amount": "value"}),
        r"rename\(google\.protobuf\.Int32Value, .*Int32Value has no field 'amount'; it has value",
    ),
    "a field that the new type does not have": (
        lambda: Upcast.rename(Int32Value, Int64Value, {"value": "cents"}),
        "Int64Value has no field 'cents'; it has value",
    ),
    "a field that is left over": (
        lambda: Upcast.rename(OrderRejected, OrderApproved),
        r"no field 'reason' as .*OrderRejected has; name its new one, or leave it out with without=\['reason'\]",
    ),
    "a field of another type": (
        lambda: Upcast.rename(Int32Value, Int64Value),
        "value is int32 in .*Int32Value, and value is int64 in .*Int64Value; say with by=",
    ),
    "two fields that become one": (
        lambda: Upcast.rename(
            OrderApproved, OrderCreated, {"order_id": "order_id", "customer_id": "order_id"}
        ),
        "two fields become order_id; say with by=",
    ),
    "names of fields beside by=": (
        lambda: Upcast.rename(Int32Value, Int64Value, {"value": "value"}, by=lambda _old: Int64Value()),
        "by= makes the whole message; leave the names of fields out",
    ),
    "a split into nothing": (
        lambda: Upcast.split(Int32Value, [], lambda _old: []),
        r"there is no type to split it into; use Upcast\.drop",
    ),
    "a merge of one": (
        lambda: Upcast.merge({Int32Value: None}, Int64Value),
        r"it merges fewer than two types; use Upcast\.rename",
    ),
    "a default of nothing": (lambda: Upcast.default(Int32Value), "it names no field; give a value"),
    "a default of a field that does not exist": (
        lambda: Upcast.default(OrderCreated, currency="EUR"),
        "OrderCreated has no field 'currency'; it has order_id, customer_id",
    ),
    "a default of a field that is always there": (
        lambda: Upcast.default(Int32Value, value=7),
        "whether an event has value cannot be told from its value; declare it optional",
    ),
    "a default of another type": (
        lambda: Upcast.default(EnumValueDescriptorProto, number="seven"),
        "number is int32, not 'seven'",
    ),
    "what is no type": (
        lambda: Upcast.drop(Int32Value()),  # type: ignore[arg-type]
        "is no message type; give the generated class",
    ),
    "what is no message": (
        lambda: Upcast.rename(str, Int64Value),  # type: ignore[type-var]
        r"<class 'str'> is no message type",
    ),
    "a type that no proto has": (
        lambda: Upcast.drop(_forgotten()),
        r"nowhere\.v1\.Lost is in no proto that is imported, so that it could not be read",
    ),
    "two for one type": (
        lambda: Schema([Upcast.drop(Int32Value), Upcast.split(Int32Value, [Int64Value], lambda _old: [])]),
        r"Int32Value has Upcast\.drop\(.*Int32Value\) already, and could be read in two ways; make one of the two",
    ),
    "a default and another for one type": (
        lambda: Schema([Upcast.default(OrderCreated, saga_mode=1), Upcast.drop(OrderCreated)]),
        "OrderCreated has Upcast.default.* already",
    ),
}


def _forgotten() -> type[Message]:
    """A type of a pool of its own."""
    file = FileDescriptorProto(name="nowhere.proto", package="nowhere.v1")
    file.message_type.add(name="Lost")
    pool = DescriptorPool()
    pool.Add(file)
    return GetMessageClass(pool.FindMessageTypeByName("nowhere.v1.Lost"))


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_wrong_is_refused_in_one_line(what: str) -> None:
    declare, said = REFUSED[what]
    with pytest.raises(WrongUpcast, match=said) as refused:
        declare()
    assert "\n" not in str(refused.value)


def test_an_upcaster_returns_what_the_table_says() -> None:
    line = Upcast.split(Int32Value, [Int64Value], lambda _old: [StringValue(value="a")])
    with pytest.raises(
        UpcasterFailed, match=r"returns google\.protobuf\.StringValue, which the table does not"
    ):
        today(line, Int32Value(value=1))


def test_an_upcaster_may_yield_what_it_makes() -> None:
    def halves(old: StringValue) -> Iterator[Message]:
        for word in old.value.split():
            yield Int64Value(value=int(word))

    wanted = [Int64Value(value=3), Int64Value(value=4)]
    lines: Any = [Upcast.split(StringValue, [Int64Value], halves)], {StringValue: (halves, [Int64Value])}
    for table in lines:
        assert [*Schema(table).decode(recorded(1, StringValue(value="3 4")))] == wanted


RULES = """
RATE, RATES, WORDS = {n}, {{"eur": {n}}}, (1, [{n}])
def helper(old): return old.value * {n}
def deeper(old): return helper(old)
class Rated:
    def __init__(self, rate): self.rate = rate
    def __call__(self, old): return Int64Value(value=self.rate)
    def by(self, old): return Int64Value(value=self.rate)
def closed(rate): return lambda old: Int64Value(value=old.value * rate)
def again(old): return again(old) if RATE else Int64Value()
"""
"""A module of a domain, in which one number may be another."""
WAYS = {
    "its own code": "lambda old: Int64Value(value={n})",
    "a set": "lambda old: Int64Value(value=old.value in {{5, {n}}})",
    "a default": "lambda old, rate={n}: Int64Value(value=rate)",
    "a default by name": "lambda old, *, rate={n}: Int64Value(value=rate)",
    "a closure": "closed({n})",
    "a partial": "partial(lambda rate, old: Int64Value(value=rate), {n})",
    "a constant": "lambda old: Int64Value(value=RATE)",
    "a table": "lambda old: Int64Value(value=RATES.get('eur', 0))",
    "a list in a tuple": "lambda old: Int64Value(value=WORDS[1][0])",
    "a function that it calls": "lambda old: Int64Value(value=helper(old))",
    "one that this one calls": "lambda old: Int64Value(value=deeper(old))",
    "a name in a comprehension": "lambda old: Int64Value(value=sum([RATE for _ in '1']))",
    "an object": "Rated({n})",
    "a method": "Rated({n}).by",
    "a function that calls itself": "again",
}
"""How what an upcaster makes may hang on that number."""


def test_whatever_an_upcaster_says_is_in_the_fingerprint_of_its_table() -> None:
    def fingerprint(by: str, number: int) -> str:
        domain: dict[str, Any] = {"Int64Value": Int64Value, "partial": partial, "__name__": "domain"}
        exec(RULES.format(n=number), domain)
        return Schema(
            [Upcast.rename(Int32Value, Int64Value, by=eval(by.format(n=number), domain))]
        ).fingerprint

    same = [name for name, by in WAYS.items() if fingerprint(by, 1) == fingerprint(by, 2)]
    assert not same, "states of before would be taken for those of today"
    other = [name for name, by in WAYS.items() if fingerprint(by, 1) != fingerprint(by, 1)]
    assert not other, "states would be made anew at each start"


def test_the_code_of_a_library_is_not_in_the_fingerprint_of_a_table() -> None:
    def fingerprint(release: int) -> str:
        library: dict[str, Any] = {"__name__": "library"}
        exec(f"def rounded(value): return value // {release}", library)
        domain = {"Int64Value": Int64Value, "rounded": library["rounded"], "__name__": "domain"}
        by = eval("lambda old: Int64Value(value=rounded(old.value))", domain)
        return Schema([Upcast.rename(Int32Value, Int64Value, by=by)]).fingerprint

    assert fingerprint(1) == fingerprint(2), "each release of it would have snapshots made anew"


def test_types_of_one_short_name_are_all_sent() -> None:
    schema = Schema(
        [
            Upcast.split(StringValue, [Int64Value], lambda _old: []),
            Upcast.split(BytesValue, [Int64Value], lambda _old: []),
        ]
    )
    assert {*schema.stored_types(["Int64Value"])} == {"Int64Value", "StringValue", "BytesValue"}
    assert schema.stored_under(["google.protobuf.Int64Value"]) == {
        *("google.protobuf.Int64Value", "google.protobuf.StringValue", "google.protobuf.BytesValue")
    }


def test_a_routing_key_is_asked_for_where_all_events_are_stored_under_it() -> None:
    key, wanted = "SAGA_MODE_ORCHESTRATION", [OrderCreated]
    assert Schema().stored_routing_key(wanted, key) == key
    assert Schema([Upcast.drop(BoolValue)]).stored_routing_key(wanted, key) == key
    assert Schema([Upcast.drop(BoolValue)]).stored_routing_key([], key) == ""
    renamed = Schema([Upcast.rename(BoolValue, OrderCreated, by=lambda _old: OrderCreated())])
    completed = Schema([Upcast.default(OrderCreated, saga_mode=SAGA_MODE_ORCHESTRATION)])
    assert renamed.stored_routing_key(wanted, key) == completed.stored_routing_key(wanted, key) == ""


async def test_a_view_of_a_routing_key_shows_old_events_that_had_none() -> None:
    line = Upcast.default(OrderCreated, saga_mode=SAGA_MODE_ORCHESTRATION)
    view = View(
        "orders",
        lambda _event, order: str(order.order_id),
        lambda _row, _event, _order: (),
        events=[OrderCreated],
    )
    store = MemoryViews()
    shown = Projection(
        "tests.orders",
        [view],
        store,
        schema=Schema([line]),
        routing_key="SAGA_MODE_ORCHESTRATION",
    )
    events = [
        recorded(1, OrderCreated(order_id="a", saga_mode=SAGA_MODE_UNSPECIFIED)),
        recorded(2, OrderCreated(order_id="b", saga_mode=SAGA_MODE_CHOREOGRAPHY)),
    ]
    advance = CheckpointAdvance("tests.orders", 0, 2)
    await shown.apply(events, Progress("tests.orders", advance, SystemClock(), RandomIds()))
    assert shown.routing_key == ""
    assert store.tables["orders"].keys() == {"a"}


async def test_what_an_old_event_of_today_means_is_folded_where_it_is_decided() -> None:
    """A program that still writes what older replicas read has the states of one that does not."""
    table = Schema(
        [Upcast.split(StringValue, [Int64Value], lambda old: [Int64Value(value=int(old.value))] * 2)]
    )
    writes_old: Aggregate[Any, Any] = replace(
        JOURNAL, decide=lambda _state, number: [StringValue(value=str(number))], events=(Int64Value,)
    )
    log = MemoryLog("journals")
    async with Writer(log, schema=table, clock=SystemClock(), ids=RandomIds()) as writer:
        decided = await writer.execute(lambda tx: tx.do(writes_old, "a", 4))
        assert decided.result.values == (4, 4)
    async with Writer(log, schema=table, clock=SystemClock(), ids=RandomIds()) as cold:
        read = await cold.execute(lambda tx: tx.state(JOURNAL, "a"), preload=[(JOURNAL, "a")])
    assert read.result == decided.result
    assert [(each.type, each.version) for each in log.events] == [(StringValue.DESCRIPTOR.full_name, 1)]


async def test_what_is_missing_is_written_as_it_was_decided() -> None:
    table = Schema([Upcast.default(EnumValueDescriptorProto, number=7)])
    counting: Aggregate[Any, Any] = Aggregate(
        "count",
        0,
        lambda _state, _command: [EnumValueDescriptorProto()],
        lambda state, message: state + message.number,  # type: ignore[attr-defined]
        lambda _state: "a",
    )
    log = MemoryLog("counts")
    async with Writer(log, schema=table, clock=SystemClock(), ids=RandomIds()) as writer:
        decided = await writer.execute(lambda tx: tx.do(counting, "a", None))
    assert decided.result == 7
    assert [each.payload for each in log.events] == [b""]


async def test_a_snapshot_of_another_table_is_made_anew() -> None:
    """What an old event means is part of what a state rests on."""

    def table(factor: int) -> Schema:
        return Schema(
            [Upcast.rename(Int32Value, Int64Value, by=lambda old: Int64Value(value=factor * old.value))]
        )

    assert StateCodecs(Schema()).schema(JOURNAL) == StateCodecs().schema(JOURNAL)
    first, again, other = table(1), table(1), Schema([Upcast.drop(Int32Value)])
    assert StateCodecs(first).schema(JOURNAL) == StateCodecs(again).schema(JOURNAL)
    assert len({StateCodecs(each).schema(JOURNAL) for each in (Schema(), first, other)}) == 3
    log, codec = MemoryLog("journals"), StateCodec(JOURNAL)
    await log.append(
        Batch(START, {STREAM: 0}, [event(1, Int32Value(value=1)), event(2, Int64Value(value=2))])
    )
    kept = Snapshot(STREAM, 1, 1, StateCodecs(first).schema(JOURNAL), codec.encode(Journal((9,))))
    for schema, values in ((first, (9, 2)), (other, (2,))):
        log.snapshots[STREAM] = kept
        async with Writer(log, schema=schema, clock=SystemClock(), ids=RandomIds()) as writer:
            read = await writer.execute(lambda tx: tx.state(JOURNAL, "a"), preload=[(JOURNAL, "a")])
        assert read.result == Journal(values)


async def test_a_target_that_nothing_reads_is_refused_when_it_serves() -> None:
    schema = Schema([Upcast.rename(BoolValue, StringValue, by=lambda _old: StringValue())])
    said = r"BoolValue is upcast to google\.protobuf\.StringValue, which nothing here reads.*`events`.*Upcast\.drop"
    async with service(replace(JOURNAL, events=[Int64Value]), schema=schema) as running:
        with pytest.raises(Mistake, match=said):
            await running.serve()
