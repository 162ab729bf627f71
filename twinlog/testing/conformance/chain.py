"""What a log does that keeps a chain."""

from __future__ import annotations

from twinlog.log.chain import APPENDED, NOTHING_BEFORE, Chained, event_digests, link_hash, summed
from twinlog.log.ports import Appended, Log
from twinlog.testing.conformance.batches import A, B, append, batch, conflict


class ChainOfLog:
    """Of a log that keeps a chain; it need not."""

    async def test_each_batch_is_linked_to_everything_before(self, log: Log) -> None:
        if not isinstance(log, Chained):
            return
        assert (await log.links(0, 10), await log.newest_link()) == ([], None)
        await append(log, batch((A, 0, 2)), batch(reads={A: 2}), batch((A, 2, 1), (B, 0, 2)))
        async with log.exclusive() as session:
            assert await session.append(batch((B, 2, 1))) == Appended(6)

        links, before = await log.links(0, 10), NOTHING_BEFORE
        assert [link[:5] for link in links] == [
            (1, APPENDED, 1, 2, 2),
            (2, APPENDED, 3, 5, 5),
            (3, APPENDED, 6, 6, 6),
        ]
        for link in links:
            events = await log.read(link.first - 1, link.last + 1 - link.first)
            assert (link.digest, link.marks) == summed(event_digests(events))
            assert link.hash == link_hash(before, *link[1:6])
            before = link.hash
        assert (await log.links(1, 1), await log.newest_link()) == ([links[1]], links[2])

    async def test_what_is_refused_is_not_linked(self, log: Log) -> None:
        if not isinstance(log, Chained):
            return
        await append(log, batch((A, 0, 1)))
        conflict(await log.append(batch((A, 0, 1))))
        assert len(await log.links(0, 10)) == 1
        assert (await log.unlinked(), await log.cuts(), await log.seal(10)) == ([], [], 0)
