"""Which events of which logs reach a saga's instances: the policies that ``Service.subscribe`` makes of its tables."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

from google.protobuf.message import Message

from twinlog.model.clock import Clock
from twinlog.model.policies import Dispatch, Policies, on
from twinlog.model.saga import Begin, Reply
from twinlog.model.saga_aggregate import SagaAggregate
from twinlog.model.saga_table import Saga, WrongSagaTable


def saga_policies(sagas: SagaAggregate, actor: str, clock: Clock) -> Sequence[Policies]:
    """One table of policies for each log that the saga hears; ``clock`` gives the time from which deadlines count.

    What they do is recorded as done by the service's saga, such as trip_svc.trip_saga. A repair, which works out from
    effects what was handled, so tells it apart from what the service's own policies have done.

    Raises ConfigurationError where a table does not say how its events find their instance, where it names an event
    that comes from no log, and where a log has an event that it does not name.
    """
    starts = {saga.starts_with for saga in sagas.versions.values()}
    for saga in sagas.versions.values():
        if what := _wrong_start(saga, starts) or _wrong_routing(saga):
            raise WrongSagaTable(saga=saga.name, version=saga.version, what=what)
    logs = dict.fromkeys(log for saga in sagas.versions.values() for log in saga.sources)
    id_of = sagas.current.id
    assert id_of is not None

    def rule(type: type[Message]) -> Callable[[Any], Dispatch]:
        def begin(event: Any) -> Dispatch:
            return on(sagas, id_of(event)).create(Begin(event, clock.now()))

        def reply(event: Any) -> Dispatch:
            return on(sagas, id_of(event)).do(Reply(event, clock.now()))

        return begin if type in starts else reply

    return [
        Policies(
            log=log,
            actor=f"{actor}.{sagas.name}",
            rules={type: rule(type) for type in _heard(sagas, log)},
            routing_key=sagas.current.routing_key,
        )
        for log in logs
    ]


def _heard(sagas: SagaAggregate, log: str) -> Sequence[type[Message]]:
    """What any version hears of a log."""
    tables = sagas.versions.values()
    return list(dict.fromkeys(type for saga in tables for type in saga.sources.get(log, ())))


def _wrong_start(saga: Saga, starts: Collection[type[Message]]) -> str:
    for type in saga.answers:
        if type in starts:
            return (
                f"{type.DESCRIPTOR.name} starts instances, and would never be heard as an answer or interruption; let "
                "that be another event"
            )
    return ""


def _wrong_routing(saga: Saga) -> str:
    """What keeps events from their instances, and what to do; empty: nothing."""
    if saga.id is None:
        return "it does not say which instance an event belongs to; give id=, such as id=lambda event: event.order_id"
    wanted = [saga.starts_with, *saga.answers]
    heard = [(log, type) for log, types in saga.sources.items() for type in types]
    for log, type in heard:
        name = type.DESCRIPTOR.name
        if type not in wanted:
            return (
                f"{name} of log {log} is named by no step and no interruption, so it would change nothing; name it in "
                "a step or in interrupted_by, or leave it out of sources"
            )
        if logs := [other for other, same in heard if same is type and other != log]:
            return f"{name} is to come from {log} and from {logs[0]}; say which log has it"
    for type in wanted:
        if type not in [each for _, each in heard]:
            return (
                f"{type.DESCRIPTOR.name} comes from no log, so it would be waited for without end; add it to the types "
                "of its log in sources"
            )
    return ""
