"""Policies: what a service does about the events of another log, or of its own.

A policy is a table: event type → the command it calls for. All commands of a delivered batch, and the move of
the checkpoint, are one unit of work of the service's writer: the effect of each event happens exactly once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from google.protobuf.message import Message

from twinlog.decider import AnyAggregate
from twinlog.event import Metadata, Recorded
from twinlog.log import Log, Move
from twinlog.schema import Schema
from twinlog.transaction import Transaction
from twinlog.writer import Writer


class Step(NamedTuple):
    """A command for one aggregate."""

    aggregate: AnyAggregate
    id: str
    command: Any


@dataclass(frozen=True)
class Target:
    """The aggregate that a command is for; made by :func:`on`."""

    aggregate: AnyAggregate
    id: str

    def do(self, command: Any) -> Step:
        """The command, addressed."""
        return Step(self.aggregate, self.id, command)


def on(aggregate: AnyAggregate, id: str) -> Target:
    """``on(CUSTOMER, e.customer_id).do(ReserveCredit(...))``"""
    return Target(aggregate, id)


Rule = Callable[[Any], Step | Sequence[Step] | None]


def _always(_event: Any) -> bool:
    return True


@dataclass(frozen=True)
class Policies:
    """The table of one service for one log."""

    log: str
    """The log that is listened to."""
    actor: str
    """Who acts; goes on the events, and names the consumer."""
    rules: Mapping[type[Message], Rule]
    """What an event calls for: one step, several, or None."""
    when: Callable[[Any], bool] = _always
    """Which events count at all."""

    @property
    def consumer(self) -> str:
        """The checkpoint's name."""
        return f"{self.actor}.{self.log}"

    @property
    def types(self) -> Sequence[str]:
        """Short names of the event types that have a rule."""
        return [event.DESCRIPTOR.name for event in self.rules]

    def steps(self, message: Message) -> Sequence[Step]:
        """What an event calls for."""
        rule = self.rules.get(type(message))
        if rule is None or not self.when(message):
            return ()
        steps = rule(message)
        if steps is None:
            return ()
        return (steps,) if isinstance(steps, Step) else steps


class PolicyHandler:
    """Runs policies as the handler of a cursor."""

    def __init__(self, policies: Policies, writer: Writer, log: Log, schema: Schema | None = None) -> None:
        """``log`` is the service's own, which keeps the checkpoint."""
        self.consumer = policies.consumer
        self.types = policies.types
        self._policies = policies
        self._writer = writer
        self._log = log
        self._schema = schema or Schema()

    async def checkpoint(self) -> int:
        return await self._log.checkpoint(self.consumer)

    async def handle(self, events: Sequence[Recorded], after: int) -> int:
        """Does what the events call for and moves the checkpoint, in one transaction.

        Events that call for nothing leave the checkpoint where it is: seeing them again does no harm.
        """
        steps = [(step, event) for event in events for step in self._steps(event)]
        if not steps:
            return after
        move = Move(self.consumer, after, events[-1].position)
        causes = [(step, event.causing(self._policies.actor)) for step, event in steps]
        await self._writer.execute(
            lambda transaction: _do_all(transaction, causes),
            move=move,
            hint=[(step.aggregate, step.id) for step, _ in steps],
        )
        return move.upto

    def _steps(self, event: Recorded) -> Sequence[Step]:
        return [step for message in self._schema.decode(event) for step in self._policies.steps(message)]


def _do_all(transaction: Transaction, causes: Sequence[tuple[Step, Metadata]]) -> None:
    for step, metadata in causes:
        transaction.do(step.aggregate, step.id, step.command, metadata)
