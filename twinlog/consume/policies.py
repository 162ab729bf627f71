"""Policies as a consumer: the effects of an event are the commands that its rule calls for.

All commands of a batch, what becomes of dead letters, and the checkpoint's advance are one unit of work of the
service's writer.
"""

from __future__ import annotations

from collections.abc import Sequence

from google.protobuf.message import Message

from twinlog.consume.consumer import Progress
from twinlog.consume.dead_letters import DEAD_LETTERS
from twinlog.log.ports import Log
from twinlog.log.transaction import Transaction
from twinlog.log.writer import Writer
from twinlog.model.event import Recorded
from twinlog.model.policies import Dispatch, Policies
from twinlog.model.schema import Schema


class PolicyConsumer:
    """Runs a table of policies."""

    def __init__(self, policies: Policies, writer: Writer, log: Log, schema: Schema) -> None:
        """``log``: the service's own, which keeps the checkpoint; ``writer`` is that log's."""
        self.name = policies.consumer
        self.source = policies.log
        self.types = schema.stored_types(policies.types)
        self._wanted = schema.stored_names(list(policies.rules))
        self.routing_key = policies.routing_key
        self.actor = policies.actor
        self._policies = policies
        self._writer = writer
        self._log = log
        self._schema = schema

    async def checkpoint(self) -> int:
        return await self._log.checkpoint(self.name)

    def calls_for_something(self, message: Message) -> bool:
        """Whether an event has any effect, by its message."""
        return bool(self._policies.dispatches(message))

    def forget(self) -> None:
        """Nothing: the writer keeps the states that it remembers up to date."""

    async def apply(self, events: Sequence[Recorded], progress: Progress) -> int:
        """Where events call for nothing, the checkpoint stays: seeing them again does no harm."""
        called_for = [(event, steps) for event in events if (steps := self._dispatches(event))]
        advance = progress.advance
        if advance and not called_for and not progress.commands:
            return advance.after

        await carry_out(called_for, progress, self._writer, self.actor)
        return advance.upto if advance else 0

    def _dispatches(self, event: Recorded) -> Sequence[Dispatch]:
        if event.type not in self._wanted and event.type.rpartition(".")[2] in self.types:
            return ()  # a namesake in another package: events are sent by their short names
        return [step for message in self._schema.decode(event) for step in self._policies.dispatches(message)]


async def carry_out(
    called_for: Sequence[tuple[Recorded, Sequence[Dispatch]]], progress: Progress, writer: Writer, actor: str
) -> None:
    """Decides what events call for, and commits the progress, in one transaction."""

    def work(transaction: Transaction) -> None:
        progress.decide(transaction)
        for event, steps in called_for:
            metadata = event.causing(actor)
            for step in steps:
                transaction.do(step.aggregate, step.id, step.command, metadata)

    await writer.execute(
        work,
        advance=progress.advance,
        preload=[
            *([(DEAD_LETTERS, progress.consumer)] if progress.known else []),
            *[(step.aggregate, step.id) for _, steps in called_for for step in steps],
        ],
        assume_empty=[
            (step.aggregate, step.id) for _, steps in called_for for step in steps if step.assume_empty
        ],
    )
