"""Policies: what a service does about the events of another log, or of its own.

A policy is a table: event type → the command it calls for. All commands of a delivered batch, and the move of
the checkpoint, are one unit of work of the service's writer: the effect of each event happens exactly once.
"""

from __future__ import annotations

from collections.abc import Sequence

from twinlog.consume import dead_lettering as parking
from twinlog.consume.dead_letters import (
    DEAD_LETTERS,
    DeadLetters,
    Discard,
    FailReplay,
    Failure,
    Named,
    Park,
    Replay,
)
from twinlog.consume.dead_letters import Command as LetterCommand
from twinlog.log.ports import CheckpointAdvance, Log
from twinlog.log.transaction import Transaction
from twinlog.log.writer import Writer
from twinlog.model.event import Metadata, Recorded
from twinlog.model.policies import Dispatch, Policies
from twinlog.model.schema import Schema


class PolicyHandler:
    """Runs policies as the handler of a cursor."""

    def __init__(self, policies: Policies, writer: Writer, log: Log, schema: Schema) -> None:
        """``log`` is the service's own, which keeps the checkpoint and the dead letters."""
        self.consumer = policies.consumer
        self.source = policies.log
        self.types = schema.stored_types(policies.types)
        self.routing_key = policies.routing_key
        self.parked = 0
        self._policies = policies
        self._writer = writer
        self._log = log
        self._schema = schema

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
        advance = CheckpointAdvance(self.consumer, after, events[-1].position)
        outcome = await self._writer.execute(
            lambda transaction: self._do_all(transaction, called_for),
            advance=advance,
            preload=[
                (DEAD_LETTERS, self.consumer),
                *[(step.aggregate, step.id) for _, steps in called_for for step in steps],
            ],
            assume_empty=[
                (step.aggregate, step.id) for _, steps in called_for for step in steps if step.assume_empty
            ],
        )
        self.parked = outcome.result
        return advance.upto

    async def park(self, event: Recorded, failure: Failure, after: int) -> int:
        advance = CheckpointAdvance(self.consumer, after, event.position)
        command = Park(self.consumer, event, failure)
        await self._decide(command, event.causing(self._policies.actor), advance)
        return advance.upto

    async def dead_letters(self) -> DeadLetters:
        outcome = await self._writer.execute(
            lambda transaction: transaction.state(DEAD_LETTERS, self.consumer),
            preload=[(DEAD_LETTERS, self.consumer)],
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

        outcome = await self._writer.execute(work, preload=[(step.aggregate, step.id) for step in steps])
        self.parked = outcome.result

    async def note(self, command: FailReplay | Discard, metadata: Metadata) -> None:
        await self._decide(command, metadata)

    async def _decide(
        self, command: LetterCommand, metadata: Metadata, advance: CheckpointAdvance | None = None
    ) -> None:
        outcome = await self._writer.execute(
            lambda transaction: transaction.do(DEAD_LETTERS, self.consumer, command, metadata),
            advance=advance,
        )
        self.parked = outcome.result.count

    def _steps(self, event: Recorded) -> Sequence[Dispatch]:
        return [step for message in self._schema.decode(event) for step in self._policies.dispatches(message)]

    def _do_all(
        self, transaction: Transaction, called_for: Sequence[tuple[Recorded, Sequence[Dispatch]]]
    ) -> int:
        """Gives how many events are parked then."""
        dead = transaction.state(DEAD_LETTERS, self.consumer)
        for event, steps in called_for:
            if event.partition_key in dead.parked:
                cause = event.causing(self._policies.actor)
                dead = transaction.do(DEAD_LETTERS, self.consumer, Park(self.consumer, event), cause)
            else:
                self._do(transaction, event, steps)
        return dead.count

    def _do(self, transaction: Transaction, event: Recorded, steps: Sequence[Dispatch]) -> None:
        metadata = event.causing(self._policies.actor)
        for step in steps:
            transaction.do(step.aggregate, step.id, step.command, metadata)
