"""The chain: what proves the past of a log. Every byte that is hashed is laid out in docs/reference/proof.md.

Each event has a digest. A batch of events has a link, whose hash is made of the hash of the link before and of the
digests of its events. So a link's hash depends on everything that was linked before it: noted elsewhere, it shows each
later change of that, also one that was made in all stores at once. Links are made by appends. Events that came without
one, as from programs of earlier releases, are sealed later, by a link that says so; and a repair, which changes what
was linked, says where it cut the log.
"""

from __future__ import annotations

import hashlib
import re
import struct
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import groupby
from operator import attrgetter
from typing import NamedTuple, Protocol, runtime_checkable
from uuid import UUID

from twinlog.log.wire import microseconds
from twinlog.model.event import Metadata, Recorded, StreamId

APPENDED, SEALED, CUT = 1, 2, 3
"""Kinds of links: made by the append, made later, and a repair's note that it cut the log."""
MARK_BYTES = 8
"""Bytes of an event's digest that a link keeps, so that a changed event is told from its neighbors."""
NOTHING_BEFORE = bytes(32)
"""What the first link follows."""

SHORT_HASH = 12
"""Hexadecimal digits of a hash that a metric tells: a double holds no more."""

_LAYOUT = 1
_EVENT = struct.Struct(">BqqI")
_LINK = struct.Struct(">hqqq")
_HEAD = re.compile(r"(\w[\w.-]*):(\d+):([0-9a-fA-F]{12,64})(?::([A-Za-z0-9+/=]+))?")

Content = tuple[StreamId, int, UUID, str, bytes, Metadata, str, str]
"""An event without its log, position and time: all fields of a NewEvent, in their order."""


class Link(NamedTuple):
    """What links the events of a batch to everything before."""

    number: int
    """1, 2, 3 …"""
    kind: int
    first: int
    last: int
    """The positions that it covers; of a cut, those that the log loses."""
    head: int
    """The position of the log when the link was made."""
    digest: bytes
    """Of the events."""
    marks: bytes
    """The beginnings of the digests of the events, eight bytes each."""
    hash: bytes
    """Of all of this but number and marks, and of the hash before."""


class Unlinked(NamedTuple):
    """Positions that have no link yet."""

    first: int
    last: int


@runtime_checkable
class Chained(Protocol):
    """A log that keeps a chain."""

    async def links(self, after: int, limit: int) -> Sequence[Link]:
        """Up to ``limit`` links with a number greater than ``after``, in order."""

    async def cuts(self) -> Sequence[Link]:
        """The links that say where repairs cut the log."""

    async def newest_link(self) -> Link | None:
        """The last link; None where nothing was linked yet."""

    async def unlinked(self) -> Sequence[Unlinked]:
        """What waits to be sealed, in order."""

    async def seal(self, limit: int) -> int:
        """Links up to ``limit`` events that came without a link, the first ones; returns how many.

        0 where none are left, where another process seals them at this moment, and where they are not there.
        """


def event_digests(events: Iterable[Recorded]) -> list[bytes]:
    """The digest of each event: 32 bytes, which depend on every field but its log and position."""
    found: list[bytes] = []
    for at, together in groupby(events, attrgetter("recorded_at")):
        found += leaves([event[2:10] for event in together], at)
    return found


def leaves(events: Iterable[Content], recorded_at: datetime) -> list[bytes]:
    """The digests of events that were recorded at one time."""
    # Every event is written once, so all of it is in this one function.
    found, sha256, pack, time = [], hashlib.sha256, _EVENT.pack, microseconds(recorded_at)
    for (stream_type, stream_id), version, event_id, type, payload, metadata, key, routing_key in events:
        correlation_id, causation_id, traceparent, actor, extra = metadata
        texts = (
            stream_type, stream_id, type, correlation_id, causation_id, traceparent, actor, key, routing_key,
        )  # fmt: skip
        text = "\0".join((*texts, *_flat(extra)) if extra else texts).encode("utf-8", "surrogatepass")
        head = pack(_LAYOUT, version, time, len(text))
        found.append(sha256(b"".join((head, event_id.int.to_bytes(16, "big"), text, payload))).digest())
    return found


def _flat(extra: Mapping[str, str]) -> Iterable[str]:
    for name in sorted(extra):
        yield name
        yield extra[name]


def summed(digests: Sequence[bytes]) -> tuple[bytes, bytes]:
    """The digest of a batch, from those of its events, and their marks."""
    return hashlib.sha256(b"".join(digests)).digest(), b"".join([each[:MARK_BYTES] for each in digests])


def link_hash(before: bytes, kind: int, first: int, last: int, head: int, digest: bytes) -> bytes:
    """The hash of a link that follows one with the hash ``before``."""
    return hashlib.sha256(before + _LINK.pack(kind, first, last, head) + digest).digest()


class Head(NamedTuple):
    """A link's hash with the position that its log had: noted elsewhere, it proves everything up to there."""

    log: str
    position: int
    hash: str
    """In hexadecimal digits; of a head that comes from metrics the first twelve."""
    signature: str = ""
    """In base64; empty: it has none."""

    def __str__(self) -> str:
        return ":".join(map(str, self if self.signature else self[:3]))

    @classmethod
    def of(cls, log: str, link: Link) -> Head:
        """The head of a chain that ends with this link."""
        return cls(log, link.head, link.hash.hex())

    @classmethod
    def parse(cls, text: str) -> Head:
        """The head that is written as ``log:position:hash`` or ``log:position:hash:signature``. Raises ValueError."""
        match = _HEAD.fullmatch(text.strip())
        if not match:
            raise ValueError(f"{text!r} is no head; write it as it was told, such as orders:120:{'4f' * 32}")
        return cls(match[1], int(match[2]), match[3].lower(), match[4] or "")


class Covered:
    """Positions that are covered, by links for example, as unbroken runs."""

    def __init__(self) -> None:
        self._firsts: list[int] = []
        self._lasts: list[int] = []

    def add(self, first: int, last: int) -> bool:
        """Whether none of them were covered before."""
        at = bisect_left(self._lasts, first)
        if at < len(self._firsts) and self._firsts[at] <= last:
            return False
        self._firsts.insert(at, first)
        self._lasts.insert(at, last)
        for index in (at + 1, at):  # with the neighbors
            if 0 < index < len(self._firsts) and self._lasts[index - 1] + 1 == self._firsts[index]:
                del self._firsts[index], self._lasts[index - 1]
        return True

    @property
    def runs(self) -> Sequence[tuple[int, int]]:
        """The first and the last position of each, in order."""
        return [*zip(self._firsts, self._lasts, strict=True)]

    def missing(self, first: int, last: int) -> Iterator[tuple[int, int]]:
        """The runs between two positions, both included, that are not covered now."""
        for begin, end in self.runs:
            if begin > last:
                break
            if begin > first:
                yield first, begin - 1
            first = max(first, end + 1)
        if first <= last:
            yield first, last
