"""A view that two logs feed, and watchers that keep what they are told and refuse to be told it twice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, NamedTuple
from uuid import UUID

from google.protobuf.wrappers_pb2 import StringValue

from twinlog import Metadata, PostgresViews, Projection, Recorded, Schema, StreamId, View
from twinlog.consume.consumer import Progress
from twinlog.log.ports import CheckpointAdvance
from twinlog.log.view_store import NotingViewStore, ViewMoment
from twinlog.model.routing import NO_ROUTING_KEY
from twinlog.rpc import Change
from twinlog.rpc.freshness import Freshness
from twinlog.rpc.watches import Watches
from twinlog.testing import START, MemoryViews
from twinlog.testing.internals import RandomIds, SystemClock

PACKAGE = "tests.watches.sql"
CONSUMERS = {"tests.left": "left", "tests.right": "right"}
FIELDS = ("color",)


class Piece(NamedTuple):
    """One piece."""

    key: str
    color: str
    version: int
    """Grows with every change of any piece."""


def _evolve(_row: Piece | None, event: Recorded, message: StringValue) -> Piece | None:
    """The piece after an event such as ``a:red:7``; without a color it is taken away."""
    key, color, version = message.value.split(":")
    return Piece(key, color, int(version)) if color else None


PIECES: View[Piece] = View(
    "pieces",
    lambda event, _message: event.stream.id,
    _evolve,
    shared=True,
    events=[StringValue],
)


class Board:
    """The pieces, and the processes that project and watch them."""

    def __init__(self, store: NotingViewStore) -> None:
        self.store = store
        self.version = 0
        self.positions = dict.fromkeys(CONSUMERS, 0)
        store.note({PIECES: FIELDS})
        self.restart()

    def restart(self) -> None:
        """The process ends, and another one goes on; who watches has to resume there."""
        self.freshness = Freshness(CONSUMERS)
        for consumer, position in self.positions.items():
            self.freshness.changed(consumer, position, ())
        self.watches = Watches(PIECES, FIELDS, CONSUMERS, self.store, self.freshness)
        self.projections = {
            name: Projection(name, [PIECES], self.store, schema=Schema(), on_commit=self._committed)
            for name in CONSUMERS
        }

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Watches]:
        """Serves watches inside the block."""
        watches = self.watches
        running = asyncio.create_task(watches.run())
        try:
            yield watches
        finally:
            running.cancel()
            with suppress(asyncio.CancelledError):
                await running

    async def write(self, consumer: str, *pieces: tuple[str, str]) -> None:
        """A batch of a log: keys, each with a color; empty takes the piece away."""
        after = self.positions[consumer]
        upto = self.positions[consumer] = after + max(len(pieces), 1)
        await self._apply(consumer, pieces, CheckpointAdvance(consumer, after, upto))

    async def replay(self, consumer: str, key: str, color: str) -> None:
        """A dead letter of long ago has its effect; no checkpoint moves."""
        await self._apply(consumer, [(key, color)], None)

    async def _apply(
        self, consumer: str, pieces: Sequence[tuple[str, str]], advance: CheckpointAdvance | None
    ) -> None:
        events = []
        for key, color in pieces:
            self.version += 1
            events.append(_event(CONSUMERS[consumer], self.version, key, f"{key}:{color}:{self.version}"))
        progress = Progress(consumer, advance, SystemClock(), RandomIds())
        await self.projections[consumer].apply(events, progress)

    def _committed(self, consumer: str, position: int, _changes: Any) -> None:
        self.freshness.changed(consumer, position, ())

    async def settled(self, watching: Callable[[], int] = lambda: 0) -> None:
        """Whoever watches has been told what there is. ``watching``: how many are there, or on their way."""
        watches = self.watches
        async with asyncio.timeout(60):
            await asyncio.sleep(0)  # who has just come joins
            while len(watches) < watching():  # who resumes asks the store before
                await asyncio.sleep(0)
            looks = watches.looks
            while len(watches) and watches.looks <= looks + 1:
                self.freshness.changed("tests.left", 0, ())
                await asyncio.sleep(0)
        for _ in range(5):
            await asyncio.sleep(0)

    async def pieces(self, color: str = "") -> dict[str, Piece]:
        """The pieces of a color; of any, without one."""

        async def read(moment: ViewMoment) -> dict[str, Piece]:
            return {piece.key: piece for piece in await first(moment, color)}

        return await self.store.at_once(read)


async def first(moment: ViewMoment, color: str = "") -> Sequence[Piece]:
    """What a watch of a color begins with."""
    if isinstance(moment, MemoryViews):
        pieces: Sequence[Piece] = list(moment.tables.get("pieces", {}).values())
        return [piece for piece in pieces if color in ("", piece.color)]
    return [Piece(*row) for row in await moment.query("pieces_of_color", color)]


def views(log: Any) -> PostgresViews:
    """The store of the pieces beside a log in Postgres."""
    return PostgresViews(log, PACKAGE, {"pieces": Piece})


class Told(NamedTuple):
    """What a watcher has after a change."""

    token: str
    held: dict[str, Piece]


class Watcher:
    """Keeps what it is told; may forget what came last, as one does that dies before it has stored it."""

    def __init__(self, color: str = "", key: str = "") -> None:
        """It watches the pieces of a color, those of any color, or one piece."""
        self.color = color
        self.key = key
        self.history = [Told("", {})]
        self._task: asyncio.Task[None] | None = None

    @property
    def held(self) -> dict[str, Piece]:
        return self.history[-1].held

    def connect(self, watches: Watches) -> None:
        self._task = asyncio.create_task(self._watch(watches))

    async def disconnect(self, forget: int = 0) -> None:
        """Its connection is lost. ``forget``: how many of its last changes are lost with it."""
        if self._task:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
            self._task = None
        if forget:
            self.history = self.history[: max(1, len(self.history) - forget)]

    async def ended(self) -> None:
        """Its watch ends by itself. Raises what it ended with."""
        assert self._task is not None
        await asyncio.wait_for(self._task, 60)

    @property
    def connected(self) -> bool:
        return self._task is not None

    @property
    def watching(self) -> bool:
        return self._task is not None and not self._task.done()

    async def _watch(self, watches: Watches) -> None:
        token = self.history[-1].token
        if self.key:
            watching = watches.row(self.key, token)
        else:
            by = {"color": self.color} if self.color else {}
            watching = watches.many(by, token, lambda moment: first(moment, self.color))
        async for change in watching:
            self._take(change)

    def _take(self, change: Change) -> None:
        held = dict(self.held)
        known = {piece.version for piece in held.values()}
        for key, piece in change.rows.items():
            assert piece.version not in known, f"{key} is told twice"
            assert key not in held or held[key].version < piece.version, f"{key} steps back"
            held[key] = piece
        for key in change.left:
            assert held.pop(key, None) or self.key, f"{key} leaves, and was not there"
        self.history.append(Told(change.resume_token, held))


def _event(log: str, number: int, key: str, text: str) -> Recorded:
    return Recorded(
        log,
        number,
        StreamId("piece", key),
        number,
        UUID(int=number),
        "google.protobuf.StringValue",
        StringValue(value=text).SerializeToString(),
        Metadata("call", "rpc/Move", "", "client"),
        key,
        NO_ROUTING_KEY,
        START,
    )
