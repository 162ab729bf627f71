"""A service in a world without faults: what it follows, and whether it has caught up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from twinlog._aio.linger import Linger
from twinlog.consume import Consumer, ConsumerWrapper, Progress
from twinlog.consume.cursor import BATCH, Cursor
from twinlog.log.lease import ALWAYS_HELD
from twinlog.memory.keys import MemoryKeys
from twinlog.memory.log import MemoryLog
from twinlog.memory.twin import MemoryTwin
from twinlog.model.clock import Clock, Ids
from twinlog.model.event import Recorded
from twinlog.service.environment import Environment
from twinlog.service.service import Service
from twinlog.testing.simulation.hosted import Hosted, is_wanted


class Gated(ConsumerWrapper):
    """A consumer that can be held up, as if its service were away."""

    def __init__(self, inner: Consumer, gate: asyncio.Event) -> None:
        super().__init__(inner)
        self._gate = gate

    async def apply(self, events: Sequence[Recorded], progress: Progress) -> int:
        await self._gate.wait()
        return await super().apply(events, progress)


@dataclass
class Follower:
    """A cursor and the log that it reads."""

    log: MemoryLog
    consumer: Consumer
    cursor: Cursor
    gate: asyncio.Event
    examined: int = 0
    wanted: int = 0
    """The last event that it wants, of those examined."""

    def waits(self) -> bool:
        """Whether there is something that it has not handled and may handle."""
        if not self.gate.is_set():
            return False
        for event in self.log.events[self.examined :]:
            self.examined = event.position
            if is_wanted(self.consumer, event):
                self.wanted = event.position
        return self.wanted > self.cursor.position


class Member(Service):
    """A service over memory, whose consumers can be held up."""

    def __init__(
        self,
        hosted: Hosted,
        logs: Mapping[str, MemoryLog],
        twins: Mapping[str, MemoryTwin],
        clock: Clock,
        ids: Ids,
        on_crash: Callable[[str, BaseException], None],
        keys: MemoryKeys,
    ) -> None:
        self.works = asyncio.Event()
        """Cleared: its consumers handle nothing."""
        self.works.set()
        self.followers: list[Follower] = []
        self._logs = logs
        super().__init__(
            hosted.name,
            logs[hosted.spec.log],
            Environment(
                twin=twins.__getitem__,
                lease=lambda _work: ALWAYS_HELD,
                clock=clock,
                ids=ids,
                on_crash=on_crash,
                keys=keys,
            ),
            schema=hosted.spec.schema,
            aggregates=hosted.spec.aggregates,
            middleware=[lambda consumer: Gated(consumer, self.works)],
        )
        hosted.configure(self)

    def _feed(self, consumer: Consumer, linger: Linger, batch: int = BATCH) -> Cursor:
        cursor = super()._feed(consumer, linger, batch)
        self.followers.append(Follower(self._logs[consumer.source], consumer, cursor, self.works))
        return cursor
