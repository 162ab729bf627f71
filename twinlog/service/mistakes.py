"""Mistakes in what a service is made of: they are refused at start, by name, with the way out.

Each of them would otherwise lose events or mix data up, and say nothing. Every check looks at what is declared, before
anything of it runs.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from inspect import iscoroutinefunction, isfunction, unwrap
from typing import TYPE_CHECKING

from google.protobuf import descriptor_pool
from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.message import Message

from twinlog.consume import Consumer
from twinlog.consume.dead_letters import DEAD_LETTERS
from twinlog.consume.projection import Projection
from twinlog.model.aggregate import Aggregate, AnyAggregate, is_mutable
from twinlog.model.effects import Effects
from twinlog.model.errors import ConfigurationError
from twinlog.model.forms import shown
from twinlog.model.functions import called_by, in_arguments, in_functions, in_parts, named
from twinlog.model.personal import has_own, personal_fields
from twinlog.model.policies import Policies
from twinlog.model.routing import may_have_routing_key
from twinlog.model.saga_aggregate import SagaAggregate
from twinlog.model.saga_list import SAGA_INSTANCES
from twinlog.model.saga_table import Saga
from twinlog.model.schema import Schema
from twinlog.model.view import AnyView, View, unchanged
from twinlog.postgres.indexes import INDEXES

if TYPE_CHECKING:
    from twinlog.rpc import Registration

OWN_WORK = ("relay", "timers", "requests")
"""The leases of a service's own tasks."""
OWN_TABLES = {each.table for each in INDEXES} - {SAGA_INSTANCES.table} | {"given_up_events"}
"""Tables that every log has beside the views of its service; one has no index."""
LOG_NAME = re.compile("[a-z][a-z0-9_]*")
_CONSUMER = ("name", "source", "types", "routing_key", "checkpoint", "apply")
"""Parts of a consumer."""
_LONGEST_LINGER_SECONDS = 3_600


class Mistake(ConfigurationError):
    """A service is put together wrongly."""

    reason = "MISTAKE"


def refuse(mistakes: Sequence[str], of: str) -> None:
    """Raises one Mistake that says all of them; ``of`` names the service."""
    if mistakes:
        raise Mistake(f"{of}: " + "; ".join(dict.fromkeys(mistakes)))


def in_subscribers(
    subscribers: Sequence[object], linger_seconds: object = 0.0, ended: bool = False
) -> Iterator[str]:
    """What cannot be subscribed at all, and what to do with it. ``ended``: its service no longer runs."""
    if ended:
        yield "it has stopped, so that nothing would come of what is subscribed; do so inside its open_service block"
    if not isinstance(linger_seconds, int | float) or not 0 <= linger_seconds <= _LONGEST_LINGER_SECONDS:
        yield f"linger_seconds is {linger_seconds!r}; give seconds, from 0 to {_LONGEST_LINGER_SECONDS}"
    for each in subscribers:
        if isinstance(each, Policies | Effects | SagaAggregate):
            continue
        if isinstance(each, type) or not all(hasattr(each, part) for part in _CONSUMER):
            yield f"{shown(each)} cannot be subscribed; {_instead(each)}"


def _instead(of: object) -> str:
    if isinstance(of, Saga):
        return "subscribe its aggregate, as saga_aggregate(…) makes it"
    if isinstance(of, View):
        return "put it into a Projection or a ReadModel"
    if isinstance(of, Aggregate):
        return "declare it among the aggregates of the ServiceSpec"
    if isinstance(of, list | tuple | set):
        return "give its members one by one, as in subscribe(*several)"
    return "give Policies, Effects, a Projection or what saga_aggregate(…) makes"


def in_aggregates(aggregates: Sequence[AnyAggregate]) -> Iterator[str]:
    """What is wrong with the aggregates that a service declares."""
    for name, times in Counter(aggregate.name for aggregate in aggregates).items():
        if times > 1:
            yield (
                f"{times} aggregates are called {name!r} and would fold each other's streams; declare each once, "
                f"under a name of its own"
            )
        if name == DEAD_LETTERS.name:
            yield f"aggregate {name!r} has the name of Twinlog's own dead letters; rename it"
        if not name or "/" in name:
            yield f"aggregate {name!r}: its name is empty or has a slash, which parts name and id; rename it"
    owners: dict[type[Message], str] = {}
    for aggregate in aggregates:
        yield from _in_aggregate(aggregate)
        for event in dict.fromkeys(aggregate.events):
            if (owner := owners.setdefault(event, aggregate.name)) != aggregate.name:
                yield (
                    f"{event.DESCRIPTOR.full_name} is an event of aggregates {owner!r} and {aggregate.name!r}, and "
                    f"what follows it could not tell whose it is; give each an event of its own"
                )


def _in_aggregate(aggregate: AnyAggregate) -> Iterator[str]:
    name = aggregate.name
    if isinstance(aggregate.initial, type):
        yield (
            f"aggregate {name!r}: its initial state is {shown(aggregate.initial)} and no state; call it, as in "
            f"{aggregate.initial.__name__}()"
        )
    elif is_mutable(aggregate.initial):
        yield (
            f"aggregate {name!r}: its initial state is a mutable {type(aggregate.initial).__name__}, which all its "
            f"streams would share; make it a frozen dataclass"
        )
    if aggregate.has_timers and not aggregate.answers_timers:
        yield f"aggregate {name!r} has `due` and no `on_due`, so that no timer could be fired; give it both"
    yield from in_parts(aggregate)


def in_tables(tables: Sequence[object], schema: Schema, signals: Collection[str]) -> Iterator[str]:
    """What is wrong with those that are Policies or Effects; ``schema`` and ``signals``: the service's."""
    taken = {*signals}
    for each in tables:
        if isinstance(each, Policies):
            yield from _in_policies(each, schema)
        elif isinstance(each, Effects):
            yield from _in_effects(each, schema)
            if each.signal in taken:
                yield (
                    f"two Effects are called {each.name} and would share one health check; give each a name of its "
                    f"own, and keep that of the older one"
                )
            taken.add(each.signal)


def _in_policies(policies: Policies, schema: Schema) -> Iterator[str]:
    table = f"Policies(log={policies.log!r}, actor={policies.actor!r})"
    if not policies.rules:
        yield f"{table} has no rule, and would be sent every event in vain; give it one, or leave it out"
    if not policies.actor:
        yield f"{table} has no actor, who names its consumer; use the name of the service"
    yield from _in_routing(table, policies.rules, policies.routing_key)
    yield from in_old_types(table, policies.rules, schema)
    yield from in_functions(table, named(policies.rules), ("the event",), may_yield=True)


def _in_effects(effects: Effects, schema: Schema) -> Iterator[str]:
    table = f"Effects({effects.name!r}, log={effects.log!r})"
    if not effects.actor:
        yield f"{table} has no actor, who names its consumer; use the name of the service"
    yield from _in_routing(table, effects.rules, effects.routing_key)
    yield from in_old_types(table, effects.rules, schema)
    yield from in_arguments(table, named(effects.rules), ("the event", "the attempt"))
    for event, function in effects.rules.items():
        called = called_by(unwrap(function))
        if isfunction(called) and called.__name__ != "<lambda>" and not iscoroutinefunction(called):
            yield (
                f"{table}: {called.__qualname__}, the function of {event.DESCRIPTOR.full_name}, is no async function, "
                f"so that it could not be waited for; make it async def"
            )


def in_old_types(table: str, types: Iterable[type[Message]], schema: Schema) -> Iterator[str]:
    """Types that are upcast, by a table that is about them."""
    for event in types:
        if schema.replaces(event):
            yield (
                f"{table} is about {event.DESCRIPTOR.full_name}, which is upcast, so that none would come; name the "
                f"type that its upcaster returns"
            )


def in_upcasts(
    schema: Schema, aggregates: Sequence[AnyAggregate], consumers: Sequence[Consumer]
) -> Iterator[str]:
    """Upcasters whose result nobody reads, of events of this service's own, by what it has when it begins to serve.

    They are told by the proto file of the events that its aggregates declare; where one does not, nothing is known.
    """
    plain = [each for each in aggregates if not isinstance(each, SagaAggregate)]
    declared = {event.DESCRIPTOR.full_name: event for each in plain for event in each.events}
    if not all(each.events for each in plain) or not all(consumer.types for consumer in consumers):
        return
    own = {event.DESCRIPTOR.file.name for event in declared.values()}
    wanted = {type for consumer in consumers for type in consumer.types}
    for old, new in schema.targets():
        of = new.DESCRIPTOR
        if of.file.name in own and of.full_name not in declared and of.name not in wanted:
            yield (
                f"{old.DESCRIPTOR.full_name} is upcast to {of.full_name}, which nothing here reads; name it in the "
                f"`events` of its aggregate, or use Upcast.drop"
            )


def _in_routing(table: str, events: Iterable[type[Message]], routing_key: str) -> Iterator[str]:
    for event in events if routing_key else ():
        if not may_have_routing_key(event, routing_key):
            yield (
                f"{table}: no {event.DESCRIPTOR.full_name} has the routing key {routing_key!r}, so that none would "
                f"come; correct routing_key, or the option in the event's proto"
            )


def in_consumers(known: Sequence[Consumer], new: Sequence[Consumer], schema: Schema) -> Iterator[str]:
    """What is wrong with new consumers of a service, by themselves and beside those that it has.

    ``schema``: the service's.
    """
    before = list(known)
    for consumer in new:
        name = consumer.name
        if any(other.name == name for other in before):
            yield (
                f"two consumers are called {name!r} and would share one checkpoint, so that each loses the events that "
                f"the other has handled; put the rules of Policies of one log into one table, or give one of them "
                f"another actor (a Projection: another name, a ReadModel: a name)"
            )
        if name in OWN_WORK or not name:
            yield f"consumer {name!r} has the name of a task of the service itself; rename it"
        if not LOG_NAME.fullmatch(consumer.source):
            yield f"consumer {name!r} reads log {consumer.source!r}, which no log can be called; correct its log"
        if isinstance(consumer, Projection):
            yield from _in_projection(consumer, [p for p in before if isinstance(p, Projection)])
            for view in consumer.tables:
                yield from in_old_types(f"view {view.name!r}", view.wanted, schema)
            if schema.fingerprint and consumer.schema.fingerprint != schema.fingerprint:
                yield (
                    f"projection {name!r} has not the upcasters of its service, and would read old events as they "
                    f"are; give it schema=service.schema"
                )
        before.append(consumer)


def _in_projection(projection: Projection, others: Sequence[Projection]) -> Iterator[str]:
    if not projection.says_source:
        yield f"projection {projection.name!r} does not say which log it projects; pass source=, or call it service.log"
    if not projection.tables:
        yield f"projection {projection.name!r} has no view; give it one, or leave it out"
    for name, times in Counter(view.table for view in projection.tables).items():
        if times > 1:
            yield f"projection {projection.name!r} has {times} views on table {name!r}; make them one view"
    for view in projection.tables:
        if view.table in OWN_TABLES:
            yield f"view {view.name!r} has the name of a table of Twinlog's own in the same database; rename it"
        yield from _in_view(view)
        yield from _in_routing(f"view {view.name!r}", view.wanted, projection.projected_key)
        for other in others:
            theirs = next((their for their in other.tables if their.table == view.table), None)
            if theirs and other.store.log is projection.store.log and not (view.shares and theirs.shares):
                yield (
                    f"projections {other.name!r} and {projection.name!r} both keep table {view.table!r} and would "
                    f"overwrite each other's rows; declare the view with shared=True in both, or keep two tables"
                )
    yield from projection.store_mistakes()


def _in_view(view: AnyView) -> Iterator[str]:
    of = f"view {view.name!r}"
    yield from in_functions(of, {"key": view.key}, ("the record", "the event"), may_yield=True)
    evolving = {"evolve": view.evolve, **named(view.rules or {})}
    yield from in_functions(of, evolving, ("the row", "the record", "the event"))
    if view.each:
        yield from in_functions(of, {"each": view.each}, ("the key", "the row", "the record", "the event"))
    if not view.events:
        yield (
            f"{of} does not say which events it is about, so that every type that this program does not know would be "
            f"set aside, with what follows; give it rules= by event type, or events=, such as events=[RoomAdded] "
            f"(events=[Message]: every event there is)"
        )
    if view.evolve is unchanged and not view.each:
        yield f"{of} says of no event what the row is after it; give it rules=, evolve= or each="
    if view.created_by and view.wanted and view.created_by not in view.wanted:
        yield (
            f"{of}: {view.created_by.DESCRIPTOR.full_name}, which is to make its rows, is not among the events that it "
            f"is about; add it to them, or leave created_by out"
        )


def in_sagas(sagas: Sequence[SagaAggregate], consumers: Sequence[Consumer]) -> Iterator[str]:
    """What is wrong with the sagas of a service, by what it has subscribed when it begins to serve."""
    actors = {consumer.actor for consumer in consumers}
    for saga in sagas:
        yield from _in_kept_events(saga)
        if saga.current.sources and not any(actor.endswith(f".{saga.name}") for actor in actors):
            yield (
                f"saga {saga.current.name!r} is declared and not subscribed, so that it would hear of no event; call "
                f"service.subscribe with it before serve, or leave out its sources where policies of your own feed it"
            )


def in_read_models(read_models: Sequence[Collection[str]], consumers: Sequence[Consumer]) -> Iterator[str]:
    """Read models that nothing feeds, by the names of their consumers."""
    known = {consumer.name for consumer in consumers}
    for names in read_models:
        for name in sorted({*names} - known):
            yield (
                f"a ReadModel waits for a consumer {name!r}, and none is subscribed, so that its views would stay as "
                f"they are; call its subscribe(), or subscribe a Projection of that name, before serve"
            )


def _in_kept_events(saga: SagaAggregate) -> Iterator[str]:
    """What a saga keeps of events, it keeps in its own stream: there nobody could tell whom they are about."""
    for event in dict.fromkeys(each for types in saga.current.sources.values() for each in types):
        fields = personal_fields(event.DESCRIPTOR)
        if fields and fields.own and not fields.subject:
            yield (
                f"saga {saga.current.name!r} keeps {fields.type}, whose personal fields do not say whose they are; "
                f"mark the field that names the person with (twinlog.v1.subject)"
            )


def _in_methods(service: ServiceDescriptor) -> Iterator[str]:
    """Outcomes of requests are stored as they are, under the request's id."""
    for method in service.methods:
        if "request_id" in method.input_type.fields_by_name and has_own(method.output_type.full_name):
            yield (
                f"{method.full_name} is given a request_id, so its outcome is stored, and "
                f"{method.output_type.name} has personal fields; leave them out of it"
            )


def in_registrations(registrations: Sequence[Registration]) -> Iterator[str]:
    """What is wrong with the gRPC services that are to be served."""
    if others := [each for each in registrations if not (isinstance(each, tuple) and len(each) == 3)]:
        yield (
            f"{shown(others[0])} cannot be served; give a servicer that derives from a generated class, such as "
            f"RoomServiceServicer"
        )
        return
    for name, times in Counter(name for _, _, name in registrations).items():
        if times > 1:
            yield f"gRPC service {name} is served {times} times; serve it once"
        try:
            yield from _in_methods(descriptor_pool.Default().FindServiceByName(name))
        except KeyError:
            yield f"gRPC service {name!r} is in no proto that is imported; use its full name, package.Service"
