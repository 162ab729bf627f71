"""Consumers whose effects are not idempotent: they write down what each event says, so a double or a loss shows."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Protocol

from google.protobuf.wrappers_pb2 import Int64Value

from tests.dead_letters.journal import JOURNAL, Row, Write, dead_lettering
from twinlog import Log, Policies, PostgresViews, Projection, Recorded, Schema, View, ViewStore, Writer, on
from twinlog.consume.cursor import Handler
from twinlog.consume.policies import PolicyConsumer
from twinlog.testing.internals import PostgresLog, RandomIds, SystemClock

VIEWS_PACKAGE = "tests.dead_letters.sql"
KEY = "all"
KINDS = ("policies", "view")


class Kind(Protocol):
    """A consumer, apart from the replicas that work for it."""

    def replica(self) -> AbstractAsyncContextManager[Handler]:
        """A process's handler."""
        ...

    async def effects(self) -> Sequence[int]:
        """What was written down, in order."""
        ...


class PolicyKind:
    """A service that writes every event of the source down in a stream of its own log."""

    def __init__(self, source: str, log: Log) -> None:
        self._log = log
        self._policies = Policies(
            log=source,
            actor="tests",
            rules={Int64Value: lambda event: on(JOURNAL, KEY).do(Write(event.value))},
        )

    @asynccontextmanager
    async def replica(self) -> AsyncIterator[Handler]:
        async with Writer(self._log, schema=Schema(), clock=SystemClock(), ids=RandomIds()) as writer:
            yield dead_lettering(PolicyConsumer(self._policies, writer, self._log, Schema()), self._log)

    async def effects(self) -> Sequence[int]:
        events = await self._log.read(0, 10_000)
        return [Int64Value.FromString(event.payload).value for event in events]


class ViewKind:
    """A view with one row that grows by every event of the source."""

    def __init__(self, source: str, store: ViewStore) -> None:
        self._name = f"tests.{source}"
        self._store = store
        self._view = View("journal", lambda _event, _message: KEY, _evolve, events=[Int64Value])

    @asynccontextmanager
    async def replica(self) -> AsyncIterator[Handler]:
        projection = Projection(self._name, [self._view], self._store, schema=Schema())
        yield dead_lettering(projection, self._store.log)

    async def effects(self) -> Sequence[int]:
        row = (await self._store.rows(self._view, [KEY])).get(KEY)
        return [int(word) for word in row.written.split()] if row else []


def consumer_in(log: PostgresLog, source: str, kind: str) -> Kind:
    """A consumer whose store is Postgres; ``log`` was opened with the views' package."""
    if kind == "policies":
        return PolicyKind(source, log)
    return ViewKind(source, PostgresViews(log, VIEWS_PACKAGE, {"journal": Row}))


def _evolve(row: Row | None, event: Recorded, message: Any) -> Row:
    written = f"{row.written} {message.value}" if row else str(message.value)
    return Row(KEY, written, event.recorded_at)
