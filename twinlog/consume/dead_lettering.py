"""What happens to an event that a handler fails on: it is tried again, then parked, and nothing else is held up.

An outage is none of this: it passes through, and the cursor waits for its end, however long that takes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Protocol

import structlog

from twinlog._aio.retrying import backoff
from twinlog.consume.dead_letters import Failure
from twinlog.model.errors import (
    CheckpointMoved,
    ConfigurationError,
    Unavailable,
    UndecodableEvent,
    UnknownEventType,
)
from twinlog.model.event import Recorded

RETRIES, RETRY_FIRST, RETRY_MOST = 5, 0.1, 2.0
"""How often an event that fails is tried again before it is parked, and the seconds between."""

_NOT_THE_EVENTS_FAULT = (Unavailable, CheckpointMoved, ConfigurationError)
_NOT_MENDED_BY_TRYING = (UnknownEventType, UndecodableEvent)


class Parks(Protocol):
    """A handler that can park events."""

    @property
    def consumer(self) -> str:
        """The checkpoint's name."""
        ...

    async def attempt(self, events: Sequence[Recorded], after: int) -> int:
        """Handles events, in one transaction; those of a key that is parked are parked behind it.

        As :meth:`twinlog.consume.cursor.Handler.handle`.
        """
        ...

    async def park(self, event: Recorded, failure: Failure, after: int) -> int:
        """Parks an event and moves the checkpoint past it, in one transaction. Raises CheckpointMoved."""
        ...


async def handle(handler: Parks, events: Sequence[Recorded], after: int) -> int:
    """Handles events; parks those that the handler keeps failing on. Gives the checkpoint that is stored now.

    A batch that fails is halved until the event is found. All failing events of a batch share one allowance of
    retries: where everything fails, the consumer does not wait for each.
    """
    return await _handle(handler, events, after, islice(backoff(RETRY_FIRST, RETRY_MOST), RETRIES))


async def _handle(handler: Parks, events: Sequence[Recorded], after: int, pauses: Iterator[float]) -> int:
    try:
        return await handler.attempt(events, after)
    except _NOT_THE_EVENTS_FAULT:
        raise
    except Exception as error:
        if len(events) == 1:
            return await _retry(handler, events[0], after, error, pauses)
    middle = len(events) // 2
    after = await _handle(handler, events[:middle], after, pauses)
    return await _handle(handler, events[middle:], after, pauses)


async def _retry(
    handler: Parks, event: Recorded, after: int, error: Exception, pauses: Iterator[float]
) -> int:
    attempts = 1
    while not isinstance(error, _NOT_MENDED_BY_TRYING) and (pause := next(pauses, None)) is not None:
        await asyncio.sleep(pause)
        try:
            return await handler.attempt([event], after)
        except _NOT_THE_EVENTS_FAULT:
            raise
        except Exception as again:
            error, attempts = again, attempts + 1
    failure = Failure.of(error, attempts)
    structlog.get_logger().error(
        "dead_letter.parked",
        consumer=handler.consumer,
        event_address=event.address,
        type=event.type,
        key=event.partition_key,
        attempts=attempts,
        error=failure.error,
        exc_info=error,
    )
    return await handler.park(event, failure, after)
