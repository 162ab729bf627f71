"""Middleware: says in the log which events a consumer sets aside, and which replays fail."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import structlog
from structlog.contextvars import bound_contextvars

from twinlog.consume.consumer import ConsumerWrapper, Progress
from twinlog.consume.dead_letters import BEHIND, AddDeadLetter, FailReplay
from twinlog.model.event import Metadata, Recorded
from twinlog.model.trace import trace_fields


class Logged(ConsumerWrapper):
    """A consumer whose failures are logged, each after it is recorded and with its traceback.

    What is logged of a single event carries its correlation id, and its trace id if it has one.
    """

    async def apply(self, events: Sequence[Recorded], progress: Progress) -> int:
        if len(events) == 1:
            with bound_contextvars(**_ids(events[0].metadata)):
                stored = await self.inner.apply(events, progress)
        else:
            stored = await self.inner.apply(events, progress)
        for command, _ in progress.commands:
            match command:
                case AddDeadLetter(event=event, failure=failure) if failure != BEHIND:
                    structlog.get_logger().error(
                        "dead_letter.parked",
                        consumer=self.name,
                        event_address=event.address,
                        type=event.type,
                        key=event.partition_key,
                        attempts=failure.attempts,
                        error=failure.error,
                        exc_info=progress.error,
                        **_ids(event.metadata),
                    )
                case FailReplay(letter=id, failure=failure):
                    structlog.get_logger().error(
                        "dead_letter.replay_failed",
                        consumer=self.name,
                        event_address=f"{id.log}/{id.position}",
                        error=failure.error,
                        exc_info=progress.error,
                    )
        return stored


def _ids(metadata: Metadata) -> Mapping[str, str]:
    return {"correlation_id": metadata.correlation_id, **trace_fields(metadata.traceparent)}
