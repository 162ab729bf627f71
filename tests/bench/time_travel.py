"""How long a look at the past takes: ``python -m tests.bench.time_travel [EVENTS]``.

A customer with so many events (100,000 by default: reservations and releases of orders, half of them) is read at random
versions, positions and times, from Postgres, and the median is printed; beside it what a rebuild takes, which begins at
the first event and keeps the snapshots on its way.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from random import Random
from statistics import median, quantiles
from time import perf_counter, process_time
from typing import NamedTuple

import grpc.aio
from google.protobuf.message import Message

from customer_svc.domain import CUSTOMER
from projector.views.customers import CUSTOMERS, CustomerRow
from shop.customers.v1.events_pb2 import CreditReleased, CreditReserved, CustomerCreated
from twinlog import Log, Metadata, Money, Schema, StreamId
from twinlog.dev import EmbeddedPostgres
from twinlog.log.history import History, LogHistory
from twinlog.log.past import Moment
from twinlog.log.past_rows import PastRows
from twinlog.log.time_travel import TimeTravel
from twinlog.model.event import NewEvent
from twinlog.rpc import serve
from twinlog.rpc.history_service import HistoryService
from twinlog.rpc.peers import Peers, RemoteHistory
from twinlog.rpc.registrations import registrations
from twinlog.testing.internals import Batch, RandomIds, open_log
from twinlog.testing.servers import postgres_server

EVENTS = 100_000
_LOOKS = 200
_BATCH = 100
_IDS = RandomIds()
_CUSTOMER = "01890a5d-ac96-774b-bcce-b302099a8057"
_STREAM = StreamId(CUSTOMER.name, _CUSTOMER)
_BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
_WEEK, _OF_WEEK = 2922, 20_000
"""The first week, and events of each: orders that were settled long ago are forgotten."""


def _messages(count: int) -> Iterator[Message]:
    """A customer's events: of four orders, all but one are released again."""
    yield CustomerCreated(customer_id=_CUSTOMER, name="Ada", credit_limit=Money(10**18, "EUR").to_proto())
    amount = Money(10**9, "EUR").to_proto()
    made = 1
    while True:
        order = str(_IDS.uuid7())
        fields = {"customer_id": _CUSTOMER, "order_id": order, "amount": amount}
        yield CreditReserved(**fields, week=_WEEK + made // _OF_WEEK)
        yield CreditReleased(**fields)
        if (made := made + 2) >= count:
            return


async def fill(log: Log, count: int) -> None:
    """Appends so many events to the customer's stream, a second apart."""
    events: list[NewEvent] = []
    for version, message in enumerate(islice(_messages(count + 2), count), 1):
        events.append(
            NewEvent.of(_STREAM, version, _IDS.uuid7(), message, Metadata("c", "rpc/Fill"), _CUSTOMER)
        )
        if len(events) == _BATCH or version == count:
            at = _BEGAN + timedelta(seconds=version)
            await log.append(Batch(at, {_STREAM: version - len(events)}, events))
            events = []


class Taken(NamedTuple):
    """What looks took, in milliseconds."""

    median: float
    most: float
    """The 90th percentile."""
    processor: float
    """The median of this process's processor time, which other programs on the machine hardly change."""

    def __str__(self) -> str:
        return (
            f"{self.median:.1f} ms at the median, {self.most:.1f} ms at the 90th percentile; "
            f"{self.processor:.1f} ms of this process's processor time"
        )


async def measured(looks: int, look: Callable[[], Awaitable[object]]) -> Taken:
    """What so many looks take."""
    took, worked = [], []
    for _ in range(looks):
        began, before = perf_counter(), process_time()
        await look()
        took.append((perf_counter() - began) * 1e3)
        worked.append((process_time() - before) * 1e3)
    return Taken(median(took), quantiles(took, n=10)[-1], median(worked))


async def bench(postgres: EmbeddedPostgres, count: int) -> None:
    """Prints what looks take."""
    random = Random(17)
    async with open_log(postgres.url, "past", "customers") as log:
        await fill(log, count)
        past = TimeTravel(log, Schema())
        began = perf_counter()
        await past.rebuild(CUSTOMER, _CUSTOMER)
        print(f"{count:,} events, from the first one, keeping snapshots: {perf_counter() - began:.1f} s")

        def at_version() -> Awaitable[object]:
            return past.state(CUSTOMER, _CUSTOMER, Moment(version=random.randint(1, count)))

        def at_position() -> Awaitable[object]:
            return past.state(CUSTOMER, _CUSTOMER, Moment(position=random.randint(1, count)))

        def at_time() -> Awaitable[object]:
            time = _BEGAN + timedelta(seconds=random.randint(1, count))
            return past.state(CUSTOMER, _CUSTOMER, Moment(time=time))

        for name, look in (("version", at_version), ("position", at_position), ("time", at_time)):
            print(f"at a random {name}: {await measured(_LOOKS, look)}")
        await rows(log, count)


async def rows(log: Log, count: int) -> None:
    """Prints what looks at a row of a view take, folded from the log of another service over gRPC."""
    random = Random(17)
    [registration] = registrations(HistoryService(log, Peers(LogHistory(log))))
    async with (
        serve([registration], domain="shop") as server,
        grpc.aio.insecure_channel(server.address) as channel,
    ):
        remote = RemoteHistory("customers", "customer_svc", channel)

        async def history(_log: str) -> History:
            return remote

        past = PastRows(history, log, Schema())

        def row(version: int) -> Awaitable[object]:
            moment = Moment(version=version)
            return past.row(CUSTOMERS, CustomerRow, "customers", _STREAM, _CUSTOMER, moment)

        for version in range(10_000, count + 1, 10_000):  # keeps rows on the way
            await row(version)
        took = await measured(_LOOKS, lambda: row(random.randint(1, count)))
        print(f"a row of a view at a random version, over gRPC: {took}")


async def main(count: int) -> None:
    async with postgres_server() as postgres:
        await bench(postgres, count)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else EVENTS))
