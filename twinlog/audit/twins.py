"""Compares a twin with its log, message by message: sequence n is event n, under its subject."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from nats.errors import Error as NatsError

from twinlog.audit.report import Findings
from twinlog.jetstream.client import NatsClient
from twinlog.jetstream.twin import JetStreamTwin
from twinlog.log.installation import ForeignStream, Identity, named
from twinlog.log.twin import TwinMissing, TwinState, mirrors
from twinlog.model.errors import Unavailable
from twinlog.model.event import Recorded

EQUAL = "twin equals log"
WHOLE = "twin is whole"
NOT_AHEAD = "twin not ahead of log"
OWN = "twin is of this installation"

_TIMEOUT_SECONDS = 10.0


class Stored(NamedTuple):
    """A message as the stream holds it."""

    subject: str
    data: bytes


class TwinAudit:
    def __init__(self, client: NatsClient, name: str, owner: str, namespace: str = "") -> None:
        """``owner``: the service whose relay fills the stream; ``namespace``: that of the installation."""
        self.name = name
        self.state = TwinState(1, 0, 0)
        self.missing = True
        self.trimmed = 0
        """Up to here its messages may be gone: they are archived."""
        self.position = 0
        """Compared up to here."""
        self._client = client
        self._namespace = namespace
        self._stream = named(namespace, name)
        self._foreign: ForeignStream | None = None
        self._remedy = f"twinlog repair {name}    # with {owner} running, which makes the stream again"

    async def look(self, identity: Identity | None) -> None:
        """Reads how far the twin of this log reaches. A twin that was made again is compared again."""
        self.missing, self._foreign = False, None
        twin = JetStreamTwin(self._client, self.name, namespace=self._namespace, identity=identity)
        try:
            self.state = await twin.state()
        except TwinMissing:
            self.missing, self.state = True, TwinState(1, 0, 0)
        except ForeignStream as foreign:
            self._foreign, self.state = foreign, TwinState(1, 0, 0)
        if self.state.last < self.position:
            self.position = 0

    def judge(self, head: int, findings: Findings) -> None:
        """Judges the stream by its own figures; ``head`` was read after them."""
        first, last, _ = self.state
        if self._foreign:
            remedy = f"nats stream info {self._stream}    # shows whose it is"
            findings.add(OWN, str(self._foreign), ids=[self.name], remedy=remedy)
        elif self.missing and head:
            findings.add(
                WHOLE,
                f"there is no stream {self._stream}, and the log has {head} events",
                ids=[self.name],
                events=[f"{self.name}/1"],
                remedy=self._remedy.partition("# ")[2].replace("with", "start it", 1),
            )
        elif first > self.trimmed + 1 and head:
            says = f"stream {self._stream} begins with {first}: the messages before it are gone"
            events = [f"{self.name}/{self.trimmed + 1}", f"{self.name}/{min(first - 1, head)}"]
            findings.add(WHOLE, says, ids=[self.name], events=events, remedy=self._remedy)
        if last > head:
            findings.add(
                NOT_AHEAD,
                f"stream {self._stream} has {last} messages, the log only {head} events: the database was set back",
                ids=[self.name],
                events=[f"{self.name}/{head + 1}", f"{self.name}/{last}"],
                remedy=f"twinlog repair {self.name} --dry-run    # what was lost; without --dry-run it is put back",
            )

    async def compare(self, events: Sequence[Recorded], findings: Findings) -> int:
        """Compares the messages of these events, which follow the position; returns how many."""
        events = [event for event in events if self.position < event.position <= self.state.last]
        wanted = [event for event in events if event.position >= self.state.first]
        if wanted:
            stored = await self.messages(wanted[0].position, wanted[-1].position)
            missing = (e.position for e in wanted if e.position not in stored)
            # A relay may trim the stream meanwhile.
            self._report_missing((each for each in missing if each > self.trimmed), findings)
            for event in wanted:
                self._compare(event, stored.get(event.position), findings)
        if events:
            self.position = events[-1].position
        return len(wanted)

    def _compare(self, event: Recorded, stored: Stored | None, findings: Findings) -> None:
        if stored is None:
            return
        if stored.subject != (subject := named(self._namespace, event.subject)):
            what = f"subject {stored.subject}, not {subject}"
        elif not mirrors(stored.data, event):
            what = "content"
        else:
            return
        findings.add(
            EQUAL,
            f"message {event.position} of stream {self._stream} is not event {event.address}: other {what}",
            ids=[str(event.stream)],
            events=[event.address],
            remedy=self._remedy,
        )

    def _report_missing(self, positions: Iterable[int], findings: Findings) -> None:
        for first, last in runs(positions):
            says = f"stream {self._stream} has no message {span(first, last)}"
            events = sorted({f"{self.name}/{first}", f"{self.name}/{last}"})
            findings.add(WHOLE, says, ids=[self.name], events=events, remedy=self._remedy)

    async def messages(self, first: int, last: int) -> dict[int, Stored]:
        """The messages from ``first`` to ``last`` that exist, by sequence (direct get in batches, NATS ADR-31)."""
        found: dict[int, Stored] = {}
        while first <= last:
            got = await read_messages(self._client, self._stream, first, last - first + 1)
            found.update((sequence, stored) for sequence, stored in got.items() if sequence <= last)
            if not got:
                break
            first = max(got) + 1
        return found


async def read_messages(client: NatsClient, stream: str, first: int, count: int) -> dict[int, Stored]:
    """Up to so many messages of a stream from a sequence on, by sequence. Raises Unavailable."""
    got: dict[int, Stored] = {}
    done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def take(_subject: bytes, _reply: bytes, data: bytes, headers: bytes) -> bool:
        if sequence := _header(headers, b"Nats-Sequence"):
            got[int(sequence)] = Stored(_header(headers, b"Nats-Subject"), data)
        elif not done.done():
            done.set_result(None)
        return True

    try:
        inbox = client.new_inbox()
        subscription = await client.subscribe(inbox)
        client.divert(subscription, take)
        try:
            request = json.dumps({"seq": first, "batch": count}).encode()
            await client.publish(f"$JS.API.DIRECT.GET.{stream}", request, reply=inbox)
            async with asyncio.timeout(_TIMEOUT_SECONDS):
                await done
        finally:
            await subscription.unsubscribe()
    except (NatsError, TimeoutError, OSError) as error:
        raise Unavailable(f"stream {stream} cannot be read ({str(error) or type(error).__name__})") from error
    return got


def _header(headers: bytes, name: bytes) -> str:
    """What the last header of this name says, which is the server's own; empty where there is none."""
    _, found, rest = headers.rpartition(b"\r\n%s: " % name)
    return rest.partition(b"\r\n")[0].decode(errors="replace") if found else ""


def runs(positions: Iterable[int]) -> list[tuple[int, int]]:
    """The unbroken runs, each as its first and last."""
    found: list[tuple[int, int]] = []
    for position in positions:
        if found and found[-1][1] == position - 1:
            found[-1] = (found[-1][0], position)
        else:
            found.append((position, position))
    return found


def span(first: int, last: int) -> str:
    """``7``, or ``7 to 9``."""
    return str(first) if first == last else f"{first} to {last}"
