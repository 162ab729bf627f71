"""Policies as a consumer: the effects of an event are the commands that its rule calls for.

All commands of a batch, what becomes of dead letters, and the checkpoint's advance are one unit of work of the
service's writer.
"""

from __future__ import annotations

from collections.abc import Sequence

import structlog
from google.protobuf.message import Message

from twinlog.consume.consumer import Progress
from twinlog.consume.dead_letters import DEAD_LETTERS
from twinlog.log.ports import Log
from twinlog.log.transaction import Transaction
from twinlog.log.writer import Writer
from twinlog.model.effects import Effects
from twinlog.model.event import Recorded
from twinlog.model.policies import Dispatch, Policies
from twinlog.model.saga import Begin, Reply
from twinlog.model.schema import Schema


class ActingConsumer:
    """What policies and effects have in common: which events are theirs, and where their checkpoint is."""

    def __init__(
        self, table: Policies | Effects, actor: str, writer: Writer, log: Log, schema: Schema
    ) -> None:
        """``log``: the service's own, which keeps the checkpoint; ``writer`` is that log's."""
        self.name = table.consumer
        self.source = table.log
        self.types = schema.stored_types(table.types)
        self.routing_key = schema.stored_routing_key(list(table.rules), table.routing_key)
        self.actor = actor
        self._wanted = schema.stored_names(list(table.rules))
        self._writer = writer
        self._log = log
        self._schema = schema

    async def checkpoint(self) -> int:
        return await self._log.checkpoint(self.name)

    def forget(self) -> None:
        """Nothing: the writer keeps its states up to date, and an answer from outside stays true."""

    def _mine(self, events: Sequence[Recorded]) -> Sequence[Recorded]:
        """Events are sent by their short names: a namesake in another package is left out."""
        wanted, types = self._wanted, self.types
        return [each for each in events if each.type in wanted or each.type.rpartition(".")[2] not in types]


class PolicyConsumer(ActingConsumer):
    """Runs a table of policies."""

    def __init__(self, policies: Policies, writer: Writer, log: Log, schema: Schema) -> None:
        super().__init__(policies, policies.actor, writer, log, schema)
        self._policies = policies

    def calls_for_something(self, message: Message) -> bool:
        """Whether an event has any effect, by its message."""
        return bool(self._policies.dispatches(message))

    def called_for(self, events: Sequence[Recorded]) -> Sequence[tuple[Recorded, Sequence[Dispatch]]]:
        """The events that call for something, each with the commands. Raises UnknownEventType and UndecodableEvent."""
        dispatches = self._policies.dispatches
        decoded = self._schema.decode_all(self._mine(events))
        return [(event, steps) for event, message in decoded if (steps := dispatches(message))]

    async def apply(self, events: Sequence[Recorded], progress: Progress) -> int:
        """Where events call for nothing, the checkpoint stays: they may be seen again."""
        if personal := self._writer.personal:
            events = await personal.opened(events)
        called_for = self.called_for(events)
        advance = progress.advance
        if advance and not called_for and not progress.commands:
            return advance.after

        await carry_out(called_for, progress, self._writer, self.actor)
        return advance.upto if advance else 0


async def carry_out(
    called_for: Sequence[tuple[Recorded, Sequence[Dispatch]]], progress: Progress, writer: Writer, actor: str
) -> None:
    """Decides what events call for, and commits the progress, in one transaction."""

    def work(transaction: Transaction) -> None:
        progress.decide(transaction)
        for event, steps in called_for:
            metadata = event.causing(actor)
            for step in steps:
                command = step.command
                if isinstance(command, Reply):
                    command = Reply(command.event, command.now, event.event_id)
                after = transaction.do(step.aggregate, step.id, command, metadata)
                if isinstance(step.command, Begin) and after.trigger != step.command.event:
                    # The decider ignores repeats. This is another event for the same instance: a wrong id, say.
                    structlog.get_logger().warning(
                        "saga.trigger_ignored", saga=step.aggregate.name, id=step.id, trigger=event.address
                    )

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
