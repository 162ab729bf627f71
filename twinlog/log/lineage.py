"""Lineage: whether a log and its stream tell the same history.

A failover to a server that lacks the last commits, or a restore in place, takes events out of a log that its stream
still holds, and that other services have acted on. If the log grows on from there, it tells another history: a fork. It
is noticed by the ids of events. Each append names an event that its process knows of the log, and the log refuses it if
that event is gone; a process that has not appended yet compares the log with its stream first.
"""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress
from typing import NamedTuple, Protocol, runtime_checkable
from uuid import UUID

import structlog

from twinlog._aio.retrying import Randomness, Retrying
from twinlog.log import say
from twinlog.log.ports import Log, Tip
from twinlog.log.twin import (
    HeadAstray,
    LogForked,
    SizeLimited,
    Twin,
    TwinDamaged,
    TwinMissing,
    TwinState,
    mirrors,
    not_its_event,
)
from twinlog.log.wire import event_id_of
from twinlog.model.errors import ConfigurationError, Unavailable
from twinlog.model.event import Recorded


class Common(NamedTuple):
    """The last event that a log and its stream are known to share."""

    position: int
    """0: none."""
    event_id: UUID | None


NOTHING = Common(0, None)


@runtime_checkable
class KnowsHead(Protocol):
    """A log that keeps its head apart from its events, so that the two can differ."""

    async def head_astray(self) -> HeadAstray | None:
        """That the head of the log is not at its last event; None: it is. Raises Unavailable."""

    async def last(self) -> int:
        """The position of the last event that is there, whatever the head says. Raises Unavailable."""


@runtime_checkable
class TrimmedLog(Protocol):
    """A log that knows how far its stream is trimmed: what comes before is archived, and every consumer handled it."""

    async def trimmed(self) -> int:
        """The position up to which the stream is trimmed; 0: it has every event."""


class Lineage:
    """What this process knows of the history of its service's log."""

    def __init__(self, log: Log, twin: Twin, *, randomness: Randomness = random) -> None:
        self._log = log
        self._twin = twin
        self._limited = twin if isinstance(twin, SizeLimited) else None  # once: each batch asks
        self._turn = asyncio.Lock()
        self._verified = asyncio.Condition()
        self._doubted = asyncio.Event()
        self._doubted.set()
        self._outgrown = asyncio.Event()
        self.known: Tip | None = None
        """What the log had when it was last looked at, and has to have still."""
        self.breaks = 0
        """How often the log turned out not to have what was known of it: whatever was read before is void."""
        self._retrying = Retrying(
            say_failing=say.error("writer.refusing", log=log.name),
            say_working=say.info("writer.accepting", log=log.name),
            on=(Exception,),  # until it can be compared, no command is accepted, which shows
            randomness=randomness,
        )

    @property
    def most_bytes(self) -> int:
        """How large the payload of an event may be: its stream has to take it. 0: of any size."""
        return self._limited.most_bytes if self._limited else 0

    @property
    def problem(self) -> str | None:
        """Current fault, or None while healthy."""
        return self._retrying.problem

    async def run(self) -> None:
        """Compares at the start, and whenever there are doubts, until log and stream agree."""
        async with asyncio.TaskGroup() as tasks:
            if self._limited:
                tasks.create_task(self._learn(self._limited))
            while True:
                await self._doubted.wait()
                await self._retrying(self.verify)

    async def verify(self) -> None:
        """Compares log and stream where they are in doubt. Raises LogForked, Unavailable."""
        if self._in_doubt():
            await self._compare()

    async def _compare(self) -> None:
        async with self._turn:
            while self._in_doubt():  # a comparison may itself make a connection
                self.known = await self._compared()
                self._doubted.clear()
            async with self._verified:
                self._verified.notify_all()

    async def repaired(self, since: int) -> int:
        """Returns when an era after ``since`` is known to have begun, with its number."""
        async with self._verified:
            await self._verified.wait_for(lambda: self.known is not None and self.known.era > since)
            assert self.known
            return self.known.era

    def outgrown(self) -> None:
        """An event was too large for its stream: whether it still would be is asked."""
        self._outgrown.set()

    async def _learn(self, limited: SizeLimited) -> None:
        while True:
            await self._outgrown.wait()
            self._outgrown.clear()
            with suppress(Unavailable, ConfigurationError):  # it shows elsewhere
                await limited.learn_most_bytes()

    def committed(self, event: Recorded) -> None:
        """Takes in the newest event of the log."""
        if self.known is not None:
            self.known = self.known._replace(position=event.position, event_id=event.event_id)

    def doubt(self) -> None:
        """Has the next append compare first."""
        self._doubted.set()

    def _in_doubt(self) -> bool:
        known = self.known
        return known is None or self._doubted.is_set() or known.connections != self._log.connections

    async def _compared(self) -> Tip:
        await refuse_astray(self._log)
        connections, era, known = self._log.connections, await self._log.era(), self.known
        if known and not (known.era == era and await self._holds(known)):
            # Even where nobody else has seen what is gone: commands were answered by it.
            structlog.get_logger().error("log.history_broken", log=self._log.name, known=known.position)
            self.known = known = None
            self.breaks += 1
        try:
            common = await compare(self._log, self._twin, await self._twin.state())
        except (TwinMissing, TwinDamaged):  # the relay's business: the log itself is as good as ever
            common = NOTHING
        if known and known.position > common.position:
            common = Common(known.position, known.event_id)
        return Tip(era, *common, connections)

    async def _holds(self, tip: Tip) -> bool:
        if not tip.position:
            return True
        return any(event.event_id == tip.event_id for event in await self._log.read(tip.position - 1, 1))


async def refuse_astray(log: Log) -> None:
    """Raises HeadAstray where the log does not end where it says: what was appended would lie on or beyond a gap."""
    if isinstance(log, KnowsHead) and (astray := await log.head_astray()):
        raise astray


async def trimmed(log: Log) -> int:
    """How far the stream of a log is trimmed; 0 where that is not known."""
    return max(await log.trimmed(), 0) if isinstance(log, TrimmedLog) else 0


async def compare(log: Log, twin: Twin, state: TwinState) -> Common:
    """The last event of the stream, which has to be the log's; ``state`` was read before.

    Raises LogForked where the log has another event in its place or none, TwinDamaged where the message is no event.
    """
    if not state.last:
        return NOTHING
    head = await log.head()
    if (newest := await _newest(twin, state, state.first, state.last)) is None:
        return NOTHING  # nothing is left of it
    last, theirs = newest
    if last > head and event_id_of(theirs, last) is None:
        raise not_its_event(twin.name, last)
    if last > head:
        why = f"the stream has {state.last} events, the log only {head}: the database was set back"
        raise LogForked(log=log.name, since=await first_difference(log, twin, state, head), why=why)
    ours = await _event(log, last)
    if mirrors(theirs, ours):
        return Common(ours.position, ours.event_id)
    if event_id_of(theirs, last) in (None, ours.event_id):
        raise not_its_event(twin.name, last)
    why = f"event {last} of the log is not the one in the stream: the database was set back"
    raise LogForked(log=log.name, since=await first_difference(log, twin, state, last), why=why)


async def first_difference(log: Log, twin: Twin, state: TwinState, last: int) -> int:
    """The first position up to ``last`` at which log and stream have different events, by bisection; else the next."""
    same, differs = state.first - 1, last + 1
    while differs - same > 1:
        middle = (same + differs) // 2
        theirs = await _newest(twin, state, same + 1, middle)
        if theirs is None or event_id_of(theirs[1], theirs[0]) == (await _event(log, theirs[0])).event_id:
            same = middle
        else:
            differs = theirs[0]
    return differs


async def _newest(twin: Twin, state: TwinState, first: int, last: int) -> tuple[int, bytes] | None:
    """The last message between two positions that is there, with its own: somebody may have taken out others."""
    for position in range(last, max(first, last - state.holes) - 1, -1):
        if (message := await twin.message(position)) is not None:
            return position, message
    return None


async def _event(log: Log, position: int) -> Recorded:
    for event in await log.read(position - 1, 1):
        return event
    raise Unavailable(f"log {log.name} is being set back")
