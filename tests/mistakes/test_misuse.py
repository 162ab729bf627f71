"""A stranger's slips, one a line: each is refused where it is declared or subscribed, by name and with what to do.

What is wrong in one part of a declaration is said by one rule (``twinlog/model/forms.py``); here each part is tried.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
from google.protobuf.message import Message
from google.protobuf.wrappers_pb2 import BoolValue, Int64Value, StringValue, UInt64Value

from shop.orders.v1.events_pb2 import OrderCreated
from tests.dead_letters.journal import JOURNAL, event
from tests.mistakes.test_start import (
    SPEC,
    STORE,
    UPCASTING,
    WAITING,
    RoomSettings,
    Row,
    Unfrozen,
    at_once,
    changed,
    effects,
    later,
    policies,
    projection,
    service,
    view,
)
from twinlog import (
    Backoff,
    Begin,
    ConfigurationError,
    Parallel,
    PostgresViews,
    Projection,
    Saga,
    Schema,
    ServiceSpec,
    Step,
    Upcast,
    View,
    on,
    run,
    saga_aggregate,
)
from twinlog.model.errors import StreamUnreadable
from twinlog.model.policies import NoDispatch
from twinlog.model.view import fold_keyed, keyed
from twinlog.service.mistakes import in_registrations, refuse
from twinlog.service.spec_mistakes import in_spec
from twinlog.testing import START

untyped: Any = SimpleNamespace(
    Saga=Saga,
    Step=Step,
    View=View,
    Schema=Schema,
    Upcast=Upcast,
    Backoff=Backoff,
    Parallel=Parallel,
    saga_aggregate=saga_aggregate,
    view=view,
    in_registrations=in_registrations,
)
"""As a program sees them that nobody has type-checked."""
Slip = tuple[Callable[[], object], str]
"""What is done, and what is said."""


@dataclass(frozen=True)
class Empty:
    """A state."""


class Called:
    """An object that is called."""

    def __call__(self, *_arguments: Any) -> None:
        """At once."""


def yields(*_arguments: Any) -> Any:
    yield StringValue()


async def yields_later(*_arguments: Any) -> Any:
    yield StringValue()


def spec(**parts: Any) -> Callable[[], object]:
    """The declaration of a service, checked as at start."""
    return lambda: refuse(list(in_spec(replace(SPEC, **parts))), "room_svc")


def new_spec(settings: Any, address: Any = "rooms_address") -> Callable[[], object]:
    return lambda: ServiceSpec("room_svc", "rooms", "hotel_rooms", "hotel", settings, address)


def aggregate(**parts: Any) -> Callable[[], object]:
    return lambda: spec(aggregates=[changed(**parts)])()


def saga(*steps: Any, **parts: Any) -> Callable[[], object]:
    said: dict[str, Any] = {"name": "trip", "version": 1, "starts_with": StringValue, "partition_key": str}
    return lambda: Saga(**{**said, "steps": steps, **parts})


def step(**parts: Any) -> Callable[[], object]:
    return lambda: saga(Step(**{"name": "hold room", "done": BoolValue, **parts}))()


def sent(**parts: Any) -> Callable[[], object]:
    return step(**{"send": lambda _context: StringValue(), **parts})


def projecting(*views: Any, **parts: Any) -> Callable[[], object]:
    said: dict[str, Any] = {"views": views, "store": STORE, "schema": Schema()}
    return lambda: Projection(**{"name": "room_svc.source", **said, **parts})


def row_of(*_arguments: Any) -> Any:
    return None


A, B, C = StringValue, BoolValue, Int64Value
ONE = Step("hold room", done=BoolValue)
NO_PLAIN = "plain function"
FOREVER, NEVER = timedelta.max, timedelta(-1)

DECLARED: Mapping[str, Slip] = {
    # a service
    "a name that is no text": (spec(name=3), "3: name is 3; give a text of at most 200 printable"),
    "a name without end": (spec(name="x" * 201), r"name is 'xxx.*… \(203 characters\); give a text"),
    "no log": (spec(log=None), "log is None; give a text"),
    "a log of 64 characters": (spec(log="x" * 64), "log 'x+' has 64 characters, and Postgres takes 63"),
    "a database of 64 characters": (spec(database="x" * 64), "database 'x+' has 64 characters.*shorten it"),
    "a database that is a template": (
        spec(database="template1"),
        "database 'template1'.*name one of its own",
    ),
    "no domain": (spec(domain=None), "domain is None; give a text"),
    "settings that are none": (new_spec(3), "settings is 3; give a class derived from twinlog.Settings"),
    "settings of another library": (new_spec(dict), "settings is the class dict; give a class derived"),
    "settings that are loaded": (
        new_spec(RoomSettings(postgres_url="postgresql://127.0.0.1", nats_url="nats://127.0.0.1")),
        "settings is a RoomSettings; give a class derived from twinlog.Settings, and no instance of it",
    ),
    "an address that no setting is": (
        new_spec(RoomSettings, "room_address"),
        "RoomSettings has no field room_address",
    ),
    "an address that is no text": (new_spec(RoomSettings, 3), "address is 3; give a text"),
    "a setting that is no address": (spec(address="log_level"), "by default 'info', and is to be host:port"),
    "no schema": (spec(schema=None), r"schema is None; give a Schema, such as"),
    "upcasters without a schema": (spec(schema={}), "schema is a dict; give a Schema"),
    "an aggregate of another kind": (spec(aggregates=[Empty]), "among its aggregates is the class Empty"),
    "a saga in the place of its aggregate": (
        spec(aggregates=[WAITING]),
        r"among its aggregates is a Saga; make it one by saga_aggregate\(…\)",
    ),
    "no aggregates": (spec(aggregates=None), "aggregates is one NoneType and not several"),
    "migrations that are none": (spec(migrations=[None]), "migrations None: there is no such package"),
    # an aggregate
    "an aggregate's name that is no text": (aggregate(name=3), "aggregate 3: name is 3; give a text"),
    "an aggregate's name with a NUL": (
        aggregate(name="a\0"),
        "give a text of at most 200 printable characters",
    ),
    "an aggregate's name of two lines": (aggregate(name="a\nb"), "printable characters"),
    "no decide": (
        aggregate(decide=None),
        "'journal': decide is None; give a function of the state and a command",
    ),
    "decide that is async and yields": (aggregate(decide=yields_later), f"decide is async.*{NO_PLAIN}"),
    "evolve that is an event": (aggregate(evolve=A), "evolve is the class StringValue; give a function"),
    "evolve that yields": (
        aggregate(evolve=yields),
        "evolve yields, so that it gives a generator.*let it return",
    ),
    "a partition key that is a text": (
        aggregate(partition_key="one"),
        "partition_key is 'one'; give a function",
    ),
    "a partition key that yields": (aggregate(partition_key=yields), "partition_key yields"),
    "due that is async": (aggregate(due=later, on_due=row_of), f"due is async.*{NO_PLAIN}"),
    "due that yields": (aggregate(due=yields, on_due=row_of), "due yields"),
    "on_due that yields": (aggregate(due=row_of, on_due=yields), "on_due yields"),
    "a state that was not made": (
        aggregate(initial=Empty),
        r"is the class Empty and no state; call it, as in Empty\(\)",
    ),
    "a mutable state that was not made": (aggregate(initial=Unfrozen), "is the class Unfrozen and no state"),
    "an event in the place of several": (
        aggregate(events=A),
        r"events is the class StringValue; give .*\[RoomAdded\]",
    ),
    "an event as a text": (
        aggregate(events="StringValue"),
        "events is 'StringValue'; give the generated classes",
    ),
    "an event that was made": (aggregate(events=[A()]), "events is a list; give the generated classes"),
    "any event": (aggregate(events=[Message]), "events is a list; give the generated classes"),
    "no events": (aggregate(events=None), "events is None; give the generated classes"),
    "snapshots at a text": (aggregate(keep_every="100"), "keep_every is '100'; give 100 or more, or 0"),
    "snapshots at a fraction": (aggregate(keep_every=100.5), "keep_every is 100.5; give 100 or more, or 0"),
    "snapshots below nothing": (aggregate(keep_bytes=-1), "keep_bytes is -1; give a whole number from 0"),
    "a flag as a text": (aggregate(keeps_personal="no"), "keeps_personal is 'no'; give True or False"),
    # policies
    "rules in a list": (
        lambda: policies(rules=[A]),
        r"rules is a list; give a mapping from events to functions",
    ),
    "no rules": (lambda: policies(rules=None), "rules is None; give a mapping"),
    "a rule of a text": (
        lambda: policies(rules={"A": row_of}),
        "rules names 'A'; name events by their generated",
    ),
    "a rule of a class": (lambda: policies(rules={int: row_of}), "rules names the class int; name events"),
    "a rule of every event": (lambda: policies(rules={Message: row_of}), "rules names the class Message"),
    "a rule that is a number": (
        lambda: policies(rules={A: 3}),
        "rules has 3 for google.protobuf.StringValue; give a fu",
    ),
    "a rule that is a command": (
        lambda: policies(rules={A: B}),
        "rules has the class BoolValue for .*StringValue",
    ),
    "policies of no log": (lambda: policies(log=None), "log is None; give a text"),
    "policies of no one": (lambda: policies(actor=3), "actor is 3; give a text"),
    "policies of a NUL": (lambda: policies(actor="a\0"), "printable characters"),
    "a routing key that is a number": (lambda: policies(routing_key=3), "routing_key is 3; give a text"),
    # effects
    "effects in capitals": (lambda: effects(name="Mail"), "effects 'Mail': the name has to be lower case"),
    "effects of a number": (lambda: effects(name=3), "name is 3; give a text"),
    "effects in a list": (lambda: effects(rules=[A]), "rules is a list; give a mapping"),
    "effects without rules": (lambda: effects(rules={}), "there is no rule; give an async function"),
    "an effect that is a number": (
        lambda: effects(rules={A: 3}),
        "rules has 3 for google.protobuf.StringValue",
    ),
    "a timeout in seconds": (
        lambda: effects(timeout=10),
        r"timeout is 10; give a timedelta, such as timedelta\(sec",
    ),
    "no timeout": (lambda: effects(timeout=None), "timeout is None; give a timedelta"),
    "a timeout below nothing": (lambda: effects(timeout=NEVER), "timeout is .*; give a timedelta"),
    "a timeout of nothing": (
        lambda: effects(timeout=timedelta()),
        "timeout is 0, and every call would be cut off",
    ),
    "a timeout without end": (lambda: effects(timeout=FOREVER), "of at most 730 days"),
    "retries as a text": (lambda: effects(retries="3"), "retries is '3'; give a whole number from 0"),
    "half a retry": (lambda: effects(retries=1.5), "retries is 1.5; give a whole number"),
    "retries below nothing": (lambda: effects(retries=-1), "retries is -1; give a whole number from 0"),
    "a wait below nothing": (lambda: effects(first_wait=NEVER), "first_wait is .*; give a timedelta"),
    "a wait in seconds": (lambda: effects(longest_wait=3), "longest_wait is 3; give a timedelta"),
    "no concurrency": (
        lambda: effects(concurrency=0),
        "concurrency is 0; give a whole number from 1 to 10,000",
    ),
    "true concurrency": (lambda: effects(concurrency=True), "concurrency is True; give a whole number"),
    "an error as a text": (
        lambda: effects(transient=("Timeout",)),
        "transient is a tuple; give classes of exceptions",
    ),
    "every error there is": (
        lambda: effects(transient=(BaseException,)),
        "transient is a tuple; give classes",
    ),
    # views
    "a view's name that is no text": (lambda: untyped.view(name=3), "view 3: name is 3; give a text"),
    "a view without a key": (
        lambda: untyped.View("rooms", None, events=[A]),
        "key is None; give a function of the record",
    ),
    "a view's key that is a text": (
        lambda: untyped.View("rooms", "id", events=[A]),
        "key is 'id'; give a function",
    ),
    "a view without a fold": (
        lambda: untyped.view(evolve=None),
        "evolve is None; give a function of the row",
    ),
    "a view's rules in a list": (
        lambda: untyped.View("rooms", row_of, rules=[A]),
        "rules is a list; give a mapping",
    ),
    "a view's rule of a text": (
        lambda: untyped.View("rooms", row_of, rules={"A": row_of}),
        "rules names 'A'; name events",
    ),
    "a view's rule that is a number": (
        lambda: untyped.View("rooms", row_of, rules={A: 3}),
        "rules has 3 for google",
    ),
    "two folds of a view": (
        lambda: untyped.View("rooms", row_of, row_of, rules={A: row_of}),
        "rules beside evolve or each",
    ),
    "a view of one event": (
        lambda: untyped.view(events=A),
        r"events is the class StringValue; give .*or \[Message\]",
    ),
    "a view of an event that was made": (
        lambda: untyped.view(events=[A()]),
        "events is a list; give the generated classes",
    ),
    "a view of no version": (lambda: untyped.view(version=0), "version is 0; give a whole number from 1"),
    "a view of a version in words": (
        lambda: untyped.view(version="2"),
        "version is '2'; give a whole number",
    ),
    "a view made by several": (
        lambda: untyped.view(created_by=(A,)),
        "created_by is a tuple; give the generated class",
    ),
    "a view that may grow only": (
        lambda: untyped.view(append_only="yes"),
        "append_only is 'yes'; give True or False",
    ),
    # projections
    "a view in the place of several": (
        projecting(views=untyped.view()),
        "'room_svc.source': views is a View; give views, in",
    ),
    "a projection of classes": (projecting(View), "views is a tuple; give views, in a list or tuple"),
    "a projection into nothing": (
        projecting(untyped.view(), store=None),
        "store is None; give a store of views",
    ),
    "a projection into a class": (
        projecting(untyped.view(), store=PostgresViews),
        "store is the class PostgresViews",
    ),
    "a projection without a schema": (
        projecting(untyped.view(), schema=None),
        "give .*schema=service.schema",
    ),
    "a projection's name that is no text": (projecting(untyped.view(), name=3), "projection 3: name is 3"),
    "an async on_commit": (
        projecting(untyped.view(), on_commit=later),
        "on_commit is the function later; give a plain function",
    ),
    # sagas
    "a saga without steps": (saga(), "it has no steps; give it at least one"),
    "a saga of one step": (saga(steps=ONE), "steps is a Step; give steps, in a list or tuple"),
    "a saga of texts": (saga("hold room"), "steps is a tuple; give steps"),
    "a saga without a name": (saga(ONE, name=None), "name is None; give a text"),
    "a version in words": (saga(ONE, version="1"), "version is '1'; give a whole number"),
    "half a version": (saga(ONE, version=1.5), "version is 1.5; give a whole number"),
    "a version beyond its field": (saga(ONE, version=2**40), "version is 1099511627776; give a whole number"),
    "a trigger as a text": (saga(ONE, starts_with="A"), "starts_with is 'A'; give the generated class"),
    "a trigger that was made": (
        saga(ONE, starts_with=A()),
        "starts_with is a message google.protobuf.StringValue",
    ),
    "no partition key": (
        saga(ONE, partition_key=None),
        "partition_key is None; give a function of the trigger",
    ),
    "an async partition key": (saga(ONE, partition_key=later), f"an async partition_key.*{NO_PLAIN}"),
    "an id of nothing": (
        saga(ONE, id=lambda: ""),
        "a function id that cannot be called with 1 argument; let it take the event",
    ),
    "an async id": (saga(ONE, id=later), f"an async id.*{NO_PLAIN}"),
    "interruptions in a list": (saga(ONE, interrupted_by=[A]), "interrupted_by is a list; give a mapping"),
    "an interruption with a text": (
        saga(ONE, interrupted_by={C: "gone"}),
        "interrupted_by has 'gone' for google",
    ),
    "an interruption of a text": (
        saga(ONE, interrupted_by={"C": row_of}),
        "interrupted_by names 'C'; name events",
    ),
    "an async interruption": (saga(ONE, interrupted_by={C: later}), "an async reason for Int64Value"),
    "a closing command as a text": (saga(ONE, on_compensated="end"), "on_compensated is 'end'; give a step"),
    "no backoff": (saga(ONE, backoff=None), "backoff is None; give a Backoff, such as"),
    "a backoff in seconds": (lambda: untyped.Backoff(1, 2), "Backoff: first is 1; give a timedelta"),
    "attention after nothing": (
        lambda: untyped.Backoff(attention_after=0),
        "attention_after is 0; give a whole number from 1",
    ),
    "a backoff without end": (lambda: untyped.Backoff(FOREVER, FOREVER), "of at most 730 days"),
    "sources in a list": (
        saga(ONE, sources=["rooms"]),
        "sources is a list; give by log, the events that it hears",
    ),
    "one event of a source": (saga(ONE, sources={"rooms": A}), "sources is a dict; give by log"),
    "a group of nothing": (
        saga(untyped.Parallel()),
        "a Parallel has no steps; give it some, or leave it out",
    ),
    "a group in a list": (
        saga(untyped.Parallel([ONE])),
        r"a Parallel has a list among its steps; give steps",
    ),
    "a group in a group": (
        saga(untyped.Parallel(untyped.Parallel(ONE))),
        "a Parallel inside a Parallel; put all steps into one",
    ),
    "two steps of one name": (saga(ONE, Step("hold room", done=C)), 'two steps are called "hold room"'),
    "a step's name that is no text": (step(name=3), "step 3: name is 3; give a text"),
    "a step without a name": (step(name=""), "has no name; give it one"),
    "success as a text": (
        step(done="held"),
        "step 'hold room': done is 'held'; give the generated class",
    ),
    "success that was made": (
        step(done=B()),
        "done is a message google.protobuf.BoolValue; give the generated",
    ),
    "success in two ways": (step(done=(B, C)), "done is a tuple; give the generated class"),
    "refusal by a class": (step(refused=int), "refused is the class int; give the generated class"),
    "a command that was made": (
        step(send=A()),
        "send is a message google.protobuf.StringValue; give a function",
    ),
    "a command's class": (
        step(send=A),
        "send is the class StringValue; give a function of the context that makes",
    ),
    "a command of nothing": (
        step(send=lambda: A()),
        "a function send that cannot be called with 1 argument; let it take the c",
    ),
    "a command that is yielded": (step(send=yields), "has a yielding send.*plain function"),
    "compensation that names no event": (step(undo=lambda _: A()), "needs undo= and undone= together"),
    "compensation without a command": (step(undone=C), "needs undo= and undone= together"),
    "a deadline in seconds": (step(deadline=5), "deadline is 5; give a timedelta"),
    "a deadline that is no number": (step(deadline=float("nan")), "deadline is nan; give a timedelta"),
    "a deadline of nothing": (step(deadline=timedelta()), "deadline=0:00:00, which is over at once"),
    "a deadline below nothing": (step(deadline=NEVER), "which is over at once; give it more than 0"),
    "a deadline without end": (step(deadline=FOREVER), "of at most 730 days"),
    "a deadline on a day": (step(deadline=datetime(2027, 1, 1)), "deadline is a datetime; give a timedelta"),
    "a wait of seconds": (lambda: untyped.Step("wait", lasts=5), "lasts is 5; give a timedelta"),
    "endless retries": (sent(retries=float("inf")), "retries is inf; give a whole number"),
    "fewer than no retries": (sent(retries=-1), "has retries=-1; give 0 or more"),
    "a condition that is a value": (step(when=True), "when is True; give a function of the context"),
    "a condition of nothing": (
        step(when=lambda: True),
        "a function when that cannot be called with 1 argument",
    ),
    "a match that is a number": (step(matches=3), "matches is 3; give a function of the event"),
    "a match of nothing": (
        step(matches=lambda: True),
        "a function matches that cannot be called with 1 argument",
    ),
    "a reason that is a text": (step(refused=C, why="no"), "why is 'no'; give a function of the refusal"),
    "a failure as a text": (
        sent(refused=C, retries=1, transient="x"),
        "transient is 'x'; give the generated class",
    ),
    "two points of no return": (
        saga(replace(ONE, no_return=True), Step("pay", done=C, no_return=True)),
        "several points of no return",
    ),
    "no return from a group": (
        saga(untyped.Parallel(replace(ONE, no_return=True), Step("pay", done=C))),
        "the point of no return .* stands in a Parallel; let it stand alone",
    ),
    "tables in a list": (
        lambda: untyped.saga_aggregate([WAITING]),
        r"a list is no Saga; give its tables, as in",
    ),
    "no tables": (untyped.saga_aggregate, "saga_aggregate needs the tables of a saga"),
    "one version twice": (lambda: untyped.saga_aggregate(WAITING, WAITING), "two tables have this version"),
    # upcasters
    "upcasters in a text": (
        lambda: untyped.Schema("old"),
        "Schema: its table has 'o'; each line is made by a method",
    ),
    "no upcasters": (lambda: untyped.Schema(None), "its table is None; give a list of Upcast lines"),
    "an upcaster without its types": (
        lambda: untyped.Schema({A: row_of}),
        "needs a function and the types that it returns",
    ),
    "an upcaster to one type": (
        lambda: untyped.Schema({A: (row_of, B)}),
        "needs a function and the types that it returns",
    ),
    "an upcaster without a function": (
        lambda: untyped.Schema({A: (None, [B])}),
        "None makes no message; give a function",
    ),
    "an async upcaster": (lambda: untyped.Schema({A: (later, [B])}), f"its function is async.*{NO_PLAIN}"),
    "an upcaster to itself": (
        lambda: untyped.Schema({A: (row_of, [A])}),
        "leads back to google.protobuf.StringValue",
    ),
    "renamed by a text": (
        lambda: untyped.Upcast.rename(A, B, by="x"),
        "'x' makes no message; give a function of the old",
    ),
    "renamed by nothing": (
        lambda: untyped.Upcast.rename(A, B, by=lambda: B()),
        "cannot be called with 1 argument",
    ),
    "renamed later": (lambda: untyped.Upcast.rename(A, B, by=later), f"its function is async.*{NO_PLAIN}"),
    "split into one type": (
        lambda: untyped.Upcast.split(A, B, row_of),
        "it names one type and not several; give a list",
    ),
    "split by nothing": (
        lambda: untyped.Upcast.split(A, [B], None),
        "None makes no message; give a function",
    ),
    "merged in a list": (
        lambda: untyped.Upcast.merge([A, B], C),
        "the old types have to be a mapping to functions",
    ),
    "merged by a number": (
        lambda: untyped.Upcast.merge({A: 3, B: None}, C),
        "3 makes no message; give a function",
    ),
    # what is served
    "a servicer by itself": (
        lambda: refuse([*untyped.in_registrations([object()])], "room_svc"),
        "an object cannot be served; give a servicer that derives from a generated class",
    ),
}


def test_a_part_of_another_form_is_refused_where_it_is_declared() -> None:
    for slip, (done, said) in DECLARED.items():
        refusal = refused(done)
        assert re.search(said, refusal), f"{slip}: {refusal or 'is taken'}"


def test_what_is_as_long_as_it_may_be_is_taken() -> None:
    most, longer = timedelta(days=730), timedelta(days=730, microseconds=1)
    bounded: Mapping[str, Callable[[timedelta], Callable[[], object]]] = {
        "a timeout": lambda time: lambda: effects(timeout=time),
        "a deadline": lambda time: step(send=lambda _context: StringValue(), deadline=time),
        "a backoff": lambda time: lambda: saga(ONE, backoff=Backoff(time, time))(),
    }
    for what, of in bounded.items():
        assert refused(of(most)) == "", what
        assert refused(of(longer)), what


def refused(done: Callable[[], object]) -> str:
    """What is said of a mistake; nothing where it is taken."""
    try:
        done()
    except ConfigurationError as error:
        return str(error)
    return ""


SUBSCRIBED: Mapping[str, tuple[Any, str]] = {
    "a number": (3, r"3 cannot be subscribed; give Policies, Effects, a Projection or what saga_aggregate"),
    "nothing": (None, "None cannot be subscribed"),
    "a list": (
        [policies()],
        r"a list cannot be subscribed; give its members one by one, as in subscribe\(\*several\)",
    ),
    "a class": (Projection, "the class Projection cannot be subscribed"),
    "a table of a saga": (WAITING, "a Saga cannot be subscribed; subscribe its aggregate"),
    "a view": (untyped.view(), "a View cannot be subscribed; put it into a Projection or a ReadModel"),
    "an aggregate": (JOURNAL, "an Aggregate cannot be subscribed; declare it among the aggregates"),
    "a rule that is async and yields": (policies(rules={A: yields_later}), f"is async.*{NO_PLAIN}"),
    "an effect that yields": (effects(rules={A: yields}), "is no async function.*make it async def"),
    "an effect that is called at once": (
        effects(rules={A: Called()}),
        r"Called\.__call__.* is no async function",
    ),
    "an effect in part": (effects(rules={A: partial(at_once)}), ""),
    "a view that yields rows": (projection("room_svc.source", untyped.view(evolve=yields)), "evolve yields"),
    "a view of a routing key that its events have not": (
        projecting(untyped.view(events=[UInt64Value]), routing_key="NORTH")(),
        "view 'rooms': no google.protobuf.UInt64Value has the routing key 'NORTH'",
    ),
    "a view of a routing key that is none": (
        projecting(untyped.view(events=[OrderCreated]), routing_key="NOWHERE")(),
        "view 'rooms': no shop.orders.v1.OrderCreated has the routing key 'NOWHERE'",
    ),
}


@pytest.mark.parametrize("slip", [name for name, (_, said) in SUBSCRIBED.items() if said])
async def test_what_cannot_be_fed_is_refused_where_it_is_subscribed(slip: str) -> None:
    given, said = SUBSCRIBED[slip]
    async with service() as running:
        with pytest.raises(ConfigurationError, match=f"room_svc: .*{said}"):
            running.subscribe(given)
        assert running.watched == []


async def test_a_function_in_part_may_give_what_can_be_waited_for() -> None:
    async with service() as running:
        running.subscribe(SUBSCRIBED["an effect in part"][0])


async def test_a_projection_without_the_upcasters_of_its_service_is_refused() -> None:
    async with service(schema=UPCASTING) as running:
        with pytest.raises(
            ConfigurationError, match=r"has not the upcasters of its service.*schema=service.schema"
        ):
            running.subscribe(projection())


def test_a_program_is_run_from_both_or_from_its_main_alone() -> None:
    def wire(_service: object, _views: object) -> None: ...

    async def main(_shutdown: object) -> None: ...

    for wrong in ((SPEC,), (main, wire)):
        with pytest.raises(ConfigurationError, match=r"run\(SPEC, wire\)"):
            run(*wrong)


def test_no_message_tells_an_address_in_memory() -> None:
    for slip, (done, _) in DECLARED.items():
        with pytest.raises(ConfigurationError) as refused:
            done()
        assert not re.search("0x[0-9a-f]{6}", str(refused.value)), slip


# --- what only shows when a function has answered ---

GIVES: Mapping[str, tuple[Any, str]] = {
    "a text": ("command", "it gave 'command'; give a command"),
    "a number": (3, r"it gave 3; give a command, as on\(…\).do\(…\), several, or None"),
    "an event": (A(), "it gave a message google.protobuf.StringValue; give a command"),
    "no command": ([None], r"among its commands is None; each has to be made by on\(…\).do\(…\)"),
    "a target": (on(JOURNAL, "a"), r"on\(…\) alone is no command; say what is to be done"),
}


@pytest.mark.parametrize("slip", GIVES)
def test_a_rule_that_gives_no_commands_is_told_by_name(slip: str) -> None:
    given, said = GIVES[slip]
    with pytest.raises(NoDispatch, match=said):
        policies(rules={A: lambda _event: given}).dispatches(A())


def test_a_rule_may_yield_its_commands() -> None:
    def twice(_event: Any) -> Any:
        yield from (on(JOURNAL, id).do(1) for id in "ab")

    assert [each.id for each in policies(rules={A: twice}).dispatches(A())] == ["a", "b"]


def test_a_rule_that_has_to_be_waited_for_is_told_by_name() -> None:
    with pytest.raises(NoDispatch, match="it gave a coroutine"):
        policies(rules={A: lambda _event: later()}).dispatches(A())


KEYS: Mapping[str, tuple[Any, str]] = {
    "a number": (5, "view 'rooms': key gave 5; give a text, several, or None"),
    "bytes": (b"a", "view 'rooms': key gave a bytes"),
    "nothing among several": ([None], "view 'rooms': among the keys is None; each has to be a text"),
}


@pytest.mark.parametrize("slip", KEYS)
def test_a_key_that_is_no_text_is_told_by_name(slip: str) -> None:
    given, said = KEYS[slip]
    with pytest.raises(TypeError, match=said):
        keyed(replace(view(), key=lambda *_: given), [(event(1, "a:1"), A())])


def test_a_key_may_yield() -> None:
    each: Any = lambda *_: (key for key in "ab")  # noqa: E731
    [(keys, *_)] = keyed(replace(view(), key=each), [(event(1, "a:1"), A())])
    assert list(keys) == ["a", "b"]


ROWS: Mapping[str, tuple[Any, str]] = {
    "of another key": (
        Row("b"),
        "view 'rooms': the row of 'a' has 'b' as its first field, and would take the place",
    ),
    "a class": (Row, "view 'rooms': the row of 'a' is the class Row; give a row, or None"),
}


@pytest.mark.parametrize("slip", ROWS)
def test_a_row_that_would_be_stored_elsewhere_is_told_by_name(slip: str) -> None:
    given, said = ROWS[slip]
    of = view(evolve=lambda *_: given)
    with pytest.raises(TypeError, match=said):
        fold_keyed(of, keyed(of, [(event(1, "a:1"), A())]), {})


STEPS: Mapping[str, tuple[dict[str, Any], str]] = {
    "no command": (
        {"send": lambda _: None},
        'the step "hold room": send gave None; give the message that is',
    ),
    "a text for a command": ({"send": lambda _: "hold"}, "send gave 'hold'; give the message"),
    "a time of no zone": (
        {"deadline": lambda _: datetime(2027, 1, 1)},
        "its time is a datetime; give a datetime with",
    ),
    "a time from now on": (
        {"deadline": lambda _: timedelta(1)},
        "its time is .*; give a datetime with a time zone",
    ),
}


@pytest.mark.parametrize("slip", STEPS)
async def test_a_step_that_gives_something_else_is_told_by_name(slip: str) -> None:
    parts, said = STEPS[slip]
    sagas = saga_aggregate(
        untyped.Saga("trip", 1, A, [untyped.Step("hold room", done=B, **parts)], lambda _: "one")
    )
    async with service(sagas) as running:
        with pytest.raises(StreamUnreadable, match=said):
            await running.writer.execute(lambda tx: tx.do(sagas, "a", Begin(A(), START)))
