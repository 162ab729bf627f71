"""A log with a chain and a twin, to be tampered with by somebody who may do everything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from tests.kernel.batches import append, batch, counter
from twinlog import Metadata, Recorded
from twinlog.audit import Findings
from twinlog.audit.chain import ChainAudit
from twinlog.audit.twins import Stored
from twinlog.log.chain import APPENDED, NOTHING_BEFORE, Head, Link, event_digests, link_hash, summed
from twinlog.log.ports import Batch, Log
from twinlog.log.twin import TwinState
from twinlog.log.wire import to_wire
from twinlog.testing.internals import PostgresLog

SIZES = (1, 2, 3, 1, 4, 2)
"""The batches of the history: events 1, 2 to 3, 4 to 6, 7, 8 to 11, 12 to 13."""


@dataclass
class Messages:
    """A stream in memory."""

    stored: dict[int, Stored] = field(default_factory=dict)

    @property
    def state(self) -> TwinState:
        return TwinState(1, max(self.stored, default=0), 0)

    async def messages(self, first: int, last: int) -> Mapping[int, Stored]:
        return {position: one for position, one in self.stored.items() if first <= position <= last}

    def store(self, events: Sequence[Recorded]) -> None:
        for event in events:
            self.stored[event.position] = Stored(event.subject, to_wire(event))


async def fill(log: Log) -> Messages:
    """Appends the history; gives the stream of it."""
    version = 0
    for number, size in enumerate(SIZES):
        made = batch((counter(), version, size))
        events = [
            event._replace(metadata=Metadata(f"c{number}", "rpc/Add", "00-t", "tests", {"tenant": "north"}))
            for event in made.events
        ]
        at = made.recorded_at + timedelta(milliseconds=number)
        await append(log, Batch(at, made.expects, events))
        version += size
    twin = Messages()
    twin.store(await log.read(0, 100))
    return twin


async def verified(
    log: PostgresLog, twin: Messages | None = None, *noted: Head
) -> tuple[int | None, Findings]:
    """The first position that differs, and what was found."""
    found = Findings()
    audit = ChainAudit(log, twin, noted)
    await audit.verify(found)
    assert (audit.first is None) == (not found.kept)
    return audit.first, found


async def tamper(log: PostgresLog, *statements: str) -> None:
    """Runs statements past every trigger."""
    async with log.pool.acquire() as connection, connection.transaction():
        await connection.execute("SET LOCAL session_replication_role = replica")
        for statement in statements:
            await connection.execute(statement)


async def rewrite_chain(log: PostgresLog, batches: Sequence[tuple[int, int]] = ()) -> None:
    """Links everything anew, as if the events had always been what they are now; ``batches``: from where to where they
    went, by default as they did."""
    before, links = NOTHING_BEFORE, list[Link]()
    old = [link[1:5] for link in await log.links(0, 1000)]
    for kind, first, last, head in [(APPENDED, *each, each[1]) for each in batches] or old:
        events = await log.read(first - 1, last - first + 1)
        digest, marks = summed(event_digests(events))
        before = link_hash(before, kind, first, last, head, digest)
        links.append(Link(len(links) + 1, kind, first, last, head, digest, marks, before))
    async with log.pool.acquire() as connection, connection.transaction():
        await connection.execute("SET LOCAL session_replication_role = replica")
        await connection.execute("DELETE FROM chain")
        await connection.executemany("INSERT INTO chain VALUES ($1, $2, $3, $4, $5, $6, $7, $8)", links)
        await connection.execute("UPDATE log_head SET hash = $1, links = $2", before, len(links))
