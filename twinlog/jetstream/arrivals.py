"""What a delivery has asked for and what has come of it: events that wait to be taken, and whether more will come."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Sequence
from enum import Enum, auto

from twinlog.log.twin import DeliveryLost, TwinDamaged
from twinlog.model.event import Recorded

_SECOND = 1_000_000_000
_AHEAD = 2_000
"""Messages on their way and waiting to be taken, at most."""
_EXPIRES_SECONDS = 30.0


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


class Pulls:
    """Long-lived pulls: a new one is due when half of what was asked for has come."""

    def __init__(self) -> None:
        self.delivered = 0
        """The consumer's sequence of the last message that came."""
        self._outstanding = 0

    def due(self, waiting: int) -> int:
        """How many messages to ask for now, while so many wait to be taken."""
        return max(0, _AHEAD - self._outstanding - waiting) if self._outstanding < _AHEAD // 2 else 0

    def request(self, count: int, heartbeat_seconds: float) -> bytes:
        """The request for so many messages, which counts from now on."""
        self._outstanding += count
        request = {
            "batch": count,
            "expires": int(_EXPIRES_SECONDS * _SECOND),
            "idle_heartbeat": int(heartbeat_seconds * _SECOND),
        }
        return json.dumps(request).encode()

    def came(self, number: int) -> bool:
        """Counts a message by the consumer's sequence; False where one before it is missing."""
        if number != self.delivered + 1:
            return False
        self.delivered = number
        self._outstanding -= 1
        return True

    def expired(self, missing: int) -> None:
        """A pull has ended, with so many of its messages missing."""
        self._outstanding -= missing
