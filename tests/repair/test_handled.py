"""What a repair knows of the events that consumers have handled: no other one is taken for them afterwards."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from uuid import UUID

import pytest

from tests.kernel.batches import METADATA, append, batch, counter
from tests.repair.site import Site, copied
from twinlog import Metadata, Recorded
from twinlog.log.repair import is_gone
from twinlog.postgres.identity import identify
from twinlog.service.relink import LEFT, MENDED, NOTHING
from twinlog.testing.internals import Batch, CheckpointAdvance, JetStreamTwin, NatsClient, PostgresLog

CAUSES, LOST = 9, 4


@dataclass
class Two(Site):
    """A log whose service follows another one, and both streams."""

    causes: Site

    @property
    def consumer(self) -> str:
        return f"svc.{self.causes.log.name}"

    async def note(self) -> tuple[int, UUID | None]:
        """Where the consumer stands, and the event that it remembers there."""
        noted = await self.log.last_handled(self.consumer)
        at = await self.log.checkpoint(self.consumer)
        return at, noted.event_id if noted and noted.position == at else None


@pytest.fixture
async def two(site: Site, nats: NatsClient, stream: str) -> Two:
    """The log has handled all causes, and was then set back to before the last ones."""
    name = f"{stream}_causes"
    causes = replace(site, log=PostgresLog(site.other.pool, name), twin=JetStreamTwin(nats, name))
    await identify(causes.log.pool, "mine", "", name)
    two = Two(**vars(site), causes=causes)
    for number in range(1, CAUSES + 1):
        await effect(two, await cause(two, f"one {number}", number))
    await copied(site)
    await copied(causes)
    await two.cut(CAUSES - LOST)
    before = CAUSES - LOST
    [event] = await causes.log.read(before - 1, 1)
    await two.log.pool.execute(
        "UPDATE checkpoints SET position = $1, event_position = $1, event_id = $2", before, event.event_id
    )
    return two


async def cause(two: Two, correlation: str, minute: int = 60) -> Recorded:
    log = two.causes.log
    head = await log.head()
    written = batch((counter(f"{head}"), 0, 1))
    await append(log, at(minute, written, METADATA._replace(correlation_id=correlation)))
    return (await log.read(head, 1))[0]


def at(minute: int, written: Batch, said: Metadata) -> Batch:
    """What is written at a time, with what is said of it."""
    events = [each._replace(metadata=said) for each in written.events]
    return replace(written, events=events, recorded_at=written.recorded_at + timedelta(minutes=minute))


async def others(two: Two) -> None:
    """Other causes come to the places of those that are gone, and somebody follows them."""
    newest = [await cause(two, "another") for _ in range(LOST + 2)][-1]
    await copied(two.causes)
    other = f"views.{two.causes.log.name}"
    after = await two.log.checkpoint(other)
    await append(two.log, batch(advances=[CheckpointAdvance(other, after, newest.position, newest.event_id)]))


async def effect(two: Two, of: Recorded) -> None:
    """What the consumer records because of an event."""
    after = await two.log.checkpoint(two.consumer)
    advance = CheckpointAdvance(two.consumer, after, of.position, of.event_id)
    written = batch((counter(f"of {of.event_id}"), 0, 1), advances=[advance])
    said = of.metadata._replace(causation_id=of.address, actor="svc")
    await append(two.log, at(of.position, written, said))


async def nothing(two: Two) -> None:
    """All causes are where they were."""


async def log_set_back(two: Two) -> None:
    """The other log was set back, too, and recorded something else meanwhile."""
    await two.causes.cut(CAUSES - LOST)
    for _ in range(LOST + 2):
        await cause(two, "another")


async def stream_gone(two: Two) -> None:
    await two.causes.twin.delete()


async def both(two: Two) -> None:
    """Nobody has the causes any more."""
    await stream_gone(two)
    await two.causes.cut(CAUSES - LOST)


async def both_and_overtaken(two: Two) -> None:
    """Nobody has them, and others are in their places."""
    await both(two)
    await others(two)


FATES: Mapping[Callable[[Two], Awaitable[None]], bool] = {
    nothing: True,
    log_set_back: True,
    stream_gone: True,
    both: False,
    both_and_overtaken: False,
}
"""Of the causes, each with whether somebody has them still."""


@pytest.mark.parametrize("fate", FATES, ids=lambda fate: fate.__name__)
async def test_a_repair_notes_the_events_that_consumers_have_handled(
    two: Two, fate: Callable[[Two], Awaitable[None]]
) -> None:
    [last] = await two.causes.log.read(CAUSES - 1, 1)
    await fate(two)
    code, said = await two.repair(database=await two.database())
    assert code == MENDED
    position, event_id = await two.note()
    assert (position, event_id == last.event_id, is_gone(event_id)) == (CAUSES, FATES[fate], not FATES[fate])
    assert (f"Nobody has that event any more: `twinlog repair {two.causes.log.name} " in said) != FATES[fate]


@pytest.mark.parametrize("overtaken", [False, True])
async def test_a_consumer_of_what_nobody_has_is_set_back_by_what_is_printed(
    two: Two, overtaken: bool
) -> None:
    """Otherwise it would pass over the events that come to the places of those."""
    await (both_and_overtaken if overtaken else both)(two)
    assert (await two.repair(database=await two.database()))[0] == MENDED
    if not overtaken:  # the command tells at once, and as well when others have come to their places
        database = await two.causes.database()
        assert (await two.causes.repair(database=database, dry_run=True))[0] == LEFT
        await others(two)
    database = await two.causes.database()
    code, said = await two.causes.repair(database=database, dry_run=True)
    assert (code, f"has handled event {CAUSES}, which the log does not have" in said) == (LEFT, True), said
    assert (await two.causes.repair(database=database, give_up=True))[0] == MENDED
    assert (await two.note())[0] == CAUSES - LOST
    await copied(two.causes)
    assert (await two.causes.repair(database=database))[0] == NOTHING
