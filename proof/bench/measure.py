"""The measurements: rates in a closed loop, latencies with one client and at a fixed rate."""

from __future__ import annotations

from time import perf_counter, process_time
from typing import NamedTuple

from proof.bench.systems import EVENTS_OF_ORDER, System
from shop.orders.v1 import order_service_pb2 as pb

_CLIENTS = 256


class Rates(NamedTuple):
    """What a system does when it is asked for all that it can."""

    sagas: float
    """Orders approved in the view, a second, from the first call to the last approval."""
    accepted: float
    """CreateOrder calls answered, a second, while the sagas run behind them."""
    generator: float
    """Processor seconds of the load generator a call: whether it was the bottleneck."""


class Latency(NamedTuple):
    """Seconds from when CreateOrder was to be sent until APPROVED was committed in the view."""

    p50: float
    p99: float


async def rates(system: System, count: int) -> Rates:
    """``count`` orders from 256 clients at once."""
    messages = system.requests(count)
    before, spent = await system.position(), process_time()
    calls = await system.load.closed(messages, _CLIENTS)
    spent = process_time() - spent
    accepted = max(call.answered for call in calls)
    visible = await system.view.reached(before + EVENTS_OF_ORDER * count)
    start = calls[0].due
    return Rates(count / (visible - start), count / (accepted - start), spent / count)


async def one_client(system: System, count: int) -> Latency:
    """One order after the other, each when the one before is approved in the view."""
    position, took = await system.position(), []
    for message in system.requests(count):
        position += EVENTS_OF_ORDER
        start = perf_counter()
        await system.load.closed([message], 1)
        took.append(await system.view.reached(position) - start)
    return _latency(took)


async def at_rate(system: System, rate: float, seconds: float) -> Latency:
    """``rate`` orders a second whatever happens: an open loop, each latency from the time the call was due."""
    messages = system.requests(int(rate * seconds))
    before = await system.position()
    calls = await system.load.open(messages, rate)
    await system.view.reached(before + EVENTS_OF_ORDER * len(messages))
    positions = await system.approved(before)
    sent = {pb.CreateOrderResponse.FromString(call.reply).order_id: call.due for call in calls}
    order = sorted(sent, key=positions.__getitem__)
    seen = system.view.times([positions[order_id] for order_id in order])
    return _latency([time - sent[order_id] for order_id, time in zip(order, seen, strict=True)])


def _latency(took: list[float]) -> Latency:
    ordered = sorted(took)
    return Latency(ordered[len(ordered) // 2], ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))])
