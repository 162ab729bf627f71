"""Every limit that a proto documents is the one that is kept: the last value within it is taken, the next is refused.

The requests are made from the protos and their comments, so a new field that tells its limit is in it by itself.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import grpc.aio
import pytest
from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.type.money_pb2 import Money

from tests.controls import new_id
from tests.docs.grpc_page import fields
from tests.e2e.client import Client
from tests.e2e.test_wrong_requests import Path, answer, methods, paths

_LIMIT = re.compile(r"\b(?:(?P<least>\d[\d,]*) to|up to) (?P<most>\d[\d,]*)\b")
_AT_ONCE = 20
_ANSWERS = {"OK", "INVALID_ARGUMENT", "NOT_FOUND", "FAILED_PRECONDITION"}


class Limit(NamedTuple):
    least: int
    """0: the field may be left out."""
    most: int


class Asked(NamedTuple):
    """A request with a value at a limit."""

    field: str
    request: Message
    size: int
    within: bool


@pytest.mark.asyncio(loop_scope="package")
async def test_every_documented_limit_is_the_one_that_is_kept(client: Client) -> None:
    shop, turns, correlation_id = client.shop, asyncio.Semaphore(_AT_ONCE), new_id()
    limits, wrong, asked = documented(), dict[str, str](), set[str]()

    async def ask(channel: grpc.aio.Channel, method: MethodDescriptor, one: Asked) -> None:
        async with turns:
            told = await answer(channel, method, one.request, correlation_id)
        if told.code.name not in _ANSWERS or (one.field in told.fields) == one.within:
            wrong[f"{method.full_name}, {one.field} of {one.size}"] = (
                f"{told.code.name} {sorted(told.fields)}"
            )

    for address in (shop.orders, shop.customers, shop.sagas, shop.queries):
        async with grpc.aio.insecure_channel(address) as channel, asyncio.TaskGroup() as group:
            for method in await methods(channel):
                if method.full_name not in asked:
                    asked.add(method.full_name)
                    for one in requests(method, limits):
                        group.create_task(ask(channel, method, one))
    assert wrong == {}


def test_limits_are_read_from_the_protos() -> None:
    limits = documented()
    assert limits["shop.queries.v1.ListOrdersRequest", "page_size"] == Limit(1, 1000)
    assert limits["twinlog.v1.ReadLogRequest", "newest"] == Limit(1, 10_000)
    assert limits["twinlog.v1.ReadCorrelatedRequest", "around"] == Limit(0, 100)
    assert limits["twinlog.v1.DiscardDeadLettersRequest", "reason"] == Limit(1, 200)
    assert limits["twinlog.v1.ReplayDeadLettersRequest", "per_second"] == Limit(0, 10_000)


def documented() -> Mapping[tuple[str, str], Limit]:
    """By message and field."""
    found = ((message, field, _LIMIT.search(comment)) for message, field, comment in fields())
    return {
        (message, field): Limit(_number(of["least"]), _number(of["most"]))
        for message, field, of in found
        if of
    }


def _number(text: str | None) -> int:
    return int((text or "0").replace(",", ""))


def requests(method: MethodDescriptor, limits: Mapping[tuple[str, str], Limit]) -> Iterator[Asked]:
    """For each limit, requests on both of its sides; nothing is done that a dry run can be asked of."""
    for path in paths_to_lists(method):
        field = path[-1]
        assert field.containing_type is not None
        limit = limits.get((field.containing_type.full_name, field.name))
        if limit is None:
            continue
        counts = field.is_repeated or field.type == FieldDescriptor.TYPE_STRING
        lowest = limit.least - 1 if counts else -1  # of a number, 0 stands for one of within
        for size in (lowest, lowest + 1, max(limit.least, 1), limit.most - 1, limit.most, limit.most + 1):
            if size >= 0 or not counts:
                request = usual(method)
                fill(request, path, size)
                yield Asked(".".join(each.name for each in path), request, size, lowest < size <= limit.most)


def paths_to_lists(method: MethodDescriptor) -> Iterator[Path]:
    """To each field that holds a value, or a list of messages."""
    yield from paths(method.input_type)
    yield from ((field,) for field in method.input_type.fields if field.is_repeated and field.message_type)


def usual(method: MethodDescriptor) -> Any:
    """A request as a client would have it."""
    request: Any = GetMessageClass(method.input_type)()
    for field in method.input_type.fields:
        match field.name:
            case "customer_id" | "order_id":
                setattr(request, field.name, new_id())
            case "reason" | "name":
                setattr(request, field.name, "A test")
            case "dry_run":
                request.dry_run = True
            case "correlation_ids":
                request.correlation_ids.append(new_id())
            case _ if field.message_type is Money.DESCRIPTOR:
                getattr(request, field.name).MergeFrom(Money(currency_code="EUR", units=1))
    return request


def fill(message: Any, path: Path, size: int) -> None:
    """Gives a field a value, a text or a list of a size."""
    *before, field = path
    for each in before:
        message = getattr(message, each.name)
    if not field.is_repeated:
        setattr(message, field.name, "x" * size if field.type == FieldDescriptor.TYPE_STRING else size)
        return
    message.ClearField(field.name)
    for number in range(size):
        if field.message_type:
            getattr(message, field.name).add(seconds=number)
        else:
            getattr(message, field.name).append(new_id())
