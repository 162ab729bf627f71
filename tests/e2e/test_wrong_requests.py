"""Whatever is wrong in a request of any method of any service, its client is told of it, and nothing is appended.

The requests are made from the descriptors, so a new method or field is in it by itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf import descriptor_pool
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.type.money_pb2 import Money
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest
from grpc_reflection.v1alpha.reflection_pb2_grpc import ServerReflectionStub

from tests.controls import new_id
from tests.e2e.client import DATABASES, PATIENCE, Client, Refusal, refusal_of

pytestmark = pytest.mark.asyncio(loop_scope="package")

Path = tuple[FieldDescriptor, ...]
_KIND = FieldDescriptor
_LIBRARY = "twinlog.v1."
_AT_ONCE = 20
_DEEPEST = 4
_ANSWERS = {"OK", "INVALID_ARGUMENT", "NOT_FOUND", "ALREADY_EXISTS", "FAILED_PRECONDITION"}
"""What a client can do something about."""
_LATER = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED)
"""A service that has no time now says so of right and wrong requests alike; it is asked again, a few times."""
_TRIES = 4


async def test_every_wrong_field_of_every_method_is_named(client: Client) -> None:
    shop, turns = client.shop, asyncio.Semaphore(_AT_ONCE)
    correlation_id = new_id()
    known = {
        "order_id": (order_id := (await client.create(await client.customer())).order_id),
        "stream": f"order-{order_id}",
        "address": "orders/1",
        "view": "orders",
        "reason": "A test",
        "name": "Ada",
    }
    wrong, asked = dict[str, str](), set[str]()

    async def ask(channel: grpc.aio.Channel, method: MethodDescriptor, path: Path, request: Message) -> None:
        field = ".".join(each.name for each in path)
        async with turns:
            for _ in range(_TRIES):
                refused = await answer(channel, method, request, correlation_id)
                if refused.code not in _LATER:
                    break
                await asyncio.sleep(0.5)
        told = any(field.startswith(named) for named in refused.fields)
        if refused.code.name not in _ANSWERS or (is_always_wrong(method, path) and not told):
            wrong[f"{method.full_name}, {field}"] = f"{refused.code.name} {sorted(refused.fields)}"

    for address in (shop.orders, shop.customers, shop.sagas, shop.queries):
        async with grpc.aio.insecure_channel(address) as channel, asyncio.TaskGroup() as group:
            for method in await methods(channel):
                if method.full_name not in asked:
                    asked.add(method.full_name)
                    for path, request in requests(method, known):
                        group.create_task(ask(channel, method, path, request))
    assert wrong == {}
    assert {"shop.orders.v1.OrderService.CreateOrder", "twinlog.v1.SnapshotService.DropSnapshots"} <= asked
    condition = "metadata->>'correlation_id' = $1"
    assert sum([await client.count(log, condition, correlation_id) for log in DATABASES]) == 0


async def methods(channel: grpc.aio.Channel) -> list[MethodDescriptor]:
    """Those of a server's services, without reflection's own."""
    ask = ServerReflectionStub(channel).ServerReflectionInfo
    [listed] = [
        answer async for answer in ask(iter([ServerReflectionRequest(list_services="")]), timeout=PATIENCE)
    ]
    pool = descriptor_pool.Default()
    services = [pool.FindServiceByName(each.name) for each in listed.list_services_response.service]
    return [
        method
        for service in services
        if not service.full_name.startswith("grpc.reflection.")
        for method in service.methods
    ]


def requests(method: MethodDescriptor, known: dict[str, str]) -> Iterator[tuple[Path, Message]]:
    """For each field, requests in which it is wrong, or odd; the others are as a client would have them."""
    kind = GetMessageClass(method.input_type)
    for path in paths(method.input_type):
        for value in values(path[-1]):
            request = kind()
            for field in method.input_type.fields:
                if field.name in known:
                    setattr(request, field.name, known[field.name])
                elif field.name == "customer_id":
                    setattr(request, field.name, new_id())
                elif field.message_type is Money.DESCRIPTOR:
                    getattr(request, field.name).MergeFrom(Money(currency_code="EUR", units=1))
            put(request, path, value)
            yield path, request


def paths(message: Descriptor, before: Path = ()) -> Iterator[Path]:
    """To each field of a message that holds a value, and of those in it."""
    for field in message.fields:
        path = (*before, field)
        if field.message_type is None:
            yield path
        elif len(path) < _DEEPEST:
            yield from paths(field.message_type, path)


def values(field: FieldDescriptor) -> list[Any]:
    """What is wrong or odd in a field of this kind; no value of a flag is."""
    match field.type:
        case _KIND.TYPE_STRING:
            return ["a-\0"]
        case _KIND.TYPE_BYTES:
            return [b"\0\xff" * 10_000]
        case _KIND.TYPE_ENUM:
            return [42, -1]
        case _KIND.TYPE_INT32:
            return [-(2**31)]
        case _KIND.TYPE_INT64:
            return [-(2**63)]
        case _KIND.TYPE_DOUBLE:
            return [float("nan"), -1.0, float("inf")]
    return []


def is_always_wrong(method: MethodDescriptor, path: Path) -> bool:
    """Whether what :func:`values` has for a field is to be refused by name.

    A text with a NUL character may be a name that nothing has, in a method of another service than the library's. Bytes
    may be any.
    """
    if path[-1].type == _KIND.TYPE_BYTES:
        return False
    return path[-1].type != _KIND.TYPE_STRING or method.full_name.startswith(_LIBRARY)


def put(message: Any, path: Path, value: Any) -> None:
    """Sets a field, and of a list its one element."""
    for field in path[:-1]:
        message = getattr(message, field.name)
        if field.is_repeated:
            message = message.add()
    if path[-1].is_repeated:
        getattr(message, path[-1].name).append(value)
    else:
        setattr(message, path[-1].name, value)


async def answer(
    channel: grpc.aio.Channel, method: MethodDescriptor, request: Message, correlation_id: str
) -> Refusal:
    """The refusal, or OK with what comes first."""
    kind = channel.unary_stream if method.server_streaming else channel.unary_unary
    call = kind(
        f"/{method.containing_service.full_name}/{method.name}",
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=GetMessageClass(method.output_type).FromString,
    )(request, timeout=PATIENCE, metadata=(("x-correlation-id", correlation_id),))
    try:
        await (call.read() if method.server_streaming else call)
        call.cancel()
    except grpc.aio.AioRpcError as error:
        return refusal_of(error)
    return Refusal(grpc.StatusCode.OK, "", set(), {})
