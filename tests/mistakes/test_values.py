"""Values that a program makes as it runs: what is none is refused where it is made, by name, with what to give."""

from __future__ import annotations

import copy
import pickle
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from google.protobuf.timestamp_pb2 import Timestamp

import twinlog
from tests.dead_letters.journal import JOURNAL
from twinlog import (
    Abort,
    Attempt,
    Backoff,
    Begin,
    CheckpointAdvance,
    Dispatch,
    Metadata,
    Money,
    Recorded,
    Reply,
    Retry,
    SagaContext,
    Skip,
    Step,
    StreamId,
    UuidMap,
    on,
    timestamp,
)

_NOW, _NAIVE = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 1)
_ID = "0190a000-0000-7000-8000-000000000001"
_EVENT = Timestamp()
_RECORDED = Recorded(
    "orders", 1, StreamId("order", "7"), 1, UUID(int=1), "Timestamp", b"", Metadata(), "7", "", _NOW
)
untyped: Any = twinlog


def recorded_but(**parts: Any) -> object:
    return untyped.Recorded(**{**_RECORDED._asdict(), **parts})


REFUSED: Mapping[str, tuple[Callable[[], object], str]] = {
    "Money of a float": (lambda: untyped.Money(12.34, "EUR"), "nanos is 12.34; give billionths as a whole"),
    "Money of no number": (lambda: untyped.Money(float("nan"), "EUR"), "nanos is nan; give billionths"),
    "Money of a Decimal": (lambda: untyped.Money(Decimal(1), "EUR"), "nanos is a Decimal; give billionths"),
    "Money of a text": (lambda: untyped.Money("12", "EUR"), "nanos is '12'; give billionths"),
    "Money of a truth": (lambda: untyped.Money(True, "EUR"), "nanos is True; give billionths"),
    "Money without a currency": (lambda: untyped.Money(12, None), "currency is None; give the ISO 4217 code"),
    "a stream of a number": (lambda: untyped.StreamId("order", 7), "StreamId: id is 7; give a text"),
    "a stream of a UUID": (
        lambda: untyped.StreamId("order", UUID(int=0)),
        "StreamId: id is an? UUID; give a text",
    ),
    "a stream without an id": (lambda: StreamId("order", ""), "StreamId: id is ''; give a text"),
    "a stream without a type": (lambda: StreamId("", "7"), "StreamId: type is ''; give a text"),
    "a stream of an aggregate": (lambda: untyped.StreamId(JOURNAL, "7"), "type is an Aggregate; give a text"),
    "an actor that is a number": (lambda: untyped.Metadata(actor=5), "Metadata: actor is 5; give a text"),
    "a cause that is none": (lambda: untyped.Metadata("a", None), "Metadata: causation_id is None; give"),
    "extra in a list": (lambda: untyped.Metadata(extra=["x"]), "Metadata: extra is a list; give a mapping"),
    "extra of a number": (lambda: untyped.Metadata(extra={"tenant": 5}), "Metadata: extra has 5; give texts"),
    "a command for a text": (
        lambda: untyped.on("journal", "7"),
        "on: the aggregate is 'journal'; give an Agg",
    ),
    "a command for a class": (
        lambda: untyped.on(Money, "7"),
        "on: the aggregate is the class Money; give an",
    ),
    "an order at no time": (lambda: untyped.Retry("why", None), "Retry: now is None; give a datetime with"),
    "an order without a zone": (
        lambda: Skip("why", _NAIVE),
        "Skip: now is .*; give a datetime with a time zone",
    ),
    "an order without a reason": (lambda: untyped.Abort(None, _NOW), "Abort: reason is None; give a text"),
    "an order for a number": (lambda: untyped.Retry("why", _NOW, 2), "Retry: step is 2; give a text"),
    "a backoff of seconds": (lambda: untyped.Backoff(5), "Backoff: first is 5; give a timedelta"),
    "a step with a deadline in seconds": (
        lambda: untyped.Step("pay", deadline=5),
        "step 'pay': deadline is 5",
    ),
    "a trigger that is none": (lambda: untyped.Begin("go", _NOW), "Begin: event is 'go'; give a message"),
    "a trigger at no time": (lambda: Begin(_EVENT, _NAIVE), "Begin: now is .*; give a datetime with"),
    "an answer that is none": (lambda: untyped.Reply(None, _NOW), "Reply: event is None; give a message"),
    "an answer at a number": (lambda: untyped.Reply(_EVENT, 5), "Reply: now is 5; give a datetime with"),
    "an answer of a text": (
        lambda: untyped.Reply(_EVENT, _NOW, "7"),
        "Reply: event_id is '7'; give the UUID",
    ),
    "a context of a reply": (
        lambda: untyped.SagaContext(None, replies=_EVENT),
        "SagaContext: replies is a message .*; give a mapping",
    ),
    "a context of a truth": (
        lambda: untyped.SagaContext(None, aborted=1),
        "aborted is 1; give True or False",
    ),
    "an attempt without its event": (
        lambda: untyped.Attempt("key", 1, None),
        "Attempt: event is None; give the event as it is recorded",
    ),
    "an attempt of no number": (lambda: untyped.Attempt("key", "1", _RECORDED), "Attempt: number is '1'"),
    "an event at no position": (lambda: recorded_but(position=-1), "Recorded: position is -1; give a whole"),
    "an event of a text": (lambda: recorded_but(stream="order/7"), "Recorded: stream is 'order/7'; give a"),
    "an event with another id": (
        lambda: recorded_but(event_id="7"),
        "Recorded: event_id is '7'; give a UUID",
    ),
    "an event with a message": (lambda: recorded_but(payload=_EVENT), "Recorded: payload is a message"),
    "an event at no time": (lambda: recorded_but(recorded_at=_NAIVE), "Recorded: recorded_at is .*time zone"),
    "a checkpoint of a text": (
        lambda: untyped.CheckpointAdvance("c", "1", 2),
        "CheckpointAdvance: after is '1'",
    ),
    "a checkpoint before all": (lambda: CheckpointAdvance("c", 0, -2), "CheckpointAdvance: upto is -2; give"),
    "a command for a number": (
        lambda: untyped.Dispatch(5, "7", None),
        "Dispatch: the aggregate is 5; give an",
    ),
    "a map of a list": (lambda: untyped.UuidMap([_ID]), "UuidMap: entries is a list; give a mapping"),
    "a map from a UUID": (
        lambda: untyped.UuidMap({UUID(int=0): 1}),
        "UuidMap: a key is a UUID; give the text",
    ),
    "a map to a float": (lambda: untyped.UuidMap({_ID: 1.5}), "UuidMap: a value is 1.5; give a whole number"),
    "a map to a truth": (
        lambda: untyped.UuidMap().insert(_ID, True),
        "UuidMap: a value is True; give a whole",
    ),
    "a UUID into a map": (lambda: untyped.UuidMap().insert(UUID(int=0), 1), "UuidMap: a key is a UUID; give"),
    "a UUID out of a map": (lambda: untyped.UuidMap().remove(UUID(int=0)), "UuidMap: a key is a UUID; give"),
    "a UUID of a map": (
        lambda: untyped.UuidMap().get(UUID(int=0)),
        "UuidMap: a key is a UUID; give the text",
    ),
    "a UUID in a map": (lambda: UUID(int=0) in UuidMap(), "UuidMap: a key is a UUID; give the text"),
    "a timestamp of a text": (lambda: untyped.timestamp("now"), "timestamp: time is 'now'; give a datetime"),
    "a timestamp without a zone": (lambda: timestamp(_NAIVE), "timestamp: time is .*; give a datetime with"),
    "settings of a spec": (lambda: untyped.load("orders"), "load: it is given 'orders'; give the class of"),
}
KERNELS = {
    "Clock, Events, Ids, Log, ViewStore, message_class, unpack, run": "ports, aliases and functions",
    "Personal, Service, Shutdown, Transaction, Writer": "made by the kernel",
    "SagaInstance, SagaStatus": "folded by the kernel",
    "AlreadyExists, ConfigurationError, FailedPrecondition, InvalidArgument, NotFound": "errors",
    "TwinlogError, Unavailable": "errors",
}
"""Public names that no program makes a value of."""
DECLARED = (
    "Address, Aggregate, Effects, Parallel, Policies, PostgresViews, Projection, Saga, Schema, ServiceSpec, \
Settings, Upcast, View, open_service, saga_aggregate"
)
"""What is refused where it is declared: tests/mistakes/test_misuse.py."""


def test_every_public_name_is_known_by_what_it_refuses() -> None:
    made = {name for name in untyped.__all__ if any(f"{name}:" in words for _, words in REFUSED.values())}
    made |= {"Step", "Money"}
    told = {name for names in (*KERNELS, DECLARED) for name in names.split(", ")}
    assert not made & told
    assert {*untyped.__all__} == made | told


def test_what_is_no_value_is_refused_where_it_is_made() -> None:
    wrong = []
    for what, (make, words) in REFUSED.items():
        try:
            make()
            wrong.append(f"{what}: is taken")
        except ValueError as error:
            wrong += [] if re.search(words, str(error)) else [f"{what}: {error}"]
    assert not wrong, "\n".join(wrong)


def test_what_is_a_value_stays_one() -> None:
    """However it is copied; and what derives from a text or a number is one."""

    class Code(str):
        """As an enumeration of texts has them."""

    values = [
        Money(-1, "EUR"),
        Money(0, Code("EUR")),
        StreamId("order", Code("7")),
        Metadata("a", extra={"tenant": "north"}),
        on(JOURNAL, "7"),
        Retry("why", _NOW),
        Skip("why", _NOW, "pay"),
        Abort("", _NOW),
        Backoff(),
        Begin(_EVENT, _NOW),
        Reply(_EVENT, _NOW, UUID(int=1)),
        SagaContext(_EVENT),
        Attempt("key", 1, _RECORDED),
        _RECORDED,
        CheckpointAdvance("c", 0, 2, UUID(int=1)),
        Dispatch(JOURNAL, "7", None),
        UuidMap({_ID: 5}),
    ]
    for value in values:
        assert copy.deepcopy(value) == value
        assert repr(value).startswith(type(value).__name__)
    for value in (StreamId("order", "7"), Metadata("a"), _RECORDED, CheckpointAdvance("c", 0, 2)):
        assert pickle.loads(pickle.dumps(value)) == value
        assert type(value._replace()) is type(value)
    assert Step("pay", done=type(Money(1, "EUR").to_proto())).name == "pay"
