"""Small wrong services: each is refused at start, and the message names what is wrong and the way out."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, NamedTuple

import pytest
from google.protobuf.message import Message
from google.protobuf.wrappers_pb2 import BoolValue, Int64Value, StringValue

from shop.orders.v1.events_pb2 import OrderCreated
from stack.topology import ROOT
from tests.dead_letters.journal import JOURNAL, event
from tests.waiting import until
from twinlog import (
    Address,
    Aggregate,
    ConfigurationError,
    Effects,
    Policies,
    PostgresViews,
    Projection,
    Saga,
    Schema,
    Service,
    ServiceSpec,
    Settings,
    Step,
    View,
    on,
    open_service,
    saga_aggregate,
)
from twinlog.consume import Consumer
from twinlog.log.lease import AlwaysHeld
from twinlog.log.system import RandomIds
from twinlog.log.transaction import Transaction
from twinlog.model.schema import UpcasterCycle
from twinlog.rpc import ReadModel
from twinlog.service.environment import Environment
from twinlog.service.mistakes import OWN_TABLES, Mistake
from twinlog.service.spec_mistakes import in_spec, in_specs
from twinlog.testing import START, Hosted, ManualClock, MemoryLog, MemoryTwin, MemoryViews, World
from twinlog.testing.internals import Timer


class RoomSettings(Settings):
    """The settings of the services here."""

    rooms_address: Address = "127.0.0.1:0"
    """Where it serves."""


SPEC = ServiceSpec("room_svc", "rooms", "hotel_rooms", "hotel", RoomSettings, "rooms_address", [JOURNAL])


@dataclass
class Unfrozen:
    """A state that can be changed in place."""

    values: Sequence[int] = ()


async def later(*_arguments: Any) -> Any:
    """What ought to be a plain function."""


unready: Any = later


def changed(**parts: Any) -> Aggregate[Any, Any]:
    return replace(JOURNAL, **parts)


UPCASTING = Schema({Int64Value: (lambda old: [StringValue(value=f"{old.value}:1")], [StringValue])})

SPECS: Mapping[str, tuple[ServiceSpec, str]] = {
    "an aggregate's name is used twice": (
        replace(SPEC, aggregates=[JOURNAL, changed(initial=())]),
        "2 aggregates are called 'journal'.*declare each once, under a name of its own",
    ),
    "an aggregate is called as Twinlog's own": (
        replace(SPEC, aggregates=[changed(name="dead_letters")]),
        "aggregate 'dead_letters' has the name of Twinlog's own dead letters; rename it",
    ),
    "an aggregate's name has a slash": (
        replace(SPEC, aggregates=[changed(name="a/b")]),
        "aggregate 'a/b'.*rename it",
    ),
    "all streams share a list": (
        replace(SPEC, aggregates=[changed(initial=[])]),
        "aggregate 'journal': its initial state is a mutable list.*frozen dataclass",
    ),
    "all streams share an object": (
        replace(SPEC, aggregates=[changed(initial=Unfrozen())]),
        "aggregate 'journal': its initial state is a mutable Unfrozen.*frozen dataclass",
    ),
    "a timer that nothing answers": (
        replace(SPEC, aggregates=[changed(due=lambda _: None)]),
        "aggregate 'journal' has `due` and no `on_due`.*give it both",
    ),
    "decide is async": (
        replace(SPEC, aggregates=[changed(decide=later)]),
        "aggregate 'journal': decide is async.*plain function",
    ),
    "two aggregates have one event": (
        replace(
            SPEC, aggregates=[changed(events=[StringValue]), changed(name="diary", events=[StringValue])]
        ),
        r"StringValue is an event of aggregates 'journal' and 'diary'.*give each an event of its own",
    ),
    "an event that is written as it was once": (
        replace(SPEC, aggregates=[changed(events=[Int64Value])], schema=UPCASTING),
        r"aggregate 'journal' is about google\.protobuf\.Int64Value, which is upcast.*its upcaster returns",
    ),
    "decide without the command": (
        replace(SPEC, aggregates=[changed(decide=lambda _state: [])]),
        "'journal': decide cannot be called with 2 arguments; let it take the state, a command or event",
    ),
    "one package instead of several": (
        replace(SPEC, migrations="hotel.sql"),  # type: ignore[arg-type]
        r"migrations is one str and not several; is a comma missing, as in migrations=\(…,\)",
    ),
    "one aggregate instead of several": (
        replace(SPEC, aggregates=JOURNAL),  # type: ignore[arg-type]
        r"aggregates is one Aggregate and not several; is a comma missing",
    ),
    "a log whose tokens nobody could read": (
        replace(SPEC, log="hotel-rooms"),
        "log 'hotel-rooms': the name of a log is of a-z, 0-9 and _ .*rename it",
    ),
    "aggregates without a log": (replace(SPEC, log=""), "log '': the name of a log is of a-z, 0-9 and _"),
    "a database without a name": (replace(SPEC, database=""), "database '': use letters"),
    "migrations of no package": (
        replace(SPEC, migrations=("hotel.nowhere",)),
        "migrations 'hotel.nowhere': there is no such package; correct its name or install it",
    ),
}


@pytest.mark.parametrize("mistake", SPECS)
async def test_a_wrong_declaration_is_refused_before_anything_is_opened(mistake: str) -> None:
    spec, said = SPECS[mistake]
    nowhere = RoomSettings(postgres_url="postgresql://127.0.0.1:1", nats_url="nats://127.0.0.1:1")
    with pytest.raises(ConfigurationError, match=f"room_svc: .*{said}"):
        async with open_service(spec, nowhere, None):  # type: ignore[arg-type]
            raise AssertionError("it began")


def test_services_of_one_system_have_a_name_a_log_and_a_database_each() -> None:
    other = replace(SPEC, name="stay_svc", log="stays", database="hotel_stays")
    assert list(in_specs({"room_svc": SPEC, "stay_svc": other})) == []
    for field, said in (
        ("name", "share their leases"),
        ("log", "two logs into one"),
        ("database", "one log under two"),
    ):
        shared = replace(other, **{field: getattr(SPEC, field)})
        [found] = in_specs({"room_svc": SPEC, "stay_svc": shared})
        assert found.startswith(f"room_svc and stay_svc have both {field} ")
        assert said in found


def test_a_sound_declaration_is_none() -> None:
    assert list(in_spec(SPEC)) == []


def test_a_service_of_queries_has_no_log_but_for_its_dead_letters() -> None:
    spec = replace(SPEC, log="", aggregates=())
    assert spec.log == "room_svc"
    assert list(in_spec(spec)) == []


def test_a_cycle_of_upcasters_is_refused_where_it_is_made() -> None:
    with pytest.raises(
        UpcasterCycle, match=r"StringValue leads back to google\.protobuf\.StringValue; let one"
    ):
        Schema({StringValue: (lambda _: [], [Int64Value]), Int64Value: (lambda _: [], [StringValue])})


def test_two_mistakes_are_said_together() -> None:
    both = replace(SPEC, log="9", aggregates=[changed(decide=later)])
    assert len(list(in_spec(both))) == 2


# --- what is subscribed ---


def policies(**parts: Any) -> Policies:
    rules = {StringValue: lambda e: on(JOURNAL, e.value).do(None)}
    return Policies(**{"log": "source", "actor": "room_svc", "rules": rules, **parts})


class Row(NamedTuple):
    """A row of a view."""

    key: str


def effects(**parts: Any) -> Effects:
    return Effects(
        **{"log": "source", "actor": "room_svc", "name": "mail", "rules": {StringValue: later}, **parts}
    )


def at_once(*_arguments: Any) -> None:
    """What ought to be async."""


async def at_once_of_one(_event: Any) -> None:
    """What ought to take its attempt, too."""


def of_event(event: Any) -> str:
    """A key, as a stranger may write it."""
    return str(event.value)


without_record: Any = of_event


def view(name: str = "rooms", **parts: Any) -> View[Row]:
    said = {"evolve": lambda _row, e, _: Row(e.stream.id), "events": [Message], **parts}
    return View(name, lambda e, _: e.stream.id, **said)


STORE = MemoryViews()


class NoSharing(MemoryViews):
    """A store of an older kind."""

    update = None  # type: ignore[assignment]


def projection(name: str = "room_svc.source", *views: View[Row], store: Any = STORE) -> Projection:
    return Projection(name, views or [view()], store, schema=Schema())


def without_a_query() -> Projection:
    store = object.__new__(PostgresViews)
    store.log, store._queries, store._types = MemoryLog("rooms"), {}, {}  # type: ignore[assignment]
    return projection(store=store)


WAITING = Saga(
    "waiting",
    version=1,
    starts_with=StringValue,
    steps=[Step("wait", done=BoolValue)],
    partition_key=lambda _event: "one",
    id=lambda _event: "one",
    sources={"source": [StringValue, BoolValue]},
)


SUBSCRIBED: Mapping[str, tuple[Callable[[], Sequence[Policies | Effects | Consumer]], str]] = {
    "two tables of one log": (
        lambda: [policies(), policies()],
        "two consumers are called 'room_svc.source' and would share one checkpoint.*one table.*another actor",
    ),
    "a table and a projection": (
        lambda: [policies(), projection()],
        "two consumers are called 'room_svc.source'.*a Projection: another name",
    ),
    "two projections on one table": (
        lambda: [projection("room_svc.source"), projection("room_svc.others")],
        "projections 'room_svc.source' and 'room_svc.others' both keep table 'rooms'.*shared=True",
    ),
    "one of two says that it shares": (
        lambda: [projection("room_svc.source", view(shared=True)), projection("room_svc.others")],
        "both keep table 'rooms'",
    ),
    "two views on one table": (
        lambda: [projection("room_svc.source", view(), view())],
        "projection 'room_svc.source' has 2 views on table 'rooms'; make them one view",
    ),
    "a view in a table of Twinlog's own": (
        lambda: [projection("room_svc.source", view("timers"))],
        "view 'timers' has the name of a table of Twinlog's own in the same database; rename it",
    ),
    "a view shared in a store that cannot": (
        lambda: [projection("room_svc.source", view(shared=True), store=NoSharing())],
        r"the store of 'room_svc.source' cannot share views \(rooms\); use one with `update`",
    ),
    "a view without its queries": (
        lambda: [without_a_query()],
        "view 'rooms' has no query 'rooms_upsert'; add it.*'rooms_rows'.*no row type in this store; name it",
    ),
    "a projection of no log": (
        lambda: [projection("rooms")],
        "projection 'rooms' does not say which log it projects; pass source=, or call it service.log",
    ),
    "a projection without a view": (
        lambda: [Projection("room_svc.source", [], STORE, schema=Schema())],
        "projection 'room_svc.source' has no view; give it one, or leave it out",
    ),
    "a view of everything, unsaid": (
        lambda: [projection("room_svc.source", view(events=()))],
        r"view 'rooms' does not say which events it is about.*rules= .*or events=, such as .*events=\[Message\]",
    ),
    "a view without a fold": (
        lambda: [
            projection("room_svc.source", View("rooms", lambda e, _: e.stream.id, events=[StringValue]))
        ],
        "view 'rooms' says of no event what the row is after it; give it rules=, evolve= or each=",
    ),
    "a view made by what it is not about": (
        lambda: [projection("room_svc.source", view(events=[StringValue], created_by=BoolValue))],
        r"view 'rooms': google\.protobuf\.BoolValue, which is to make its rows, is not among the events",
    ),
    "an async rule of a view": (
        lambda: [projection("room_svc.source", View("rooms", lambda *_: "", rules={StringValue: unready}))],
        r"view 'rooms': the rule of google\.protobuf\.StringValue is async.*plain function",
    ),
    "a table without a rule": (lambda: [policies(rules={})], "has no rule.*give it one, or leave it out"),
    "a table without an actor": (lambda: [policies(actor="")], "has no actor.*use the name of the service"),
    "an async rule": (
        lambda: [policies(rules={StringValue: later})],
        r"the rule of google\.protobuf\.StringValue is async.*plain function",
    ),
    "an async view": (
        lambda: [projection("room_svc.source", View("rooms", later, lambda *_: None, events=[Message]))],  # type: ignore[arg-type]
        "view 'rooms': key is async.*plain function",
    ),
    "the name of a task": (
        lambda: [Projection("relay", [view()], STORE, schema=Schema(), source="source")],
        "consumer 'relay' has the name of a task of the service itself; rename it",
    ),
    "a routing key that no event of the type has": (
        lambda: [Policies("source", "room_svc", {OrderCreated: lambda _: None}, "NOWHERE")],
        r"no shop\.orders\.v1\.OrderCreated has the routing key 'NOWHERE'.*correct routing_key",
    ),
    "effects for a routing key that no event of the type has": (
        lambda: [effects(rules={OrderCreated: later}, routing_key="NOWHERE")],
        r"Effects\('mail', log='source'\): no .*OrderCreated has the routing key 'NOWHERE'",
    ),
    "a rule without an event": (
        lambda: [policies(rules={StringValue: lambda: None})],
        r"the rule of google\.protobuf\.StringValue cannot be called with 1 arguments; let it take the event",
    ),
    "effects without an attempt": (
        lambda: [effects(rules={StringValue: at_once_of_one})],
        r"the rule of google\.protobuf\.StringValue cannot be called with 2 arguments.*the event, the attempt",
    ),
    "a key of an event alone": (
        lambda: [projection("room_svc.source", replace(view(), key=without_record))],
        "view 'rooms': key cannot be called with 2 arguments; let it take the record, the event",
    ),
    "effects of a log that no log can be called": (
        lambda: [effects(log="hotel rooms")],
        "reads log 'hotel rooms', which no log can be called; correct its log",
    ),
    "effects without an actor": (lambda: [effects(actor="")], "has no actor.*use the name of the service"),
    "effects that wait for nothing": (
        lambda: [effects(rules={StringValue: at_once})],
        r"at_once, the function of google\.protobuf\.StringValue, is no async function.*make it async def",
    ),
    "effects and policies under one name": (
        lambda: [policies(actor="room_svc.mail"), effects()],
        r"two consumers are called 'room_svc\.mail\.source' and would share one checkpoint",
    ),
    "a log that no log can be called": (
        lambda: [policies(log="hotel rooms")],
        "reads log 'hotel rooms', which no log can be called; correct its log",
    ),
}


@asynccontextmanager
async def service(
    *aggregates: Aggregate[Any, Any], log: MemoryLog | None = None, schema: Schema | None = None
) -> AsyncIterator[Service]:
    """A service over memory, beside the twin of the log ``source``."""
    log = log or MemoryLog("rooms")
    twins = {name: MemoryTwin(name) for name in ("rooms", "source")}
    for twin in twins.values():
        await twin.create(1)

    def crashed(task: str, error: BaseException) -> None:
        raise AssertionError(task) from error

    made = Service(
        "room_svc",
        log,
        Environment(
            twin=lambda name: twins.get(name) or MemoryTwin(name),
            lease=lambda _work: AlwaysHeld(),
            clock=ManualClock(),
            ids=RandomIds(),
            on_crash=crashed,
        ),
        schema=schema or Schema(),
        aggregates=aggregates,
    )
    async with made.running():
        yield made


WITH_UPCASTERS: Mapping[str, tuple[Callable[[], Policies | Effects | Consumer], str]] = {
    "policies": (lambda: policies(rules={Int64Value: lambda _: None}), r"Policies\(log='source'"),
    "effects": (lambda: effects(rules={Int64Value: later}), r"Effects\('mail'"),
    "a view": (lambda: projection("room_svc.source", view(events=[Int64Value])), "view 'rooms'"),
}


@pytest.mark.parametrize("whose", WITH_UPCASTERS)
async def test_what_waits_for_a_type_that_is_upcast_is_refused(whose: str) -> None:
    made, table = WITH_UPCASTERS[whose]
    async with service(schema=UPCASTING) as running:
        said = rf"{table}.* is about google\.protobuf\.Int64Value, which is upcast, so that none would come"
        with pytest.raises(Mistake, match=said):
            running.subscribe(made())


async def test_a_saga_that_is_declared_and_never_subscribed_is_refused_when_it_serves() -> None:
    async with service(saga_aggregate(WAITING)) as running:
        with pytest.raises(
            Mistake, match=r"saga 'waiting' is declared and not subscribed.*service\.subscribe"
        ):
            await running.serve()


async def test_a_read_model_that_nothing_feeds_is_refused_when_it_serves() -> None:
    async with service() as running:
        reads = ReadModel(running, MemoryViews(), {"source": [view()]}, name="views")
        with pytest.raises(
            Mistake,
            match=r"a ReadModel waits for a consumer 'room_svc\.views\.source'.*call its subscribe\(\), or subscribe",
        ):
            await running.serve()
        reads.subscribe()
        running.refuse_unfinished()


def test_a_world_refuses_what_a_start_refuses() -> None:
    def wire(running: Service, views: Any) -> None:
        ReadModel(running, views, {"rooms": [view()]})

    with pytest.raises(Mistake, match="a ReadModel waits for a consumer"):
        World([Hosted(SPEC, wire)])
    with pytest.raises(Mistake, match="database 'template0'"):
        World([Hosted(replace(SPEC, database="template0"), lambda _service, _views: None)])


def test_every_table_of_twinlogs_own_is_known() -> None:
    """But for the list of sagas, which is a view of the kernel's."""
    stored = json.loads((ROOT / "tests/log/catalogue.json").read_text())["columns"]
    assert {name.partition(".")[0] for name in stored} == OWN_TABLES | {"saga_instances"}


@pytest.mark.parametrize("mistake", SUBSCRIBED)
async def test_what_cannot_work_together_is_refused_before_any_of_it_begins(mistake: str) -> None:
    subscribers, said = SUBSCRIBED[mistake]
    async with service() as running:
        with pytest.raises(Mistake, match=f"room_svc: .*{said}"):
            running.subscribe(*subscribers())
        assert running.watched == []


async def test_it_is_refused_also_where_they_are_subscribed_one_by_one() -> None:
    async with service() as running:
        running.subscribe(policies())
        with pytest.raises(Mistake, match=r"two consumers are called .room_svc\.source."):
            running.subscribe(policies(rules={BoolValue: lambda _: None}))


async def test_nothing_begins_where_the_last_of_several_is_refused() -> None:
    async with service() as running:
        with pytest.raises(ConfigurationError, match="two Effects are called mail"):
            running.subscribe(policies(), effects(), effects(log="rooms"))
        assert running.watched == []
        assert "effects-mail" not in running.signals


async def test_tables_that_only_grow_and_tables_that_are_shared_may_be_kept_together() -> None:
    async with service() as running:
        running.subscribe(
            projection("room_svc.source", view(append_only=True), view("both", shared=True)),
            projection("room_svc.others", view(append_only=True), view("both", shared=True)),
        )


async def test_a_log_that_nobody_owns_is_named() -> None:
    async with service() as running:
        running.subscribe(policies(log="sorce"))
        await until(
            lambda: "Stream sorce does not exist; start the service" in (running.watched[0].problem or "")
        )
        assert "correct the name" in (running.watched[0].problem or "")


async def test_a_grpc_service_under_a_name_that_no_proto_has_is_refused() -> None:
    async with service() as running:
        with pytest.raises(Mistake, match=r"'hotel.v1.Rooms' is in no proto.*use its full name"):
            await running.serve((object(), lambda _servicer, _server: None, "hotel.v1.Rooms"))


async def test_a_grpc_service_that_is_served_twice_is_refused() -> None:
    async with service() as running:
        both = (object(), lambda _servicer, _server: None, "twinlog.v1.DeadLetterService")
        with pytest.raises(Mistake, match=r"twinlog.v1.DeadLetterService is served 2 times; serve it once"):
            await running.serve(both, both)


# --- what is none of a consumer's business ---


async def test_a_view_is_sent_what_it_is_about_and_a_newer_upstream_is_no_event_for_it() -> None:
    store = MemoryViews()
    of_texts = Projection("room_svc.source", [view(events=[StringValue])], store, schema=Schema())
    assert list(of_texts.types) == ["StringValue"]
    async with service() as running:
        running.subscribe(of_texts)
        handler = running.dead_letters.consumers["room_svc.source"]
        new = event(1, "a:1")._replace(type="hotel.v9.Repainted", payload=b"\xff")
        assert await handler.handle([new, event(2, "b:1")], 0) == 2
        assert not running.dead_letters.counts().get("room_svc.source")
    assert len(store.tables["rooms"]) == 1


async def test_a_namesake_from_another_package_calls_for_nothing() -> None:
    async with service() as running:
        running.subscribe(policies())
        handler = running.dead_letters.consumers["room_svc.source"]
        namesake = event(1, "a:1")._replace(type="hotel.v9.StringValue", payload=b"\xff")
        assert await handler.handle([namesake], 0) == 0
        assert not running.dead_letters.counts().get("room_svc.source")


async def test_a_view_that_wants_a_new_type_is_sent_what_was_stored_under_the_old_one() -> None:
    schema = Schema({Int64Value: (lambda old: [StringValue(value=f"{old.value}:1")], [StringValue])})
    store = MemoryViews()
    of_texts = Projection("room_svc.source", [view(events=[StringValue])], store, schema=schema)
    assert set(of_texts.types) == {"StringValue", "Int64Value"}
    async with service(schema=schema) as running:
        running.subscribe(of_texts)
        old = event(1, "a:1")._replace(
            type=Int64Value.DESCRIPTOR.full_name, payload=Int64Value(value=4).SerializeToString()
        )
        await running.dead_letters.consumers["room_svc.source"].handle([old], 0)
    assert len(store.tables["rooms"]) == 1


async def test_timers_of_an_aggregate_that_is_gone_are_reported_and_left_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also one that comes due while the service runs, and where no aggregate of it has timers at all."""
    monkeypatch.setattr("twinlog.service.own_log._CHECK_TIMERS_SECONDS", 0.01)
    log = MemoryLog("rooms")
    async with service(JOURNAL, log=log) as running:
        await asyncio.sleep(0.03)
        assert running.timers.problem is None
        gone = event(1, "a:1").stream._replace(type="gone")
        log.timers[gone] = Timer(gone, 1, START - timedelta(seconds=1))
        await until(lambda: "No aggregate gone is declared here" in (running.timers.problem or ""))
        assert gone in log.timers
        await running.writer.execute(lambda tx: tx.do(JOURNAL, "a", WRITE))


class _Write(NamedTuple):
    value: int


WRITE: Any = _Write(1)


# --- a request_id that is not passed along ---


async def test_a_method_that_forgets_its_request_id_is_refused_when_it_appends() -> None:
    from twinlog.log.units import CALLED_WITH_ID, RequestIdIgnored

    log = MemoryLog("rooms")
    async with service(JOURNAL, log=log) as running:
        token = CALLED_WITH_ID.set("hotel.v1.Rooms/Book")
        try:
            with pytest.raises(RequestIdIgnored, match=r"hotel\.v1\.Rooms/Book was called with a request_id"):
                await running.writer.execute(lambda tx: tx.do(JOURNAL, "a", WRITE))
            await running.writer.execute(_reads)
        finally:
            CALLED_WITH_ID.reset(token)
    assert not log.events


def _reads(transaction: Transaction) -> Any:
    return transaction.state(JOURNAL, "a")
