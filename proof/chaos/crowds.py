"""Faults of those who use a shop: too many calls, too many watchers, a session that locks a log."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Any
from uuid import UUID

import asyncpg
import grpc.aio
from google.type.money_pb2 import Money
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub

from proof.bench.load import Call, Load, Spread
from proof.bench.overload import at_rest, rate
from proof.chaos.load import MODES
from proof.chaos.stage import Stage
from shop.orders.v1.order_service_pb2 import CreateOrderRequest
from shop.orders.v1.saga_mode_pb2 import SagaMode
from stack.topology import ORDER_SVC
from twinlog.dev import StartFailed

_METHOD = "shop.orders.v1.OrderService/CreateOrder"
_TIMES = 5
_MEASURED = 600
_OVERLOAD_SECONDS = 6.0
_CLIENTS = 128
_CROWD = 8
"""Connections: each has room for 320 calls, and its client holds back what is more."""
_LATE_SECONDS = 1.0
_MOST_EXPIRED = 0.01
_LOCKED_SECONDS = 8.0
_SAYS_WITHIN_SECONDS = 4.0
_CONNECTIONS, _STREAMS = 16, 256
_IDLE: Sequence[tuple[str, bytes | None]] = [
    ("grpc.health.v1.Health/Watch", b""),
    ("grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", None),
]
_CHECK_SECONDS = 30.0
"""A busy machine is slow with what it does not refuse."""


async def overload(stage: Stage) -> None:
    """CreateOrder at five times what the shop can finish, first in one mode, then in the other."""
    [address] = stage.rig.addresses(ORDER_SVC.name)
    load = Load(address, _METHOD, refusals=True)
    crowd = Spread(*(Load(address, _METHOD, refusals=True) for _ in range(_CROWD)))
    async with stage.rig.connected(ORDER_SVC.database) as log:
        for mode in MODES:
            since = await _position(log)
            await load.closed(_requests(stage, mode, _MEASURED), _CLIENTS)
            capacity = rate(await at_rest(log, since))
            stage.say(f"mode {mode}: {_TIMES} times {capacity:,.0f} orders a second")
            since = await _position(log)
            many = _requests(stage, mode, int(_TIMES * capacity * _OVERLOAD_SECONDS))
            calls = await crowd.open(many, _TIMES * capacity)
            _judge(stage, calls, [order.expired for order in await at_rest(log, since)])


def _judge(stage: Stage, calls: Sequence[Call], expired: Sequence[bool]) -> None:
    refused = sum(not call.reply for call in calls)
    stage.say(f"{len(calls):,} calls, {refused:,} refused; {sum(expired)} of {len(expired):,} orders expired")
    if not refused and all(call.answered - call.due < _LATE_SECONDS for call in calls):
        stage.complain("no call was refused or held back: it was not too much")
    if sum(expired) > _MOST_EXPIRED * len(expired):
        stage.complain(f"{sum(expired)} of {len(expired)} accepted orders ended by their deadline")


async def _position(log: asyncpg.Connection[Any]) -> int:
    return int(await log.fetchval("SELECT position FROM log_head"))


def _requests(stage: Stage, mode: SagaMode.ValueType, many: int) -> list[bytes]:
    amount = Money(currency_code="EUR", nanos=10_000_000)
    ids = [str(UUID(int=stage.rng.getrandbits(128), version=4)) for _ in range(many)]
    return [
        CreateOrderRequest(
            request_id=id, customer_id=stage.load.rich, total=amount, saga_mode=mode
        ).SerializeToString()
        for id in ids
    ]


async def log_locked(stage: Stage) -> None:
    """An operator's session holds the lock of the log of orders: health says so, and all goes on afterwards."""
    [address] = stage.rig.addresses(ORDER_SVC.name)
    operator = await asyncpg.connect(
        f"{stage.rig.postgres.url}/{ORDER_SVC.database}", server_settings={"application_name": "operator"}
    )
    try:
        async with operator.transaction(), _own_channel(address) as channel:
            stage.say("a session holds the lock of the log of orders")
            await operator.execute("SELECT position FROM log_head FOR UPDATE")
            await stage.go_on(_SAYS_WITHIN_SECONDS)
            if await _status(channel) != HealthCheckResponse.NOT_SERVING:
                stage.complain(f"order_svc is SERVING {_SAYS_WITHIN_SECONDS:g} s after its log was locked")
            pid = f"pid {operator.get_server_pid()} (operator"
            if not any("writer.stalled" in line and pid in line for line in stage.rig.lines):
                stage.complain(f"order_svc does not say that {pid}) holds the lock")
            await stage.go_on(_LOCKED_SECONDS - _SAYS_WITHIN_SECONDS)
    finally:
        await operator.close()
    stage.say("the lock is free again")


async def watchers(stage: Stage) -> None:
    """4,096 idle streams of health and reflection on a few connections to each service: nobody else notices."""
    for service, replicas in stage.rig.replicas.items():
        async with AsyncExitStack() as stack:
            stage.say(f"{_CONNECTIONS * _STREAMS:,} idle streams to {service}")
            [replica] = replicas
            prober = await stack.enter_async_context(_own_channel(replica.address))
            connections = []
            for number in range(_CONNECTIONS):
                method, message = _IDLE[number % len(_IDLE)]
                idle = Load(replica.address, method, refusals=True).idle(_STREAMS, message)
                connections.append(await stack.enter_async_context(idle))
                if await _status(prober) != HealthCheckResponse.SERVING:
                    stage.complain(f"{service} is not SERVING beside idle streams")
            stage.say(f"{sum(connection.open for connection in connections):,} of them are left")
            await stage.go_on(1.0)


def _own_channel(address: str) -> grpc.aio.Channel:
    return grpc.aio.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)])


async def _status(channel: grpc.aio.Channel) -> int:
    stub: Any = HealthStub(channel)
    try:
        response = await stub.Check(HealthCheckRequest(), timeout=_CHECK_SECONDS)
    except grpc.aio.AioRpcError as error:
        raise StartFailed(f"a health check got {error.code().name}: {error.details()}") from error
    status: int = response.status
    return status
