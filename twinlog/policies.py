"""Policies: what a service does about the events of another log, or of its own.

A policy is a table: event type → the command it calls for. All commands of a delivered batch, and the move of
the checkpoint, are one unit of work of the service's writer: the effect of each event happens exactly once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from google.protobuf.message import Message

from twinlog import parking
from twinlog.dead_letters import DEAD_LETTERS, DeadLetters, Discard, FailReplay, Failure, Named, Park, Replay
from twinlog.dead_letters import Command as LetterCommand
from twinlog.decider import AnyAggregate
from twinlog.event import Metadata, Recorded
from twinlog.log import Log, Move
from twinlog.schema import Schema
from twinlog.tags import has_tag, tag_of
from twinlog.transaction import Transaction
from twinlog.writer import Writer


class Step(NamedTuple):
    """A command for one aggregate."""

    aggregate: AnyAggregate
    id: str
    command: Any
    new: bool = False
    """Whether the aggregate should not exist yet."""


@dataclass(frozen=True)
class Target:
    """The aggregate that a command is for; made by :func:`on`."""

    aggregate: AnyAggregate
    id: str

    def do(self, command: Any) -> Step:
        """The command, addressed."""
        return Step(self.aggregate, self.id, command)

    def create(self, command: Any) -> Step:
        """The same, where it should be the first: it saves looking. If it is not, it is decided on what there is."""
        return Step(self.aggregate, self.id, command, new=True)


def on(aggregate: AnyAggregate, id: str) -> Target:
    """``on(CUSTOMER, e.customer_id).do(ReserveCredit(...))``"""
    return Target(aggregate, id)


Rule = Callable[[Any], Step | Sequence[Step] | None]


@dataclass(frozen=True)
class Policies:
    """The table of one service for one log."""

    log: str
    """The log that is listened to."""
    actor: str
    """Who acts; goes on the events, and names the consumer."""
    rules: Mapping[type[Message], Rule]
    """What an event calls for: one step, several, or None."""
    tag: str = ""
    """Only events with this tag count (:mod:`twinlog.tags`); empty: all."""

    def __post_init__(self) -> None:
        for event in self.rules if self.tag else ():
            assert has_tag(event), f"{event.DESCRIPTOR.full_name} has no tag: this table would never see it"

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
        if rule is None or (self.tag and tag_of(message) != self.tag):
            return ()
        steps = rule(message)
        if steps is None:
            return ()
        return (steps,) if isinstance(steps, Step) else steps


class PolicyHandler:
    """Runs policies as the handler of a cursor."""

    def __init__(self, policies: Policies, writer: Writer, log: Log, schema: Schema | None = None) -> None:
        """``log`` is the service's own, which keeps the checkpoint and the dead letters."""
        self.consumer = policies.consumer
        self.source = policies.log
        self.types = policies.types
        self.tag = policies.tag
        self.parked = 0
        self._policies = policies
        self._writer = writer
        self._log = log
        self._schema = schema or Schema()

    async def checkpoint(self) -> int:
        return await self._log.checkpoint(self.consumer)

    async def handle(self, events: Sequence[Recorded], after: int) -> int:
        """Does what the events call for and moves the checkpoint, in one transaction; parks what it cannot do.

        Events that call for nothing leave the checkpoint where it is: seeing them again does no harm.
        """
        return await parking.handle(self, events, after)

    async def attempt(self, events: Sequence[Recorded], after: int) -> int:
        called_for = [(event, steps) for event in events if (steps := self._steps(event))]
        if not called_for:
            return after
        move = Move(self.consumer, after, events[-1].position)
        outcome = await self._writer.execute(
            lambda transaction: self._do_all(transaction, called_for),
            move=move,
            hint=[
                (DEAD_LETTERS, self.consumer),
                *[(step.aggregate, step.id) for _, steps in called_for for step in steps],
            ],
            new=[(step.aggregate, step.id) for _, steps in called_for for step in steps if step.new],
        )
        self.parked = outcome.result
        return move.upto

    async def park(self, event: Recorded, failure: Failure, after: int) -> int:
        move = Move(self.consumer, after, event.position)
        command = Park(self.consumer, event, failure)
        await self._decide(command, event.causing(self._policies.actor), move)
        return move.upto

    async def dead_letters(self) -> DeadLetters:
        outcome = await self._writer.execute(
            lambda transaction: transaction.state(DEAD_LETTERS, self.consumer),
            hint=[(DEAD_LETTERS, self.consumer)],
        )
        self.parked = outcome.result.count
        return outcome.result

    async def replay(self, event: Recorded, metadata: Metadata) -> None:
        steps = self._steps(event)

        def work(transaction: Transaction) -> int:
            letter = Named(self.consumer, event.log, event.position, event.partition_key)
            dead = transaction.do(DEAD_LETTERS, self.consumer, Replay(letter), metadata)
            self._do(transaction, event, steps)
            return dead.count

        outcome = await self._writer.execute(work, hint=[(step.aggregate, step.id) for step in steps])
        self.parked = outcome.result

    async def note(self, command: FailReplay | Discard, metadata: Metadata) -> None:
        await self._decide(command, metadata)

    async def _decide(self, command: LetterCommand, metadata: Metadata, move: Move | None = None) -> None:
        outcome = await self._writer.execute(
            lambda transaction: transaction.do(DEAD_LETTERS, self.consumer, command, metadata), move=move
        )
        self.parked = outcome.result.count

    def _steps(self, event: Recorded) -> Sequence[Step]:
        return [step for message in self._schema.decode(event) for step in self._policies.steps(message)]

    def _do_all(self, transaction: Transaction, called_for: Sequence[tuple[Recorded, Sequence[Step]]]) -> int:
        """Gives how many events are parked then."""
        dead = transaction.state(DEAD_LETTERS, self.consumer)
        for event, steps in called_for:
            if event.partition_key in dead.parked:
                cause = event.causing(self._policies.actor)
                dead = transaction.do(DEAD_LETTERS, self.consumer, Park(self.consumer, event), cause)
            else:
                self._do(transaction, event, steps)
        return dead.count

    def _do(self, transaction: Transaction, event: Recorded, steps: Sequence[Step]) -> None:
        metadata = event.causing(self._policies.actor)
        for step in steps:
            transaction.do(step.aggregate, step.id, step.command, metadata)
