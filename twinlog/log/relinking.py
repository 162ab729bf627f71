"""Links that a chain has lost, made again from the events of its log.

Events of one batch have one time, so the batches can be told. Made again, the links are those that were there if they
lead to what is left of the chain, and to the hash that the log's head notes: nothing else has these hashes.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from itertools import groupby
from operator import attrgetter
from typing import NamedTuple, Protocol

from twinlog.log.chain import (
    APPENDED,
    CUT,
    NOTHING_BEFORE,
    Chained,
    Covered,
    Link,
    Unlinked,
    event_digests,
    link_hash,
    summed,
)
from twinlog.model.event import Recorded

_BATCH = 2_000


class ChainEnd(NamedTuple):
    """What the head of a log notes of its chain."""

    links: int
    """How many there are."""
    hash: bytes
    linked: int
    """Up to this position every event has a link, or waits to be sealed."""


class LinkedLog(Chained, Protocol):
    """A log that notes the end of its chain."""

    async def chain_end(self) -> ChainEnd: ...

    async def read(self, after: int, limit: int) -> Sequence[Recorded]: ...


class LostLinks(NamedTuple):
    """What a chain lacks."""

    gone: int
    """How many links are not there."""
    made: Sequence[Link]
    """These, made again."""
    proven: bool
    """Whether they, and those that are there, lead to the noted end."""
    unnoted: Sequence[Unlinked]
    """Where no link is gone: positions without one that do not wait to be sealed either."""


async def lost_links(log: LinkedLog) -> LostLinks:
    """Compares the chain of a log with its events. Raises Unavailable."""
    waiting = [*await log.unlinked()]
    end = await log.chain_end()
    waiting += await log.unlinked()  # some may have been noted, or sealed, meanwhile
    kept = {link.number: link async for link in _kept(log, end.links)}
    covered, void = Covered(), [link for link in kept.values() if link.kind == CUT]
    for link in kept.values():
        if link.kind != CUT and not any(cut.number > link.number and link.last >= cut.first for cut in void):
            covered.add(link.first, link.last)
    for run in waiting:
        for first, last in covered.missing(*run):
            covered.add(first, last)
    lacking = [Unlinked(*run) for run in covered.missing(1, end.linked)]
    gone = end.links - len(kept)
    if not gone:
        return LostLinks(0, (), _lead_to(end, kept), lacking)
    made = await _made_again(log, lacking, [n for n in range(1, end.links + 1) if n not in kept], kept)
    return LostLinks(gone, made, len(made) == gone and _lead_to(end, {**kept, **_by_number(made)}), ())


async def _kept(log: LinkedLog, upto: int) -> AsyncIterator[Link]:
    number = 0
    while number < upto and (links := await log.links(number, min(_BATCH, upto - number))):
        for link in links:
            if link.number <= upto:
                yield link
        number = links[-1].number


async def _made_again(
    log: LinkedLog, lacking: Sequence[Unlinked], numbers: Sequence[int], kept: dict[int, Link]
) -> Sequence[Link]:
    """As many as are gone, or fewer; the batches that have no link, in their order."""
    made: list[Link] = []
    at = iter(numbers)
    for run in lacking:
        async for events in _batches(log, run):
            number = next(at, 0)
            before = made[-1] if made and made[-1].number == number - 1 else kept.get(number - 1)
            if not number or (before is None and number > 1):
                return ()
            digest, marks = summed(event_digests(events))
            first, last = events[0].position, events[-1].position
            hash = link_hash(before.hash if before else NOTHING_BEFORE, APPENDED, first, last, last, digest)
            made.append(Link(number, APPENDED, first, last, last, digest, marks, hash))
    return made


async def _batches(log: LinkedLog, run: Unlinked) -> AsyncIterator[Sequence[Recorded]]:
    """The events of a run, those of one time together."""
    after = run.first - 1
    begun: list[Recorded] = []
    while after < run.last and (events := await log.read(after, min(_BATCH, run.last - after))):
        after = events[-1].position
        for _, together in groupby(events, attrgetter("recorded_at")):
            batch = [*together]
            if begun and begun[-1].recorded_at != batch[0].recorded_at:
                yield begun
                begun = []
            begun += batch
    if begun:
        yield begun


def _lead_to(end: ChainEnd, links: dict[int, Link]) -> bool:
    before = NOTHING_BEFORE
    for number in range(1, end.links + 1):
        link = links[number]
        if link.hash != link_hash(before, *link[1:6]):
            return False
        before = link.hash
    return before == end.hash


def _by_number(links: Sequence[Link]) -> dict[int, Link]:
    return {link.number: link for link in links}
