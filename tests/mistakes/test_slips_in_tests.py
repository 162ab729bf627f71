"""Slips in tests and in what reads views: each would leave a test green that looks at nothing, or a watch idle."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from datetime import timedelta
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
from google.protobuf.wrappers_pb2 import BoolValue, Int64Value, StringValue, UInt64Value

from tests.dead_letters.journal import JOURNAL
from tests.mistakes.test_start import SPEC, RoomSettings, Row, changed, later
from twinlog import (
    ConfigurationError,
    InvalidArgument,
    NotFound,
    Policies,
    Saga,
    Settings,
    Step,
    View,
    on,
    open_service,
)
from twinlog.postgres.views import NoSuchField, PostgresViews
from twinlog.rpc import PageTokens, ReadModel
from twinlog.service.wiring import servicers
from twinlog.testing import Call, Hosted, Kind, Scenario, World, given, simulate

if TYPE_CHECKING:
    from collections.abc import Sequence as OnlyForTypes

untyped: Any = SimpleNamespace(
    open_service=open_service,
    Call=Call,
    Hosted=Hosted,
    Scenario=Scenario,
    World=World,
    given=given,
    PageTokens=PageTokens,
)
"""As a program sees them that nobody has type-checked."""
A, B, C = StringValue, BoolValue, Int64Value
POLICIES = Policies(log="rooms", actor="desk", rules={A: lambda _event: on(JOURNAL, "a").do(1)})
SAGA = Saga("trip", 1, A, [Step("hold room", done=B, send=lambda _context: C())], lambda _event: "one")
ROOMS: View[Any] = View("rooms", lambda *_: "a", rules={A: lambda *_: Row("a")})
OTHER: View[Any] = View("other", lambda *_: "a", rules={A: lambda *_: Row("a")})
SETTINGS: Mapping[str, Any] = {"postgres_url": "postgresql://127.0.0.1", "nats_url": "nats://127.0.0.1"}
BEFORE = timedelta(seconds=-1)


def nothing(*_given: Any) -> Any:
    return None


def forgets(*_given: Any) -> Row:  # type: ignore[empty-body]
    """Wiring that serves nothing."""


def forgets_both(*_given: Any) -> tuple[Row, Row]:  # type: ignore[empty-body]
    """The same of two."""


def optional(*_given: Any) -> Row | None:
    return None


def unknown(*_given: Any) -> OnlyForTypes[Row]:
    return []


def yields(*_given: Any) -> Iterator[int]:
    yield 1


def hosted(**parts: Any) -> Callable[[], object]:
    return lambda: untyped.Hosted(**{"spec": SPEC, "wire": nothing, **parts})


def world(wire: Any = nothing, do: Callable[[World], object] = nothing) -> Callable[[], object]:
    def run() -> None:
        with World([Hosted(SPEC, wire)]) as made:
            do(made)

    return run


def reads(then: Mapping[str, Any] = {}, **parts: Any) -> Callable[[], object]:
    def wire(service: Any, views: Any) -> None:
        model = ReadModel(service, views, **{"views": {"rooms": [ROOMS]}, **parts})
        model.subscribe(**then)

    return world(wire)


def call(**parts: Any) -> Any:
    said = {"at": 1, "service": "room_svc", "method": "Book", "request": A(), "correlation_id": "c"}
    return untyped.Call(**{**said, **parts})


def simulated(*calls: Any, **parts: Any) -> Callable[[], object]:
    said: dict[str, Any] = {"services": [Hosted(SPEC, nothing)], "script": lambda _chance: calls}
    return lambda: simulate(untyped.Scenario(**{**said, **parts}), seeds=[1])


def asked(subject: Any, *past: Any) -> Any:
    return untyped.given(subject, *past)


SLIPS: Mapping[str, tuple[Callable[[], object], str]] = {
    # given / when / then
    "a class for an event that was": (
        lambda: asked(JOURNAL, A),
        r"given is given the class StringValue; .* as St",
    ),
    "a class for an event": (
        lambda: asked(POLICIES).when(A).nothing(),
        "when is given the class StringValue",
    ),
    "a command for an event": (lambda: asked(POLICIES).when(3).nothing(), "when is given 3; give messages"),
    "several events in one": (
        lambda: asked(ROOMS).when([A()]),
        r"when is given a list; .* as when\(\*events\)",
    ),
    "a class for a view's event": (lambda: asked(ROOMS).when(A), "when is given the class StringValue"),
    "a command to nobody": (
        lambda: asked(POLICIES).when(A()).commands(1),
        r"commands is given 1; give what on\(",
    ),
    "a class for a decision": (lambda: asked(JOURNAL).when(1).then(A), "then is given the class StringValue"),
    "a list for a decision": (
        lambda: asked(JOURNAL).when(1).then([A()]),
        r"then is given a list; give its mem",
    ),
    "a refusal that was made": (
        lambda: asked(JOURNAL).when(1).then_refused(NotFound("x")),
        "then_refused is given a NotFound; give the class of a TwinlogError",
    ),
    "a refusal of Python": (
        lambda: asked(JOURNAL).when(1).then_refused(KeyError),
        "the class KeyError; give the",
    ),
    "another trigger": (
        lambda: asked(SAGA).when(B()),
        "when is given a message google.protobuf.BoolValue, and saga 'trip' starts with StringValue",
    ),
    "an answer that nobody awaits": (
        lambda: asked(SAGA).when(A()).reply(UInt64Value()),
        "reply is given a message google.protobuf.UInt64Value, and saga 'trip' hears BoolValue",
    ),
    "a class for a command": (
        lambda: asked(SAGA).when(A()).expect(C),
        "expect is given the class Int64Value",
    ),
    "time that passes back": (
        lambda: asked(SAGA).when(A()).passes(BEFORE),
        "passes: time is .*; give a timedelta",
    ),
    "time in seconds": (lambda: asked(SAGA).when(A()).passes(5), "passes: time is 5; give a timedelta"),
    # a world
    "a spec that is a name": (hosted(spec="room_svc"), "Hosted: spec is 'room_svc'; give the SPEC"),
    "no wiring": (hosted(wire=None), "Hosted: wire is None; give a function"),
    "a flag as a text": (hosted(replays="no"), "Hosted: replays is 'no'; give True or False"),
    "the class of settings": (
        hosted(settings=RoomSettings),
        "settings is the class RoomSettings; give the sett",
    ),
    "settings of another": (
        hosted(settings=Settings(**SETTINGS)),
        "Hosted room_svc: settings is a Settings; give RoomSettings",
    ),
    "queries in a list": (hosted(queries=["rooms"]), "queries is a list; give functions by the name"),
    "a query that is SQL": (
        hosted(queries={"rooms": "SELECT 1"}),
        "queries has 'SELECT 1' for 'rooms'; give a fu",
    ),
    "a world of nobody": (lambda: World([]), "a world: its services are a list; give one at least"),
    "a world of one": (lambda: untyped.World(Hosted(SPEC, nothing)), "a world: its services are a Hosted"),
    "a world of specs": (lambda: untyped.World([SPEC]), r"a world: .* as \[Hosted\(SPEC, wire\)\]"),
    "wiring that is async": (world(later), "wire of room_svc: it is async, so that nothing of it has run"),
    "wiring that yields": (world(yields), "wire of room_svc: it yields, so that nothing of it has run"),
    "servicers in a list": (world(lambda *_: [object()]), "wire of room_svc: .* give them as a tuple"),
    "the class of a servicer": (world(lambda *_: Row), "it gives the class of a servicer; call it"),
    "a return that is forgotten": (
        world(forgets),
        "wire of room_svc: it gives nothing, and its annotation says Row; is a return missing",
    ),
    "a return of several that is forgotten": (world(forgets_both), "its annotation says tuple; is a ret"),
    "a service that serves twice": (
        world(lambda *_: ((object(), nothing, "twinlog.v1.ViewService"),) * 2),
        "room_svc: gRPC service twinlog.v1.ViewService is served 2 times",
    ),
    "time before": (world(do=lambda made: made.advance(BEFORE)), "advance: by is .*; give a timedelta"),
    "a number of seconds": (
        world(do=lambda made: untyped_advance(made, 5)),
        "advance: by is 5; give a timedelta",
    ),
    "a decider that is async": (
        lambda: asked(changed(decide=later)),
        "aggregate 'journal': decide is async.*make it a plain function",
    ),
    # a simulation
    "nothing asked": (simulated(), "no seed has a command, so that nothing was asked of the services"),
    "one service in no list": (
        simulated(services=Hosted(SPEC, nothing)),
        "services is a Hosted; give services in a",
    ),
    "a script that is a list": (
        simulated(script=[]),
        "script is a list; give a function of the seed's Random",
    ),
    "a script without an end": (simulated(script=nothing), "script gives None; give calls, in a list"),
    "a script of texts": (simulated("Book"), "script gives a tuple; give calls, in a list"),
    "a call to nobody": (
        simulated(call(service="rooms_svc")),
        "a call goes to 'rooms_svc'; its services are room_svc",
    ),
    "two calls in one": (
        simulated(call(), call()),
        "two calls have the correlation_id 'c'; give each its own",
    ),
    "a fault that is none": (
        simulated(call(), kinds=lambda every: {"crush": every["crash"]}),
        "kinds names 'crush', and nothing goes wrong so; what does: crash, ",
    ),
    "no kinds": (simulated(call(), kinds=nothing), "kinds gives None; give some of what it is given"),
    "no time for faults": (simulated(call(), faulty_seconds=1), "faulty_seconds is 1; give seconds, from 3"),
    "no patience": (simulated(call(), patience_seconds=-1), "patience_seconds is -1; give seconds, from 0"),
    "a call before all": (lambda: call(at=-1), "Call: at is -1; give seconds, from 0"),
    "a call without an end": (
        lambda: call(patience_seconds=float("inf")),
        "Call: patience_seconds is inf; give seconds",
    ),
    "a call of nobody": (
        lambda: call(correlation_id=""),
        "Call: correlation_id is ''; give a text, another one",
    ),
    # what reads views
    "a read model of nothing": (
        reads(views={}),
        "ReadModel of room_svc: views is a dict; give views by log, one at",
    ),
    "views in no log": (reads(views=[ROOMS]), "views is a list; give views by log"),
    "one view of a log": (reads(views={"rooms": ROOMS}), "views is a dict; give views by log"),
    "a watch of a view that is not fed": (
        reads(watched=[OTHER]),
        "watched names view 'other', which no log feeds here; add it to the views of its log",
    ),
    "a watch by name": (reads(watched=["rooms"]), r"watched is a list; give views, as \[ROOMS\]"),
    "a watch of one": (reads(watched=ROOMS), "watched is a View; give views"),
    "a field's name for several": (
        reads(watched={ROOMS: "key"}),
        "watched has 'key' for view 'rooms'; give the na",
    ),
    "changes kept for a timedelta": (
        reads(keep_changes_seconds=timedelta(1)),
        "keep_changes_seconds is .*; give sec",
    ),
    "changes kept for less than nothing": (
        reads(keep_changes_seconds=-1),
        "keep_changes_seconds is -1; give sec",
    ),
    "a read model of a number": (reads(name=3), "name is 3; give a text"),
    "a pause after no log": (
        reads(then={"linger_seconds": {"room": 1}}),
        "linger_seconds names 'room', which feeds no view here; its logs are rooms",
    ),
    "a pause after all": (reads(then={"linger_seconds": 1.0}), "linger_seconds is 1.0; give seconds by log"),
    "a secret that is a text": (
        lambda: untyped.PageTokens("secret"),
        "PageTokens: secret is 'secret'; give bytes",
    ),
    "a secret that all know": (
        lambda: PageTokens(b""),
        "PageTokens: secret is a bytes; give bytes that nobody else",
    ),
}


def opened(settings: Any, **parts: Any) -> Callable[[], object]:
    async def run() -> None:
        async with untyped.open_service(SPEC, settings, None, **parts):
            raise AssertionError("it runs")

    return lambda: asyncio.run(run())


def untyped_advance(made: Any, by: Any) -> None:
    made.advance(by)


OPENED: Mapping[str, tuple[Callable[[], object], str]] = {
    "settings of another program": (
        opened(Settings(**SETTINGS)),
        "open_service: settings is a Settings without rooms_address; give load",
    ),
    "one middleware": (
        opened(RoomSettings(**SETTINGS), middleware=nothing),
        "middleware is the function nothing; give f",
    ),
    "a middleware that is none": (
        opened(RoomSettings(**SETTINGS), middleware=[3]),
        "middleware is a list; give funct",
    ),
}


def test_a_slip_that_would_show_nothing_is_refused() -> None:
    wrong = []
    for slip, (do, said) in {**SLIPS, **OPENED}.items():
        try:
            do()
            told = "is taken"
        except (ConfigurationError, TypeError, ValueError) as error:
            told = str(error)
        if not re.search(said, told):
            wrong.append(f"{slip}: {told}")
    assert not wrong, "\n".join(wrong)


def test_nothing_may_go_wrong_in_a_simulation() -> None:
    with pytest.raises(ValueError, match="no seed has a command"):
        simulated(kinds=lambda _every: {})()
    assert Kind(()).weight == 1


def test_what_is_no_servicer_is_told_by_name_in_a_process_too() -> None:
    async def wire() -> None: ...

    with closing(wire()) as wired, pytest.raises(ConfigurationError, match="wire of rooms: it is async"):
        servicers(wired, "rooms")
    assert servicers(None, "rooms") == ()
    for may_give_none in (nothing, unknown, optional, None, partial(nothing)):
        assert servicers(None, "rooms", may_give_none) == ()
    assert servicers(row := Row("a"), "rooms") in ((row,), row)


def test_a_decider_that_yields_may_refuse() -> None:
    def decide(_state: Any, command: int) -> Iterator[Any]:
        if command < 0:
            raise InvalidArgument({"command": "is below 0"})
        yield C(value=command)
        raise InvalidArgument({"command": "is too much"})

    aggregate = changed(decide=decide)
    given(aggregate).when(-1).then_refused(InvalidArgument)


def test_a_field_that_rows_have_not_is_refused_where_it_is_to_be_noted() -> None:
    views = object.__new__(PostgresViews)
    views._types, views._writer = {"rooms": Row}, cast(Any, SimpleNamespace(noted={}))
    views.note({ROOMS: Row._fields})
    with pytest.raises(
        NoSuchField, match="rooms are to be chosen by 'guest', which they have not; their fields are"
    ):
        views.note({ROOMS: ["guest"]})
