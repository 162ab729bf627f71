"""How far the views are, which queries wait for them, and which orders are watched.

The replica that projects hears of its own commits at once and announces them to the others by a core NATS message.
Messages can be lost, so every process also reads the checkpoints once a second, however many clients wait.
"""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import structlog
from nats.aio.msg import Msg
from nats.errors import Error as NatsError

from twinlog import PostgresViews, Service, Unavailable, View

SUBJECT = "views.changed"
_LOOK_EVERY_SECONDS = 1.0
_MAX_ORDERS_ANNOUNCED = 2_000
"""In one message, which NATS limits to 1 MiB."""

Changes = Mapping[View[Any], Mapping[str, Any]]
"""Changed rows, by view and key."""


class ViewLagging(Unavailable):
    """The view of log {log} is at position {reached}, not yet at {wanted}; try again with more time."""

    reason = "VIEW_LAGGING"


class Freshness:
    """The positions that the views have reached, by log."""

    def __init__(self, consumers: Mapping[str, str]) -> None:
        """``consumers``: the log that each consumer reads."""
        self._logs = consumers
        self.positions: dict[str, int] = dict.fromkeys(consumers.values(), 0)
        self._advanced = asyncio.Event()
        self._watchers: dict[str, set[asyncio.Event]] = defaultdict(set)

    def changed(self, consumer: str, position: int, order_ids: Iterable[str]) -> None:
        """Notes that a view has advanced and which orders have changed; wakes the queries and watchers concerned."""
        log = self._logs[consumer]
        if position > self.positions[log]:
            self.positions[log] = position
            self._advanced.set()
            self._advanced = asyncio.Event()
        for order_id in order_ids:
            for watcher in self._watchers.get(order_id, ()):
                watcher.set()

    def wake_all(self) -> None:
        """Wakes every watcher, as an announcement may have been lost."""
        for watchers in self._watchers.values():
            for watcher in watchers:
                watcher.set()

    @property
    def watched(self) -> bool:
        """Whether any order is watched."""
        return bool(self._watchers)

    async def reached(self, wanted: Mapping[str, int], seconds: float) -> None:
        """Returns once the views are at the wanted positions. Raises ViewLagging after ``seconds``."""
        try:
            async with asyncio.timeout(seconds):
                for log, position in wanted.items():
                    while self.positions[log] < position:
                        await self._advanced.wait()
        except TimeoutError as error:
            for log, position in wanted.items():  # none if the last advance came with the timeout
                if self.positions[log] < position:
                    raise ViewLagging(log=log, reached=self.positions[log], wanted=position) from error

    @asynccontextmanager
    async def watching(self, order_id: str) -> AsyncIterator[asyncio.Event]:
        """An event that is set whenever the order may have changed; the watcher clears it."""
        changed = asyncio.Event()
        self._watchers[order_id].add(changed)
        try:
            yield changed
        finally:
            self._watchers[order_id].discard(changed)
            if not self._watchers[order_id]:
                del self._watchers[order_id]


class Announcer:
    """Announces what this replica commits, and hears what others do."""

    def __init__(self, service: Service, store: PostgresViews, freshness: Freshness) -> None:
        self._messages = service.messages
        self._store = store
        self._freshness = freshness
        self._outbox: asyncio.Queue[bytes] = asyncio.Queue(maxsize=1_000)

    def committed(self, consumer: str, position: int, changes: Changes) -> None:
        """A batch has been committed to the views."""
        order_ids = [id for view, rows in changes.items() if view.name == "orders" for id in rows]
        self._freshness.changed(consumer, position, order_ids)
        if not self._outbox.full():
            message = {
                "consumer": consumer,
                "position": position,
                "orders": order_ids[:_MAX_ORDERS_ANNOUNCED],
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
            message = await self._outbox.get()
            try:
                await self._messages.publish(SUBJECT, message)
            except NatsError as error:
                structlog.get_logger().debug("views.not_announced", error=str(error))

    async def _heard(self, message: Msg) -> None:
        heard = json.loads(message.data)
        self._freshness.changed(heard["consumer"], heard["position"], heard["orders"])

    async def _look(self) -> None:
        seen: dict[str, int] = {}
        while True:
            try:
                found = await self._store.checkpoints()
            except Unavailable:
                found = seen
            for consumer, position in found.items():
                self._freshness.changed(consumer, position, ())
            if found != seen:
                self._freshness.wake_all()
            seen = found
            await asyncio.sleep(_LOOK_EVERY_SECONDS)
