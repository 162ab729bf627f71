"""Which links of a chain are gone, and what is made again of them: of a chain in memory, whichever are gone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate, combinations
from typing import Any

from tests.chain.history import SIZES, fill
from twinlog import Recorded
from twinlog.log.chain import APPENDED, CUT, NOTHING_BEFORE, Link, Unlinked, event_digests, link_hash, summed
from twinlog.log.relinking import ChainEnd, LostLinks, lost_links
from twinlog.testing import START, MemoryLog

EVERY = range(1, len(SIZES) + 1)
NONE_GONE = LostLinks(0, (), True, [])


@dataclass
class Kept:
    """A log with a chain."""

    events: Sequence[Recorded]
    whole: Sequence[Link] = ()
    gone: Iterable[int] = ()
    waiting: Sequence[Unlinked] = ()
    end: ChainEnd = field(init=False)

    def __post_init__(self) -> None:
        self.end = ChainEnd(len(self.whole), self.whole[-1].hash, len(self.events))

    async def links(self, after: int, limit: int) -> Sequence[Link]:
        return [each for each in self.whole if each.number > after and each.number not in self.gone][:limit]

    async def chain_end(self) -> ChainEnd:
        return self.end

    async def read(self, after: int, limit: int) -> Sequence[Recorded]:
        return self.events[after : after + limit]

    async def unlinked(self) -> Sequence[Unlinked]:
        return self.waiting

    async def found(self) -> LostLinks:
        log: Any = self
        return await lost_links(log)


def linked(links: Sequence[Link], events: Sequence[Recorded], kind: int = APPENDED, head: int = 0) -> Link:
    """The next link, over some events."""
    digest, marks = summed(event_digests(events))
    first, last = events[0].position, events[-1].position
    before = links[-1].hash if links else NOTHING_BEFORE
    hash = link_hash(before, kind, first, last, head or last, digest)
    return Link(len(links) + 1, kind, first, last, head or last, digest, marks, hash)


async def history() -> Kept:
    await fill(log := MemoryLog("counters"))
    events, links = await log.read(0, 100), list[Link]()
    for last, size in zip(accumulate(SIZES), SIZES, strict=True):
        links.append(linked(links, events[last - size : last]))
    return Kept(events, links)


async def test_whichever_are_gone_are_made_again_as_they_were() -> None:
    whole = await history()
    assert await whole.found() == NONE_GONE
    for gone in (set(some) for count in EVERY for some in combinations(EVERY, count)):
        made = [link for link in whole.whole if link.number in gone]
        assert await replace(whole, gone=gone).found() == LostLinks(len(gone), made, True, ())


async def test_those_that_do_not_lead_to_what_is_noted_are_not_proven() -> None:
    whole = await history()
    changed = replace(
        whole, events=[*whole.events[:4], whole.events[4]._replace(payload=b"x"), *whole.events[5:]]
    )
    assert (await changed.found()).proven, "no event is looked at where no link is gone"
    assert not (await replace(changed, gone={3}).found()).proven
    other = await history()
    other.end = other.end._replace(hash=b"x" * 32)
    assert not (await other.found()).proven


async def test_what_waits_to_be_sealed_lacks_no_link() -> None:
    whole = await history()
    part = replace(whole, whole=whole.whole[:3])  # up to event 6 of 13
    assert (await part.found()).unnoted == [Unlinked(7, 13)]
    assert (await replace(part, waiting=[Unlinked(8, 13)]).found()).unnoted == [Unlinked(7, 7)]
    assert (await replace(part, waiting=[Unlinked(7, 13)]).found()).unnoted == []


async def test_what_waits_is_asked_for_until_the_chain_was_looked_at() -> None:
    class Noting(Kept):
        async def chain_end(self) -> ChainEnd:
            self.waiting = [Unlinked(7, 13)]  # an append without a link, at this moment
            return self.end

    whole = await history()
    assert (await Noting(whole.events, whole.whole[:3]).found()).unnoted == []


async def test_nothing_is_made_where_there_are_more_batches_than_links_gone() -> None:
    whole = await history()
    events = [each._replace(recorded_at=START) if each.position == 5 else each for each in whole.events]
    for gone in EVERY:
        found = await replace(whole, events=events, gone={gone}).found()
        assert (len(found.made), found.proven) == ((0, False) if gone == 3 else (1, True))


async def test_what_a_repair_cut_off_is_linked_by_what_came_after_it() -> None:
    whole = await history()
    links, events = [*whole.whole[:3]], whole.events  # 1, 2 to 3, 4 to 6
    links.append(linked(links, events[3:6], CUT, head=3))
    cut = replace(whole, whole=links)
    assert (await cut.found()).unnoted == [Unlinked(4, 13)]
    links.append(linked(links, events[3:13]))
    assert await replace(whole, whole=links).found() == NONE_GONE
