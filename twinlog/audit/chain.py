"""Verifies the chain of one log: that events, messages of the twin and noted heads are those that were linked.

It reads links, events and messages once, in the order in which they were linked, some thousands at a time. What it
finds is named by the first position that differs.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Protocol, runtime_checkable

from google.protobuf.message import DecodeError

from twinlog.audit.report import Findings
from twinlog.audit.stored_events import BATCH, Ahead, ChainedLog, StoredEvents, digest_of, digests_of
from twinlog.audit.twins import Stored, span
from twinlog.log.chain import (
    CUT,
    MARK_BYTES,
    NOTHING_BEFORE,
    SEALED,
    Covered,
    Head,
    Link,
    Unlinked,
    event_digests,
    link_hash,
    summed,
)
from twinlog.log.installation import named
from twinlog.log.twin import TwinState, mirrors
from twinlog.log.wire import from_wire
from twinlog.model.event import Recorded

EVENTS = "events are as they were linked"
LINKS = "links follow each other"
TWIN = "twin is as it was linked"
NOTED = "noted heads are in the chain"

_MOST = 100
"""How many differences are told, those of the first positions."""


@runtime_checkable
class NotesNewest(Protocol):
    """A log that notes apart what its next link will follow."""

    async def notes_newest(self) -> bool: ...


class ReadableTwin(Protocol):
    """What is read of a twin."""

    @property
    def state(self) -> TwinState: ...

    async def messages(self, first: int, last: int) -> Mapping[int, Stored]: ...


class ChainAudit:
    """Verifies one log. It writes nothing."""

    def __init__(
        self,
        log: ChainedLog,
        twin: ReadableTwin | None,
        noted: Sequence[Head] = (),
        *,
        namespace: str = "",
    ) -> None:
        """``twin``: its state was read; None: it is not compared. ``noted``: heads of this log, noted elsewhere."""
        # _agreed: noted heads that are in the chain, with the number of the link. _before: what the hash of the link
        # before is by its content, and what it says. _rewritten: the first event, by the number of a link, that a
        # repair has changed since.
        self._log = log
        self._twin = twin
        self._namespace = namespace
        compare = f"compare with a backup or an export of {log.name} from before"
        mends = (
            f"`twinlog repair {log.name} --chain --dry-run` says whether they can be made again; or {compare}"
        )
        self._remedies = defaultdict(lambda: compare, {LINKS: mends})
        self._stored = StoredEvents(log, copies=_MOST)
        self._events = Ahead(self._stored.read)
        self._messages = Ahead(self._read_messages)
        self._noted: defaultdict[int, list[Head]] = defaultdict(list)
        for head in noted:
            self._noted[head.position].append(head)
        self._agreed: list[tuple[Head, int]] = []
        self._before = [NOTHING_BEFORE]
        self._cuts: Sequence[Link] = ()
        self._rewritten: dict[int, int] = {}
        self._covered = Covered()
        self._found: dict[tuple[int, str], tuple[str, str]] = {}
        self.checked: Counter[str] = Counter()
        self.newest: Link | None = None
        """The last link that was verified."""
        self.waiting = 0
        """How many events are not sealed yet."""

    @property
    def first(self) -> int | None:
        """The first position that differs; None: nothing does."""
        return min((position for position, _ in self._found), default=None)

    async def verify(self, findings: Findings) -> None:
        """Verifies everything that was linked up to now. Raises Unavailable."""
        wanted, unlinked = await self._log.head(), await self._log.unlinked()
        self.newest = await self._log.newest_link()
        ends = await self._log.head()
        self._cuts = await self._log.cuts()
        number, after = 0, 0
        async for link in self._links(self.newest.number if self.newest else 0):
            self._judge_link(link, number, after)
            self._compare_noted(link)
            if link.kind != CUT:
                await self._judge_events(link)
            number, after = link.number, max(after, link.last)
        self._judge_ends(wanted, ends, unlinked)
        if ends > after and not await self._stored.read(ends, ends):
            first = ends if await self._stored.read(after + 1, after + 1) else after + 1
            self._differs(
                first, EVENTS, f"event {first} is gone; table log_head says that {ends} is the last"
            )
        if isinstance(self._log, NotesNewest) and not await self._log.notes_newest():
            self._differs(after + 1, LINKS, "table log_head does not stand at the newest link")
        self._judge_noted(ends)
        self._report(findings)

    async def _links(self, upto: int) -> AsyncIterator[Link]:
        number = 0
        while number < upto:
            links = await self._log.links(number, min(BATCH, upto - number))
            if not links:
                break
            for link in links:
                self.checked["links"] += 1
                yield link
            number = links[-1].number

    def _void(self, link: Link) -> bool:
        """Whether a later repair changed what the link covers."""
        return any(cut.number > link.number and link.last >= cut.first for cut in self._cuts)

    def _judge_link(self, link: Link, number: int, after: int) -> None:
        """``number``: that of the link before; ``after``: up to where links reach so far."""
        hashes = [link_hash(before, *link[1:6]) for before in self._before]
        if link.number != number + 1:
            gone = span(number + 1, link.number - 1)
            self._differs(min(after + 1, link.first), LINKS, f"link {gone} of the chain is gone")
        elif link.hash not in hashes:
            covers = f"of events {span(link.first, link.last)}"
            self._differs(link.first, LINKS, f"link {link.number}, {covers}, does not follow the one before")
        if link.kind != CUT and not self._void(link) and not self._covered.add(link.first, link.last):
            self._differs(link.first, LINKS, f"link {link.number} covers events that have a link already")
        # Where one link was changed, the next follows what it says or what it said.
        self._before = [hashes[0], link.hash]

    def _compare_noted(self, link: Link) -> None:
        for head in list(self._noted.get(link.head, ())):
            if link.hash.hex().startswith(head.hash):
                self._noted[link.head].remove(head)
                self._agreed.append((head, link.number))
                self.checked["noted heads"] += 1

    async def _judge_events(self, link: Link) -> None:
        events = await self._events.between(link.first, link.last)
        digests = digests_of(events, link)
        differing = (
            [] if summed(digests) == (link.digest, link.marks) else [*_differing(link, digests, events)]
        )
        if self._void(link):
            if differing:
                self._rewritten[link.number] = differing[0][0]
            return
        self.checked["events"] += len(digests)
        if link.kind == SEALED:
            self.checked["events sealed later"] += len(digests)
        for position, what in differing:
            self._differs(position, EVENTS, what)
        self._judge_copies(link)
        await self._judge_twin(link, events)

    def _judge_copies(self, link: Link) -> None:
        """What the table and the archive both have is the same, and is what was linked."""
        for position, (place, event) in self._stored.copies.items() if self._stored.copies else ():
            if link.first <= position <= link.last and not digest_of(event).startswith(_mark(link, position)):
                self._differs(position, EVENTS, f"event {position} in {place} is not what was linked")

    async def _judge_twin(self, link: Link, events: Mapping[int, Recorded]) -> None:
        if not self._twin:
            return
        first, last = max(link.first, self._twin.state.first), min(link.last, self._twin.state.last)
        if first <= last:
            messages = await self._messages.between(first, last)
            self._judge_messages(link, range(first, last + 1), messages, events)

    def _judge_messages(
        self,
        link: Link,
        positions: range,
        messages: Mapping[int, Stored],
        events: Mapping[int, Recorded],
    ) -> None:
        read = {position: self._message(position, messages.get(position)) for position in positions}
        found = {position: event for position, event in read.items() if event}
        self.checked["twin messages"] += len(found)
        digests = dict(zip(found, event_digests(found.values()), strict=True))
        for position in positions:
            mark = _mark(link, position)
            if position not in messages:
                self._differs(position, TWIN, f"the stream has no message {position}")
            elif position not in digests or not (
                digests[position].startswith(mark) or _older(messages[position], events.get(position), mark)
            ):
                self._differs(position, TWIN, f"message {position} of the stream is not what was linked")

    def _message(self, position: int, stored: Stored | None) -> Recorded | None:
        """The event in a message; None where there is none that belongs there."""
        try:
            event = from_wire(stored.subject, stored.data) if stored else None
        except DecodeError:
            return None
        if stored is None or event is None or event.position != position:
            return None
        # The subject's first word may have the namespace before it.
        event = event._replace(log=self._log.name)
        return event if named(self._namespace, event.subject) == stored.subject else None

    def _judge_ends(self, wanted: int, ends: int, unlinked: Sequence[Unlinked]) -> None:
        """``wanted`` and ``ends``: the position of the log, read before and after the rest."""
        reached = self.newest.head if self.newest else 0
        self.waiting = sum(each.last + 1 - each.first for each in unlinked)
        for first, last in self._covered.missing(1, wanted):
            for each in unlinked:  # some of which may have been sealed since
                first = each.last + 1 if each.first <= first <= each.last else first
            if first <= last:
                self._differs(first, LINKS, f"no link covers events {span(first, last)}")
        if ends < reached:
            self._differs(ends + 1, EVENTS, f"the log ends with event {ends}; it was linked up to {reached}")

    def _judge_noted(self, ends: int) -> None:
        for head, number in self._agreed:
            changed = [position for link, position in self._rewritten.items() if link <= number]
            if changed:
                why = f"event {min(changed)} was changed after head {head} was noted; the chain says, by a repair"
                self._differs(min(changed), NOTED, why)
        for head in (head for position in sorted(self._noted) for head in self._noted[position]):
            same = max(
                (other.position for other, _ in self._agreed if other.position < head.position), default=0
            )
            first = same + 1
            why = f"something from event {first} on was changed, and every store with it, if the head is this log's"
            if head.position > ends:
                why = f"the log ends with event {ends}: it has lost what came after, or was set back"
                if same < ends:
                    why += f"; no noted head proves events {span(first, ends)}"
                first = ends + 1
            self._differs(first, NOTED, f"head {head} is not in the chain: {why}")

    def _differs(self, position: int, check: str, says: str) -> None:
        key = position, check
        if len(self._found) < _MOST or position < max(self._found)[0]:
            self._found.setdefault(key, (check, says))
        if len(self._found) > _MOST:
            del self._found[max(self._found)]

    def _report(self, findings: Findings) -> None:
        log = self._log.name
        for (position, _), (check, says) in sorted(self._found.items()):
            findings.add(
                check, f"{log}/{position}: {says}", events=[f"{log}/{position}"], remedy=self._remedies[check]
            )
        if self._stored.damaged:
            findings.note(f"{log}: {self._stored.damaged}")
        for cut in self._cuts:
            findings.note(f"{log}: a repair changed the log from event {cut.first} on, by link {cut.number}")
        if self.first:
            findings.note(f"{log}: the first event that differs is {log}/{self.first}")
        elif self.newest:
            findings.note(f"{log}: note this head elsewhere: {Head.of(log, self.newest)}")

    async def _read_messages(self, first: int, last: int) -> Mapping[int, Stored]:
        assert self._twin
        return await self._twin.messages(first, min(last, self._twin.state.last))


def _differing(
    link: Link, digests: Sequence[bytes], events: Mapping[int, Recorded]
) -> Iterator[tuple[int, str]]:
    """Which events of a link are not as they were, and what is wrong with them."""
    named = False
    for position, digest in enumerate(digests, link.first):
        if position not in events:
            named = True
            yield position, f"event {position} is gone, or cannot be read"
        elif digest[:MARK_BYTES] != _mark(link, position):
            named = True
            yield position, f"event {position} is not what was linked"
    if not named:
        yield link.first, f"link {link.number}, of events {span(link.first, link.last)}, has another digest"


def _mark(link: Link, position: int) -> bytes:
    """Eight bytes; others where the link has lost them."""
    at = (position - link.first) * MARK_BYTES
    return link.marks[at : at + MARK_BYTES] or b"\0"


def _older(message: Stored, event: Recorded | None, mark: bytes) -> bool:
    """Whether it is the event that was linked, as a version wrote it that knew fewer fields."""
    return event is not None and digest_of(event).startswith(mark) and mirrors(message.data, event)
