"""Messages and tables for tests of sagas as such: commands, answers and undoings of up to four numbered steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import Default
from google.protobuf.message import Message

from twinlog import Aggregate, Saga, SagaInstance, Step
from twinlog.model.messages import message_class
from twinlog.model.saga import Command

STEPS = 4
_PACKAGE = "tests.saga_tables.v1"
_ONCE = ("Trigger", "Interrupt", "Close", "Closed")
_PER_STEP = ("Send", "Done", "Refused", "Undo", "Undone", "Busy")

_ATTEMPT = FieldDescriptorProto(
    name="attempt",
    number=1,
    type=FieldDescriptorProto.TYPE_INT32,
    label=FieldDescriptorProto.LABEL_OPTIONAL,
)

Default().Add(
    FileDescriptorProto(
        name="tests/saga_tables.proto",
        package=_PACKAGE,
        syntax="proto3",
        message_type=[
            DescriptorProto(name=name, field=[_ATTEMPT])
            for name in (*_ONCE, *(f"{word}{number}" for word in _PER_STEP for number in range(STEPS)))
        ],
    )
)


def kind(word: str, number: int | str = "") -> type[Message]:
    """The type of a message: ``kind("Done", 2)`` answers ``kind("Send", 2)``."""
    return message_class(f"{_PACKAGE}.{word}{number}")


def message(word: str, number: int | str = "") -> Message:
    return kind(word, number)()


def makes(word: str, number: int | str = "") -> Callable[[Any], Message]:
    return lambda _context: message(word, number)


def counted(word: str, number: int) -> Callable[[Any], Message]:
    """Makes commands that say which attempt they are."""
    return lambda context: kind(word, number)(attempt=context.attempt)


def step(number: int, *, undo: bool = True, refused: bool = True, **more: Any) -> Step:
    """A step that can be refused and undone, unless it says otherwise."""
    return Step(
        f"step {number}",
        send=makes("Send", number),
        done=kind("Done", number),
        refused=kind("Refused", number) if refused else None,
        undo=makes("Undo", number) if undo else None,
        undone=kind("Undone", number) if undo else None,
        **more,
    )


def table(steps: Sequence[Step], *, version: int = 1, closes: bool = False, **more: Any) -> Saga:
    """A saga of these steps, which an Interrupt interrupts; with a closing command if it ``closes``."""
    closing = Step("close", send=makes("Close"), done=kind("Closed")) if closes else None
    return Saga(
        "table",
        version=version,
        starts_with=kind("Trigger"),
        steps=steps,
        partition_key=lambda _trigger: "one",
        on_compensated=closing,
        interrupted_by={kind("Interrupt"): lambda _event: "interrupted"},
        **more,
    )


def after(sagas: Aggregate[SagaInstance, Command], *commands: Command) -> SagaInstance:
    """The instance after these commands."""
    instance = sagas.initial
    for command in commands:
        instance = sagas.fold(sagas.decide(instance, command), instance)
    return instance


def names(events: Sequence[Message]) -> list[str]:
    return [event.DESCRIPTOR.name for event in events]
