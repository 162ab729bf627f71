"""The tables of sagas as twinlog.v1.InspectionService describes them."""

from __future__ import annotations

import typing
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message

from twinlog.model.aggregate import AnyAggregate
from twinlog.model.routing import NO_ROUTING_KEY, routing_key_of
from twinlog.model.saga_aggregate import SagaAggregate
from twinlog.model.saga_fingerprint import fingerprint_of
from twinlog.model.saga_step import Backoff, Step
from twinlog.model.saga_table import Saga
from twinlog.v1 import inspection_pb2 as pb
from twinlog.v1 import options_pb2


def saga_tables(aggregates: Sequence[AnyAggregate]) -> Iterator[pb.SagaTable]:
    """Those of the sagas among some aggregates, by name and version."""
    sagas = [each for each in aggregates if isinstance(each, SagaAggregate)]
    for aggregate in sorted(sagas, key=lambda each: each.current.name):
        for version in sorted(aggregate.versions):
            yield _table(aggregate, aggregate.versions[version])


def _table(aggregate: SagaAggregate, saga: Saga) -> pb.SagaTable:
    return pb.SagaTable(
        saga=saga.name,
        aggregate=aggregate.name,
        version=saga.version,
        newest=saga is aggregate.current,
        starts_with=_name(saga.starts_with),
        steps=[_step(saga, step) for step in saga.steps],
        on_compensated=_step(saga, saga.on_compensated) if saga.on_compensated else None,
        interrupted_by=[_name(event) for event in saga.interrupted_by],
        sources=[
            pb.SagaSource(log=log, types=[_name(each) for each in types])
            for log, types in saga.sources.items()
        ],
        backoff=_backoff(saga.backoff),
        fingerprint=fingerprint_of(saga),
    )


def _step(saga: Saga, step: Step) -> pb.SagaTableStep:
    command, undo = _made_by(step.send), _made_by(step.undo)
    return pb.SagaTableStep(
        name=step.name,
        kind=_kind(step),
        command=_name(command),
        owner=_owner(command) or _owner(undo),
        done=_name(step.done),
        refused=_name(step.refused),
        transient=_name(step.transient) if isinstance(step.transient, type) else "",
        some_refusals_pass=step.transient is not None and not isinstance(step.transient, type),
        answered_by=next((log for log, types in saga.sources.items() if step.done in types), ""),
        can_be_undone=step.undo is not None,
        undo=_name(undo),
        undone=_name(step.undone),
        group=step.group,
        conditional=step.when is not None,
        deadline=_duration(step.deadline),
        deadline_from_trigger=callable(step.deadline),
        lasts=_duration(step.lasts),
        lasts_from_trigger=callable(step.lasts),
        retries=step.retries,
        backoff=_backoff(step.backoff),
        no_return=step.no_return,
    )


def _kind(step: Step) -> pb.SagaStepKind.ValueType:
    if step.lasts is not None:
        return pb.SAGA_STEP_KIND_TIME
    return pb.SAGA_STEP_KIND_COMMAND if step.send else pb.SAGA_STEP_KIND_SIGNAL


def _made_by(make: Callable[..., Message] | None) -> type[Message] | None:
    """The type of the commands that a function makes, where it declares it."""
    if make is None:
        return None
    try:
        made = typing.get_type_hints(make).get("return")
    except Exception:  # a name that only a type checker imports, or no function with annotations at all
        return None
    return made if isinstance(made, type) and issubclass(made, Message) and made is not Message else None


def _owner(command: type[Message] | None) -> str:
    """The routing key that all commands of a type have; empty where there is none."""
    if command is None or not command.DESCRIPTOR.GetOptions().Extensions[options_pb2.tagged]:
        return ""
    key = routing_key_of(command())
    return "" if key == NO_ROUTING_KEY else key


def _backoff(backoff: Backoff | None) -> pb.SagaBackoff | None:
    if backoff is None:
        return None
    return pb.SagaBackoff(
        first=_duration(backoff.first), most=_duration(backoff.most), attention_after=backoff.attention_after
    )


def _duration(value: Any) -> Duration | None:
    if not isinstance(value, timedelta):
        return None
    duration = Duration()
    duration.FromTimedelta(value)
    return duration


def _name(type: type[Message] | None) -> str:
    return type.DESCRIPTOR.full_name if type else ""
