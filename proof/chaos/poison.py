"""Poison: a newer version writes events that the running one does not know; then all processes are of the newer one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

import grpc
import grpc.aio
from google.protobuf.message import Message
from google.type.money_pb2 import Money

from proof.chaos.annotated import learn
from proof.chaos.load import MODES
from proof.chaos.stage import Stage
from proof.chaos.unreadable import append
from saga_orchestrator.credit_saga import CREDIT_SAGAS, saga_id
from shop.customers.v1 import customer_service_pb2 as customers
from shop.orders.v1 import order_service_pb2 as orders
from shop.orders.v1.saga_mode_pb2 import SAGA_MODE_CHOREOGRAPHY, SagaMode
from stack.topology import DATABASES, ROOT, SHOP_LOGS
from twinlog.dev import StartFailed
from twinlog.v1.dead_letters_pb2 import EventParked

_PARKED = "SELECT payload FROM events WHERE position > $1 AND type = 'twinlog.v1.EventParked'"
_CALL_SECONDS, _NOTICED_SECONDS, _NEIGHBORS_SECONDS = 5.0, 30.0, 20.0
_TRIES = 100
_VICTIMS = [
    (log, mode)
    for log in ("orders", "customers", "sagas")
    for mode in MODES
    if (log, mode) != ("sagas", SAGA_MODE_CHOREOGRAPHY)
]
_ORDERS = 3
"""Of each victim, one after the other; the last may be under way when its stream, or its saga's, becomes unreadable."""


async def poison(stage: Stage) -> None:
    """Streams of orders, customers and sagas get an event that no process knows; then every process knows it."""
    pids, heads = [replica.pid for replica in stage.rig.all], await _heads(stage)
    victims = [await _poisoned(stage, log, mode) for log, mode in _VICTIMS]
    keys = {victim["customer"] for victim in victims}
    await _until(stage, lambda: _are_set_aside(stage, heads), _NOTICED_SECONDS, "no event was set aside")
    await _until(stage, stage.load.goes_through, _NEIGHBORS_SECONDS, "the orders of others wait")
    await stage.go_on(3.0)
    for victim in victims:
        await _refused(stage, victim)
    if [replica.pid for replica in stage.rig.all] != pids:
        stage.complain("a process has ended")
    if others := await _parked(stage, heads) - keys:
        stage.complain(f"events of {len(others)} keys were set aside that have no unreadable stream")
    learn()
    for replica in stage.rig.all:
        stage.say(f"{replica} becomes a newer version")
        replica.env["PYTHONPATH"] = f"{ROOT / 'proof' / 'chaos' / 'newer'}:{ROOT}"
        await replica.stop()
        await replica.ready()
    await _until(stage, lambda: _is_empty(stage), _NOTICED_SECONDS * 2, "dead letters were not replayed")


async def _poisoned(stage: Stage, log: str, mode: SagaMode.ValueType) -> Mapping[str, str]:
    """A customer of its own, with orders; one stream of it is unreadable."""
    customer = (
        await _call(
            stage,
            "CreateCustomer",
            customers.CreateCustomerRequest(
                request_id=_id(stage), name="Ada", credit_limit=Money(currency_code="EUR", units=1000)
            ),
        )
    ).customer_id

    async def order() -> str:
        request = orders.CreateOrderRequest(
            request_id=_id(stage),
            customer_id=customer,
            total=Money(currency_code="EUR", units=1),
            saga_mode=mode,
        )
        return str((await _call(stage, "CreateOrder", request)).order_id)

    placed = [await order() for _ in range(_ORDERS)]
    stream = {"orders": placed[-1], "customers": customer, "sagas": saga_id(placed[-1])}[log]
    kind = {"orders": "order", "customers": "customer", "sagas": CREDIT_SAGAS.name}[log]
    there = "SELECT count(*) FROM events WHERE stream_type = $1 AND stream_id = $2"

    async def is_there() -> bool:
        return bool(await _fetch(stage, SHOP_LOGS[log], there, kind, stream))

    await _until(stage, is_there, _NOTICED_SECONDS, f"{kind}/{stream} did not begin")
    async with stage.rig.connected(SHOP_LOGS[log]) as connection:
        version = await append(connection, kind, stream, tag="-")
    stage.say(f"{kind}/{stream} is unreadable from version {version} on")
    if log == "customers":
        placed.append(await order())
    return {"log": log, "customer": customer, "order": placed[-1], "stream": f"{kind}/{stream}"}


async def _refused(stage: Stage, victim: Mapping[str, str]) -> None:
    """Complains unless a command for the stream is refused for what it is."""
    request: Message
    if victim["log"] == "orders":
        name, request = "CancelOrder", orders.CancelOrderRequest(order_id=victim["order"])
    elif victim["log"] == "customers":
        limit = Money(currency_code="EUR", units=2000)
        name = "ChangeCreditLimit"
        request = customers.ChangeCreditLimitRequest(customer_id=victim["customer"], credit_limit=limit)
    else:
        return
    try:
        await stage.load.clients.method(name, stage.rng)(request, timeout=_CALL_SECONDS)
        stage.complain(f"{name} went through although {victim['stream']} is unreadable")
    except grpc.aio.AioRpcError as error:
        if error.code() != grpc.StatusCode.FAILED_PRECONDITION or victim["stream"] not in str(
            error.details()
        ):
            stage.complain(f"{name} got {error.code().name}: {error.details()}")


async def _call(stage: Stage, name: str, request: Any) -> Any:
    """The answer of a command, which is repeated while there is none. Raises StartFailed."""
    for _ in range(_TRIES):
        try:
            return await stage.load.clients.method(name, stage.rng)(request, timeout=_CALL_SECONDS)
        except grpc.aio.AioRpcError as error:
            last = error
            await stage.go_on(0.3)
    raise StartFailed(f"{name} got {last.code().name}: {last.details()}")


async def _until(stage: Stage, condition: Any, seconds: float, otherwise: str) -> None:
    for _ in range(int(seconds / 0.3)):
        if await condition():
            return
        await stage.go_on(0.3)
    stage.complain(f"{otherwise} within {seconds:g} s")


async def _heads(stage: Stage) -> Mapping[str, int]:
    """The head of each database's log."""
    return {name: await _fetch(stage, name, "SELECT position FROM log_head") for name in DATABASES}


async def _parked(stage: Stage, heads: Mapping[str, int]) -> set[str]:
    """The keys of which events were set aside since."""
    rows = [row for name in DATABASES for row in await _rows(stage, name, _PARKED, heads[name])]
    return {EventParked.FromString(row[0]).key for row in rows}


async def _are_set_aside(stage: Stage, heads: Mapping[str, int]) -> bool:
    return bool(await _parked(stage, heads))


async def _is_empty(stage: Stage) -> bool:
    """Whether every event that was ever set aside is replayed."""
    count = """SELECT count(*) FILTER (WHERE type = 'twinlog.v1.EventParked')
                    - count(*) FILTER (WHERE type = 'twinlog.v1.EventReplayed') FROM events"""
    return not any([await _fetch(stage, name, count) for name in DATABASES])


async def _fetch(stage: Stage, database: str, query: str, *arguments: Any) -> Any:
    [row] = await _rows(stage, database, query, *arguments)
    return row[0]


async def _rows(stage: Stage, database: str, query: str, *arguments: Any) -> Sequence[Any]:
    async with stage.rig.connected(database) as connection:
        return list(await connection.fetch(query, *arguments))


def _id(stage: Stage) -> str:
    return str(UUID(int=stage.rng.getrandbits(128), version=4))
