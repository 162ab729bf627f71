"""How far the views are, which queries wait for them, and which rows are watched.

The replica that projects knows of its own commits at once, and announces them to the others by a core NATS message.
Anybody can send such a message, and any can get lost: it is a hint to look at the checkpoints, never believed. Hints
that come together are one look, and without any, every process looks once a second, however many clients wait.
"""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any, Protocol
from uuid import uuid4

from twinlog.log.view_store import ViewStore
from twinlog.model.errors import Unavailable
from twinlog.model.view import Changes
from twinlog.rpc import tokens
from twinlog.rpc.entrance import aside

SUBJECT = "views.changed"
_KEYS = "orders"
"""What a message calls the keys of changed rows: 0.1.0 knew of no others than the shop's orders."""
_LOOK_EVERY_SECONDS = 1.0
_LOOKS_APART_SECONDS = 0.01
"""The least time between two looks: however many hints and queries there are, they cost 100 looks a second."""
ANY = ""
"""What a watcher of no row in particular watches."""
_MAX_KEYS_ANNOUNCED = 2_000
"""In one message, which NATS limits to 1 MiB."""
_MAX_HINT_BYTES = 256 * 1024
"""A longer message comes from somebody else, and is dropped unread."""


class Messages(Protocol):
    """Short messages between replicas. They may get lost, and anybody may send one: a hint to look, never a fact."""

    async def publish(self, subject: str, payload: bytes) -> None:
        """Sends to the present subscribers."""

    async def subscribe(self, subject: str, *, cb: Callable[[Any], Awaitable[None]]) -> Any:
        """``cb`` gets each message; its bytes are ``data``."""


class ViewLagging(Unavailable):
    """The view of log {log} is at position {reached}, not yet at {wanted}; try again with more time."""

    reason = "VIEW_LAGGING"


class Freshness:
    """The positions that the views have reached, by log."""

    def __init__(self, consumers: Mapping[str, str], held: Callable[[], bool] = lambda: False) -> None:
        """``consumers``: the log that each consumer reads. ``held``: whether what is read is being changed; until it
        is, nothing newer is told, which the next build might not have.
        """
        self._held = held
        self._logs = dict(consumers)
        self._reached: dict[str, int] = dict.fromkeys(consumers, 0)
        """By consumer."""
        self.positions: dict[str, int] = dict.fromkeys(consumers.values(), 0)
        """What all consumers of a log have reached."""
        self.wants_look = asyncio.Event()
        """Set where somebody waits for what only a look at the checkpoints can tell."""
        self._advanced = asyncio.Event()
        self._waiting = 0
        self._looked = asyncio.Event()
        self._looks_begun = self._looks_ended = 0
        self._token: str | None = None
        self._watchers: dict[str, set[asyncio.Event]] = defaultdict(set)
        self._hinted: dict[str, int] = {}
        """The positions that views may have reached, by log, as far as hints since the last look go."""
        self._maybe_changed: set[str] = set()

    def changed(self, consumer: str, position: int, keys: Iterable[str]) -> None:
        """Notes that a view has advanced and which rows have changed; wakes the queries and watchers concerned."""
        self.advanced(consumer, position)
        self.wake(keys)
        self.wake([ANY, consumer])

    def advanced(self, consumer: str, position: int) -> None:
        """Notes that a view has advanced; wakes the queries that wait for it."""
        log = self._logs.get(consumer)
        if log is not None and position > self._reached[consumer]:
            self._reached[consumer] = position
            self._recount(log)

    def follow(self, consumers: Mapping[str, str], positions: Mapping[str, int]) -> None:
        """From now on these consumers keep what is read, by consumer the log; they are at least as far as those
        before."""
        self._logs = dict(consumers)
        self._reached = {name: max(self._reached.get(name, 0), positions.get(name, 0)) for name in consumers}
        for log in {*consumers.values()}:
            self._recount(log)

    def _recount(self, log: str) -> None:
        if self._held():
            return
        reached = min(self._reached[name] for name, of in self._logs.items() if of == log)
        if reached > self.positions[log]:
            self.positions[log] = reached
            self._token = None
            self._advanced.set()
            self._advanced = asyncio.Event()

    def hinted(self, consumer: str, position: int, keys: Collection[str]) -> None:
        """Has the checkpoints looked at if the hint, true or not, is about a waiting query or a watched row."""
        log = self._logs.get(consumer)
        watched = self._watchers.keys() & {*keys, *([ANY, consumer] if log else [])} if self._watchers else ()
        self._maybe_changed.update(watched)
        if log is not None and position > self.positions[log]:
            self._hinted[log] = position
        if watched or (self._waiting and self._hinted):
            self.wants_look.set()

    def begin_look(self) -> Collection[str]:
        """Forgets the hints, as the truth is about to be known; gives the watched rows that they named."""
        named, self._maybe_changed, self._hinted = self._maybe_changed, set(), {}
        self.wants_look.clear()
        self._looks_begun += 1
        return named

    def wake_all(self) -> None:
        """Wakes every watcher, as a hint may have been lost."""
        self.wake(self._watchers)

    def wake(self, keys: Iterable[str]) -> None:
        for key in keys:
            for watcher in self._watchers.get(key, ()):
                watcher.set()

    async def reached(self, wanted: Mapping[str, int], seconds: float) -> None:
        """Returns once the views are at the wanted positions. Raises ViewLagging after ``seconds``."""
        if lagging := self._lagging(wanted):
            if self._hinted.keys() & lagging.keys():
                self.wants_look.set()
            self._waiting += 1
            try:
                with aside(), suppress(TimeoutError):
                    async with asyncio.timeout(seconds):
                        while self._lagging(wanted):
                            await self._advanced.wait()
            finally:
                self._waiting -= 1
        for log, position in self._lagging(wanted).items():  # none if the last advance came with the timeout
            raise ViewLagging(log=log, reached=self.positions[log], wanted=position)

    @property
    def token(self) -> str:
        """The consistency token of what the views have reached, at least."""
        if self._token is None:
            self._token = tokens.write(self.positions)
        return self._token

    async def staleness(self, wanted: Mapping[str, int], seconds: float) -> Mapping[str, int]:
        """How many events the views lack of the wanted positions, by log; empty where they are there.

        The checkpoints are looked at first, for ``seconds`` at most. A look that has begun already may not see what
        another replica has answered with by now, so the next one is waited for.
        """
        if self._lagging(wanted):
            next_look = self._looks_begun + 1
            self.wants_look.set()
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    while self._looks_ended < next_look and self._lagging(wanted):
                        await self._looked.wait()
        return {log: position - self.positions[log] for log, position in self._lagging(wanted).items()}

    def end_look(self) -> None:
        self._looks_ended = self._looks_begun
        self._looked.set()
        self._looked = asyncio.Event()

    def _lagging(self, wanted: Mapping[str, int]) -> Mapping[str, int]:
        return {log: position for log, position in wanted.items() if self.positions[log] < position}

    @asynccontextmanager
    async def watching(self, *keys: str) -> AsyncIterator[asyncio.Event]:
        """An event that is set whenever a row with one of these keys may have changed; the watcher clears it.

        The name of a consumer stands for every row that it changes.
        """
        changed = asyncio.Event()
        for key in keys:
            self._watchers[key].add(changed)
        try:
            yield changed
        finally:
            for key in keys:
                self._watchers[key].discard(changed)
                if not self._watchers[key]:
                    del self._watchers[key]


class Announcer:
    """Announces what this replica commits, and looks at the checkpoints when others may have committed."""

    def __init__(
        self,
        messages: Messages,
        store: ViewStore,
        freshness: Freshness,
        watched: Collection[str] | None = None,
    ) -> None:
        """``watched``: the names of the views whose rows are watched; by default all that do not only grow."""
        self._messages = messages
        self._watched = watched
        self._store = store
        self._freshness = freshness
        self._outbox: asyncio.Queue[bytes] = asyncio.Queue(maxsize=1_000)
        self._me = str(uuid4())

    def committed(self, consumer: str, position: int, changes: Changes) -> None:
        keys = [
            key
            for view, rows in changes.items()
            if (not view.append_only if self._watched is None else view.name in self._watched)
            for key in rows
        ]
        self._freshness.changed(consumer, position, keys)
        if not self._outbox.full():
            message = {
                "from": self._me,
                "consumer": consumer,
                "position": position,
                _KEYS: keys[:_MAX_KEYS_ANNOUNCED],
            }
            self._outbox.put_nowait(json.dumps(message).encode())

    async def run(self) -> None:
        """Announces, listens and looks until it is cancelled."""
        await self._messages.subscribe(SUBJECT, cb=self._heard)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._announce())
            tasks.create_task(self._look())

    async def _announce(self) -> None:
        while True:
            await self._messages.publish(SUBJECT, await self._outbox.get())

    async def _heard(self, message: Any) -> None:
        if len(message.data) > _MAX_HINT_BYTES:
            return
        with suppress(ValueError, RecursionError):
            match json.loads(message.data):
                case {"from": self._me}:
                    pass  # what this replica commits, it knows
                case {"consumer": str(consumer), "position": int(position), "orders": [*keys]}:
                    self._freshness.hinted(consumer, position, {key for key in keys if isinstance(key, str)})

    async def _look(self) -> None:
        """Looks when a query waits for a position; those that wait for time alone are woken once a second."""
        loop = asyncio.get_running_loop()
        woken = loop.time()
        seen: Mapping[str, int] = {}
        seen_then = seen
        while True:
            began, named = loop.time(), self._freshness.begin_look()
            seen = await self._checkpoints() or seen
            for consumer, position in seen.items():
                self._freshness.advanced(consumer, position)
            self._freshness.end_look()
            self._freshness.wake(named)
            if loop.time() - woken >= _LOOK_EVERY_SECONDS:
                if seen != seen_then:
                    self._freshness.wake_all()
                woken, seen_then = loop.time(), seen
            await asyncio.sleep(began + _LOOKS_APART_SECONDS - loop.time())
            with suppress(TimeoutError):
                async with asyncio.timeout_at(woken + _LOOK_EVERY_SECONDS):
                    await self._freshness.wants_look.wait()

    async def _checkpoints(self) -> Mapping[str, int]:
        """How far the views are; empty while the database is away."""
        try:
            return await self._store.checkpoints()
        except Unavailable:
            return {}
