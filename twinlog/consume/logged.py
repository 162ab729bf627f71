"""Middleware: says in the log which events a consumer sets aside, and which replays fail."""

from __future__ import annotations

from collections.abc import Sequence

import structlog

from twinlog.consume.consumer import ConsumerWrapper, Progress
from twinlog.consume.dead_letters import BEHIND, AddDeadLetter, FailReplay
from twinlog.model.event import Recorded
from twinlog.model.trace import log_fields


class Logged(ConsumerWrapper):
    """A consumer whose failures are logged, each after it is recorded and with its traceback."""

    async def apply(self, events: Sequence[Recorded], progress: Progress) -> int:
        stored = await super().apply(events, progress)
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
                        **log_fields(event.metadata),
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
