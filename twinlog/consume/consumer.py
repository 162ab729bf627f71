"""What reads a log and has an effect for each of its events.

    Cursor → DeadLettering → middleware … → Consumer

The cursor delivers batches and knows the checkpoint. :class:`~twinlog.consume.dead_lettering.DeadLettering` decides
which events have their effects, which are retried and which are set aside. The consumer turns events into effects and
commits them: a policy's effects are commands, a projection's are rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from twinlog.consume.dead_letters import DEAD_LETTERS, Command, DeadLetters, DeadLettersChanged
from twinlog.log.ports import Batch, CheckpointAdvance
from twinlog.log.transaction import Transaction
from twinlog.model.clock import Clock, Ids
from twinlog.model.event import Metadata, NewEvent, Recorded, StreamId


@dataclass(frozen=True, slots=True)
class Progress:
    """What a consumer commits in the transaction of its effects.

    A consumer that works through a writer calls :meth:`decide` in its unit of work and passes ``advance`` along. One
    that works through a store passes ``advance`` and :meth:`batch` along.
    """

    consumer: str
    advance: CheckpointAdvance | None
    """None: a replay; the checkpoint stays where it is."""
    clock: Clock
    ids: Ids
    known: DeadLetters | None = None
    """The dead letters that this progress rests on; None while there are none: then nobody but the owner of the
    checkpoint has effects, and the checkpoint is fence enough."""
    commands: Sequence[tuple[Command, Metadata]] = ()
    """What becomes of dead letters."""
    error: Exception | None = None
    """What an event failed with, where a command sets it aside for that."""

    def decide(self, transaction: Transaction) -> None:
        """Records what becomes of dead letters. Raises DeadLettersChanged where they are not the known ones."""
        if self.known is None:
            return
        if transaction.state(DEAD_LETTERS, self.consumer).version != self.known.version:
            raise DeadLettersChanged(consumer=self.consumer)
        for command, metadata in self.commands:
            transaction.do(DEAD_LETTERS, self.consumer, command, metadata)

    def batch(self) -> Batch | None:
        """The same as an append, refused where the dead letters have changed; None while there are none."""
        if self.known is None:
            return None
        stream, dead, events = StreamId(DEAD_LETTERS.name, self.consumer), self.known, []
        for command, metadata in self.commands:
            for message in DEAD_LETTERS.decide(dead, command):
                dead = DEAD_LETTERS.evolve(dead, message)
                key = DEAD_LETTERS.partition_key(dead)
                events.append(NewEvent.of(stream, dead.version, self.ids.uuid7(), message, metadata, key))
        return Batch(self.clock.now(), {stream: self.known.version}, events)


class Consumer(Protocol):
    """Has the effects of events, each exactly once."""

    @property
    def name(self) -> str:
        """Names the checkpoint, the lease and the dead letters."""

    @property
    def source(self) -> str:
        """The log that it reads."""

    @property
    def types(self) -> Sequence[str]:
        """Short names of the event types that it wants; empty: all."""

    @property
    def routing_key(self) -> str:
        """The routing key that it wants; empty: any."""

    @property
    def actor(self) -> str:
        """Who acts; goes on the events that it causes."""

    async def checkpoint(self) -> int:
        """The position of the last event that had its effects, as stored."""

    def forget(self) -> None:
        """Drops what it remembers of its effects: another replica may have changed them."""

    async def apply(self, events: Sequence[Recorded], progress: Progress) -> int:
        """Has the effects of events, in order, and commits the progress, in one transaction.

        Gives the position of the checkpoint as it is stored then. Where nothing is to be committed but the
        checkpoint's advance, it may stay behind: seeing those events again does no harm.

        Raises CheckpointMoved where the checkpoint is not where the advance begins, DeadLettersChanged where the dead
        letters are not those that the progress rests on, Unavailable in an outage, and anything else for an event
        that it cannot handle. In each case nothing was committed, save that an Unavailable leaves it open.
        """


Middleware = Callable[[Consumer], Consumer]
"""Puts something around a consumer; most derive a class from :class:`ConsumerWrapper`."""


class ConsumerWrapper:
    """A consumer that does what the one inside it does. Override :meth:`apply` to do something around it."""

    def __init__(self, inner: Consumer) -> None:
        self.inner = inner
        self.name = inner.name
        self.source = inner.source
        self.types = inner.types
        self.routing_key = inner.routing_key
        self.actor = inner.actor

    async def checkpoint(self) -> int:
        return await self.inner.checkpoint()

    def forget(self) -> None:
        self.inner.forget()

    async def apply(self, events: Sequence[Recorded], progress: Progress) -> int:
        return await self.inner.apply(events, progress)
