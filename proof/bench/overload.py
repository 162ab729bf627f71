"""What becomes of a shop that is asked for more than it can do: ``python -m proof.bench.overload``.

For each mode: what it can do is measured in a closed loop; then CreateOrder is called at several times that rate,
whatever happens, and after that at half of it. Then what it can do is measured again, since that changes by a quarter
on machines that others use as well: the mean counts. Times are those at which events were recorded.
"""

from __future__ import annotations

import argparse
import asyncio
import os
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from statistics import fmean
from time import perf_counter, time
from typing import Any, NamedTuple

import asyncpg

from proof.bench import budget
from proof.bench.load import Load, Spread
from proof.bench.systems import METHOD, System, started
from shop.orders.v1.events_pb2 import OrderRejected
from shop.orders.v1.order_pb2 import REJECTION_REASON_DEADLINE_EXCEEDED
from stack.topology import ROOT

_CLIENTS = 256
_NORMAL_SECONDS = 1.0
_AT_REST_SECONDS = 60.0
_SETTING = "ORDER_DEADLINE_SECONDS"
_ORDERS = """
    SELECT extract(epoch FROM c.recorded_at)::float8, extract(epoch FROM a.recorded_at)::float8,
           c.stream_id, a.type, a.payload
      FROM events c LEFT JOIN events a ON a.stream_type = c.stream_type AND a.stream_id = c.stream_id AND a.version = 2
     WHERE c.type LIKE '%.OrderCreated' AND c.position > $1 AND c.position <= $2
"""


@dataclass(frozen=True)
class Order:
    """An accepted order, in seconds since the epoch."""

    created: float
    ended: float
    expired: bool


@dataclass(frozen=True)
class Figures:
    """What came of an overload."""

    capacity: float
    """Sagas a second that the shop can finish, asked over as many connections."""
    goodput: float
    """Sagas a second that it finished while it was asked for more."""
    asked: int
    accepted: int
    expired: int
    """Of the accepted: ended by their deadline."""
    given_up: int
    """Calls that were not sent within their deadline: the server let no more through."""
    answer: float
    """Seconds from when a call was due until it was answered, 99th percentile of those that were sent."""
    served: float
    """The same from when it was sent: what is the server's share of it."""
    saga: float
    """Seconds from OrderCreated to its end, median of the accepted."""
    recovery: float
    """Seconds from the end of the overload until calls were accepted and finished as usual."""
    cost: float
    cost_overloaded: float
    """Processor microseconds of the shop's processes and servers a saga, before and during the overload. Where the
    machine has no processor to spare, their ratio is that of goodput and capacity; it does not see who else uses it."""

    def __str__(self) -> str:
        return (
            f"capacity {self.capacity:,.0f}/s, goodput {self.goodput:,.0f}/s ({self.goodput / self.capacity:.0%}), "
            f"asked {self.asked:,}, accepted {self.accepted:,}, expired {self.expired} "
            f"({self.expired / max(1, self.accepted):.1%}), given up {self.given_up:,}, "
            f"answers p99 {self.answer * 1e3:.0f} ms, of it the server's {self.served * 1e3:.0f} ms, "
            f"sagas p50 {self.saga * 1e3:.0f} ms, back to normal in {self.recovery:.1f} s, processor time a saga "
            f"{self.cost:,.0f} → {self.cost_overloaded:,.0f} µs ({self.cost / self.cost_overloaded:.0%})"
        )


async def overload(
    system: System,
    address: str,
    *,
    times: float,
    seconds: float,
    orders: int,
    patience_seconds: float,
    connections: int,
) -> Figures:
    """Asks for ``times`` what the system can do, for so many seconds. ``orders``: to measure that.

    Clients wait for ``patience_seconds`` to get a call through, over so many ``connections``: gRPC lets 320 calls on
    each be under way, and holds back what is more.
    """
    usual = Load(address, METHOD, refusals=True)
    crowd = Spread(*(Load(address, METHOD, refusals=True) for _ in range(connections)))
    await usual.closed(system.requests(orders // 4), _CLIENTS)  # a shop that has just started can do less
    await at_rest(system.log, 0)
    before = await _able(system, crowd, orders)

    since, began, spent = await system.position(), time(), budget.spent_by(system)
    calls = await crowd.open(
        system.requests(int(times * before.rate * seconds)), times * before.rate, patience_seconds
    )
    over, spent = time(), budget.spent_by(system) - spent
    calm = await usual.open(system.requests(int(2.5 * before.rate)), before.rate / 2)
    offset = time() - perf_counter()
    accepted = await at_rest(system.log, since)
    after = await _able(system, crowd, orders)

    during = [order for order in accepted if order.created < over]
    done = [order for order in accepted if began < order.ended <= over and not order.expired]
    late = [order.created for order in accepted if order.ended - order.created > _NORMAL_SECONDS]
    late += [call.due + offset for call in calm if not call.reply]
    return Figures(
        fmean([before.rate, after.rate]),
        len(done) / (over - began),
        len(calls),
        len(during),
        sum(order.expired for order in during),
        sum(not call.sent for call in calls),
        _at(0.99, [call.answered - call.due for call in calls if call.sent]),
        _at(0.99, [call.answered - call.sent for call in calls if call.sent]),
        _at(0.5, [order.ended - order.created for order in during]),
        max(0.0, max(late, default=over) - over),
        fmean([before.cost, after.cost]),
        spent / len(done),
    )


class _Able(NamedTuple):
    """What a system can do."""

    rate: float
    """Sagas a second."""
    cost: float
    """Processor microseconds a saga."""


async def _able(system: System, load: Spread, orders: int) -> _Able:
    """Measures it over these connections, with so many orders."""
    since, spent = await system.position(), budget.spent_by(system)
    await load.closed(system.requests(orders), _CLIENTS)
    ended = await at_rest(system.log, since)
    return _Able(rate(ended), (budget.spent_by(system) - spent) / len(ended))


async def at_rest(log: asyncpg.Connection[Any], since: int) -> list[Order]:
    """The orders accepted after a position of the log in a database until now, once all have ended.

    Raises TimeoutError.
    """
    upto = await log.fetchval("SELECT position FROM log_head")
    async with asyncio.timeout(_AT_REST_SECONDS):
        while True:
            rows = await log.fetch(_ORDERS, since, upto)
            if all(row[1] is not None for row in rows):
                return [Order(row[0], row[1], _expired(row[3], row[4])) for row in rows]
            await asyncio.sleep(0.5)


def rate(orders: Sequence[Order]) -> float:
    """Orders ended a second, from the first that was created to the last that ended."""
    return len(orders) / (max(order.ended for order in orders) - min(order.created for order in orders))


def _expired(type: str, payload: bytes) -> bool:
    if not type.endswith(".OrderRejected"):
        return False
    return OrderRejected.FromString(payload).reason == REJECTION_REASON_DEADLINE_EXCEEDED


def _at(share: float, values: Sequence[float]) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 0.0


async def main(options: argparse.Namespace) -> None:
    """Prints a line for each mode and repetition."""
    os.environ[_SETTING] = f"{options.deadline:g}"
    async with AsyncExitStack() as stack:
        data = ROOT / ".data" / "bench-overload"
        shop, systems = await stack.enter_async_context(started(data))
        for _ in range(options.rounds):
            for system in systems[1:]:
                if options.mode in ("", system.name):
                    figures = await overload(
                        system,
                        shop.orders,
                        times=options.times,
                        seconds=options.seconds,
                        orders=options.orders,
                        patience_seconds=options.patience,
                        connections=options.connections,
                    )
                    print(f"{system.name}: {figures}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m proof.bench.overload", description=__doc__)
    parser.add_argument("--times", type=float, default=5.0, help="how many times the capacity")
    parser.add_argument("--seconds", type=float, default=30.0, help="for how long")
    parser.add_argument("--deadline", type=float, default=5.0, help="of each order, in seconds")
    parser.add_argument("--patience", type=float, default=1.0, help="of clients, in seconds")
    parser.add_argument("--connections", type=int, default=8, help="while too much is asked for")
    parser.add_argument("--orders", type=int, default=8_000, help="to measure the capacity")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--mode", default="", help="choreography or orchestration; both by default")
    asyncio.run(main(parser.parse_args()))
