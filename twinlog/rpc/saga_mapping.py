"""Sagas as twinlog.v1.SagaService shows them: from rows of the list, and from tables and states."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from twinlog.model.errors import UndecodableEvent, UnknownEventType
from twinlog.model.event import Recorded
from twinlog.model.routing import NO_ROUTING_KEY
from twinlog.model.saga import SagaInstance
from twinlog.model.saga_list import SagaRow
from twinlog.model.saga_shown import AwaitedAnswer, AwaitedKind, awaited_answers, remaining_steps
from twinlog.model.saga_table import Saga
from twinlog.model.schema import Schema
from twinlog.model.times import timestamp
from twinlog.v1 import saga_service_pb2 as pb


def listed(row: SagaRow) -> pb.Saga:
    return pb.Saga(
        saga=row.saga,
        saga_id=row.saga_id,
        subject=row.subject,
        version=row.version,
        status=row.status,
        reason=row.reason,
        started_at=timestamp(row.started_at),
        updated_at=timestamp(row.updated_at),
    )


def shown(
    table: Saga, instance: SagaInstance, events: Sequence[Recorded], sent: Sequence[Recorded | None]
) -> pb.Saga:
    """One saga, whole; ``events`` are those of its stream, and ``sent`` the command of each awaited answer.

    What is awaited has no progress yet.
    """
    answers = awaited_answers(table, instance)
    return pb.Saga(
        saga=table.name,
        saga_id=events[0].stream.id,
        subject=events[0].partition_key,
        version=instance.version,
        status=_status(instance),
        reason=instance.reason,
        started_at=timestamp(events[0].recorded_at),
        updated_at=timestamp(events[-1].recorded_at),
        steps=_steps(table, instance, {answer.step: answer for answer in answers}),
        awaited=[_awaited(answer, command) for answer, command in zip(answers, sent, strict=True)],
        remaining=remaining_steps(table, instance),
    )


def commands_sent(
    table: Saga, instance: SagaInstance, events: Sequence[Recorded], schema: Schema
) -> list[Recorded | None]:
    """Of each awaited answer the command that it is awaited to, as it was sent last; None where none was."""
    return [
        _sent_for(_command(table, instance, answer), events, schema)
        for answer in awaited_answers(table, instance)
    ]


def _sent_for(command: Message | None, events: Sequence[Recorded], schema: Schema) -> Recorded | None:
    if command is None:
        return None
    wanted = command.DESCRIPTOR.full_name, command.SerializeToString(deterministic=True)
    of_type = [
        (event, payload)
        for event in reversed(events)
        for type, payload in _read_as(event, schema)
        if type == wanted[0]
    ]
    # In a group, two steps may send commands of one type; between tries, what a command is made of may change.
    same = (event for event, payload in of_type if payload == wanted[1])
    return next(same, of_type[0][0] if of_type else None)


def _read_as(event: Recorded, schema: Schema) -> Sequence[tuple[str, bytes]]:
    """The types that an event is read as, and their bytes; what an earlier version sent may be of another type."""
    if not schema.upcasts(event):
        return [(event.type, event.payload)]
    try:
        read = schema.decode(event)
    except (UnknownEventType, UndecodableEvent):
        return []
    return [(each.DESCRIPTOR.full_name, each.SerializeToString(deterministic=True)) for each in read]


def _command(table: Saga, instance: SagaInstance, answer: AwaitedAnswer) -> Message | None:
    step: Any = table.on_compensated if answer.step == len(table.steps) else table.steps[answer.step]
    make = step.undo if answer.kind is AwaitedKind.UNDOING else step.send
    if make is None:
        return None
    try:
        command: Message = make(instance.context)
    except Exception:  # the table's own defect, which shows where the command is to be sent
        return None
    return command


def _awaited(answer: AwaitedAnswer, command: Recorded | None) -> pb.AwaitedAnswer:
    shown = pb.AwaitedAnswer(
        step=answer.name,
        kind=_value(pb.AwaitedKind, "AWAITED_KIND", answer.kind),
        answers=[event.DESCRIPTOR.full_name for event in answer.answers],
    )
    if command:
        shown.command = command.type
        shown.address = command.address
        shown.sent_at.CopyFrom(timestamp(command.recorded_at))
        if command.routing_key != NO_ROUTING_KEY:
            shown.owner = command.routing_key
            shown.consumer = f"{command.routing_key}.{command.log}"
    return shown


def _steps(table: Saga, instance: SagaInstance, answers: dict[int, AwaitedAnswer]) -> Sequence[pb.SagaStep]:
    steps = []
    for number, (step, state) in enumerate(zip(table.steps, instance.steps, strict=True)):
        answer = answers.get(number)
        steps.append(
            pb.SagaStep(
                name=step.name,
                status=_value(pb.SagaStepStatus, "SAGA_STEP_STATUS", state),
                attempts=answer.attempts if answer else 0,
                next_retry=_time(answer.next_retry if answer else None),
                deadline=_time(answer.deadline if answer else None),
            )
        )
    return steps


def _status(instance: SagaInstance) -> pb.SagaStatus.ValueType:
    if instance.needs_attention:
        return pb.SAGA_STATUS_NEEDS_ATTENTION
    return pb.SagaStatus.Value(f"SAGA_STATUS_{instance.status.name}")


def _value(kind: Any, prefix: str, value: StrEnum) -> Any:
    """The value of an enum, 0 where the proto does not know it yet."""
    name = f"{prefix}_{value.name}"
    return kind.Value(name) if name in kind.keys() else 0  # noqa: SIM118  # it is no mapping


def _time(time: datetime | None) -> Timestamp | None:
    return timestamp(time) if time else None
