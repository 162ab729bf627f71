"""The events that have come and wait to be taken, and the state of the delivery that they came by."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from enum import Enum, auto

from twinlog.log.twin import DeliveryLost, TwinDamaged
from twinlog.model.event import Recorded


class State(Enum):
    """What has to happen before a delivery hands out its next events."""

    FOLLOWING = auto()
    """Nothing: every wanted event has come."""
    DOUBTFUL = auto()
    """The stream has to be asked: a wanted event may be gone from between those that came."""
    LOST = auto()
    """A new delivery: after the events that have come, no more will."""
    DAMAGED = auto()
    """A repair: after the events that have come lies a message that is not the event it should be."""


class Arrivals:
    """A queue with an end. Events that came before the end are still handed out."""

    def __init__(self) -> None:
        self.state = State.FOLLOWING
        self.loss: DeliveryLost | TwinDamaged | None = None
        """Why no more will come; also while a doubt has to be settled first."""
        self._events: deque[Recorded] = deque()
        self.put = self._events.append
        self._changed = asyncio.Event()
        self.wake = self._changed.set
        """Something was heard of the delivery."""

    def __len__(self) -> int:
        return len(self._events)

    def take(self, limit: int) -> Sequence[Recorded]:
        return [self._events.popleft() for _ in range(min(limit, len(self._events)))]

    def doubt(self) -> None:
        """The stream has to be asked before any event is handed out."""
        if not self.loss:
            self.state = State.DOUBTFUL

    def settle(self) -> None:
        """The stream is being asked."""
        self.state = self._state_lost() if self.loss else State.FOLLOWING

    def end(self, why: DeliveryLost | TwinDamaged) -> None:
        """No event comes after those that have. The first reason counts; a doubt about them remains."""
        if not self.loss:
            self.loss = why
            if self.state is not State.DOUBTFUL:
                self.state = self._state_lost()
        self.wake()

    async def heard(self, patience_seconds: float) -> None:
        """Waits for a sign of life. Raises the end if there is one, and TimeoutError after ``patience_seconds``."""
        if self.loss:
            raise self.loss
        self._changed.clear()
        async with asyncio.timeout(patience_seconds):
            await self._changed.wait()

    def _state_lost(self) -> State:
        return State.DAMAGED if isinstance(self.loss, TwinDamaged) else State.LOST
