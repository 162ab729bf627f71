"""What consumers that a repair sets have handled, as the logs and streams of its servers show it.

Effects prove how far a consumer was, and tell of their causes the positions only. A checkpoint remembers its event, so
that no other one is taken for it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import suppress
from uuid import UUID

from twinlog.jetstream.twin import JetStreamTwin
from twinlog.log.archive import ArchiveUnavailable
from twinlog.log.repair import Plan, caused_by, gone, is_gone
from twinlog.log.twin import TwinDamaged, event_in
from twinlog.model.errors import WrongSetting
from twinlog.model.event import Recorded
from twinlog.postgres.connection import Pool
from twinlog.postgres.identity import name_of
from twinlog.postgres.log import PostgresLog
from twinlog.postgres.repair import FollowerState

Handled = Mapping[tuple[str, int], UUID]
"""The ids of events, by consumer and position."""


async def handled(made: Plan, pools: Mapping[str, Pool], twin_of: Callable[[str], JetStreamTwin]) -> Handled:
    """What the consumers that a plan sets have handled, as far as that can be known. Raises Unavailable."""
    named = [(await name_of(pool), pool) for pool in pools.values()]
    effects = {caused_by(event): event for event in made.restored}
    found: dict[tuple[str, int], UUID] = {}
    for consumer, position in made.checkpoints.items():
        if effect := effects.get((consumer, position)):
            log = _source(consumer)
            logs = [PostgresLog(pool, log) for name, pool in named if name == log]
            with suppress(ArchiveUnavailable, WrongSetting):  # of the archive: it is not known
                async for cause in _at(position, twin_of(log), log, logs):
                    if cause.metadata.correlation_id == effect.metadata.correlation_id:
                        found[consumer, position] = cause.event_id
                        break
                else:
                    if logs:  # else its log is on another server
                        found[consumer, position] = gone(effect)
    return found


async def has_handled(log: PostgresLog, one: FollowerState) -> bool:
    """Whether a log has the event that a consumer of it remembers."""
    if one.event_position is None:
        return False
    return any(event.event_id == one.event_id for event in await log.read(one.event_position - 1, 1))


def goes_on(consumer: str, position: int, done: Handled) -> str:
    """Says where a consumer goes on."""
    said = f"Consumer {consumer} goes on after event {position}."
    if not is_gone(done.get((consumer, position))):
        return said
    return f"{said} Nobody has that event any more: `twinlog repair {_source(consumer)} --dry-run` says what to do."


def _source(consumer: str) -> str:
    """The log that a consumer follows."""
    return consumer.rpartition(".")[2]


async def _at(
    position: int, twin: JetStreamTwin, log: str, logs: Sequence[PostgresLog]
) -> AsyncIterator[Recorded]:
    """The events at a position: in a fork there are several."""
    if (message := await twin.message(position)) is not None:
        with suppress(TwinDamaged):
            yield event_in(twin.name, position, log, message)
    for each in logs:
        for event in await each.read(position - 1, 1):
            yield event
