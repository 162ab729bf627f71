"""Moments of streams whose stored events mean several of today, or none: versions and positions are the stored ones."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from uuid import UUID

from tests.upcasts.kinds import KINDS, SCHEMA
from tests.upcasts.service import TALLY
from twinlog import Metadata, StreamId
from twinlog.log.past import KeptKey, Moment
from twinlog.log.time_travel import TimeTravel
from twinlog.log.transaction import Entry
from twinlog.memory.log import MemoryLog
from twinlog.testing import START
from twinlog.testing.internals import Batch, NewEvent

EVENTS = 250
EVERY = 100
AGGREGATE = replace(TALLY, keep_every=EVERY)
STREAM = StreamId(TALLY.name, "a")


async def written(seed: int) -> tuple[MemoryLog, Sequence[Sequence[int]]]:
    """A stream of all kinds, in batches with others, and the numbers that each of its versions stands for."""
    chance, log, numbers = random.Random(seed), MemoryLog("olds"), list[Sequence[int]]()
    while len(numbers) < EVENTS:
        batch: list[NewEvent] = []
        known = {STREAM: len(numbers)}
        for place in range(len(log.events), len(log.events) + chance.randint(1, 4)):
            kind, of_it = chance.choice([*KINDS.values()]), chance.random() < 0.7
            stream = STREAM if of_it else StreamId(TALLY.name, f"other-{place}")
            message, metadata = kind.written(10 * place), Metadata("c", "rpc/Old", "", "old")
            known.setdefault(stream, 0)
            version = 1 + known[stream] + sum(each.stream == stream for each in batch)
            batch.append(NewEvent.of(stream, version, UUID(int=place + 1), message, metadata, ""))
            numbers += [kind.means(10 * place)] if of_it else []
        await log.append(Batch(START, known, batch))
    return log, numbers


async def test_each_moment_is_that_of_the_stored_events() -> None:
    wrong = []
    for seed in range(2):
        log, numbers = await written(seed)
        stored = [event for event in log.events if event.stream == STREAM]
        for _ in ("from the first event", "from what was kept on the way"):
            travel = TimeTravel(log, SCHEMA)
            moments = [(Moment(version=version), version) for version in range(1, len(numbers) + 1)]
            moments += [
                (Moment(position=event.position), sum(each.position <= event.position for each in stored))
                for event in log.events
            ]
            for moment, version in moments[::-5]:
                found = await travel.state(AGGREGATE, STREAM.id, moment)
                wanted = [number for means in numbers[:version] for number in means]
                if (
                    not isinstance(found, Entry)
                    or [*found.state.numbers] != wanted
                    or found.version != version
                ):
                    wrong.append(f"seed {seed}, {moment}: {found}")
        kept = await log.kept(TALLY.name, STREAM.id, KeptKey(), 100)
        assert [each.version for each in kept] == [*range(EVERY, len(numbers) + 1, EVERY)], seed
    assert not wrong
