"""docs/how-to/http.md: its files are an HTTP edge, called here without a server."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from order_svc.domain import ORDER, SAGA_MODE
from order_svc.service import OrderService
from shop.orders.v1.events_pb2 import OrderCreated
from tests.controls import new_id
from tests.docs.test_how_to import written
from tests.mistakes.test_start import service
from twinlog.rpc import Commands
from twinlog.testing import MemoryLog

TOTAL = {"currencyCode": "EUR", "units": "12"}


@pytest.fixture
def routes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.syspath_prepend(str(tmp_path))
    edge, routes = written("http.md", tmp_path)
    assert edge == "order_http.edge"
    yield import_module(routes)
    for name in [name for name in sys.modules if name.partition(".")[0] == "order_http"]:
        del sys.modules[name]


@pytest.fixture
def log() -> MemoryLog:
    return MemoryLog("rooms")


@pytest.fixture
async def app(routes: Any, log: MemoryLog) -> AsyncIterator[Any]:
    async with service(ORDER, SAGA_MODE, log=log) as running:
        commands = Commands(running.log, running.writer)
        minute = timedelta(minutes=1)
        yield routes.app(OrderService(commands, clock=running.clock, ids=running.ids, deadline=minute))


async def post(app: Any, path: str, body: bytes | dict[str, Any], **headers: str) -> tuple[int, Any]:
    """What the application answers: status and JSON."""
    sent = body if isinstance(body, bytes) else json.dumps(body).encode()
    parts = [sent[:10], sent[10:]]
    answers = list[Any]()

    async def receive() -> Any:
        return {"type": "http.request", "body": parts.pop(0), "more_body": bool(parts)}

    async def send(message: Any) -> None:
        answers.append(message)

    named = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    await app({"type": "http", "method": "POST", "path": path, "headers": named}, receive, send)
    return answers[0]["status"], json.loads(answers[1]["body"])


def reason(answer: Any) -> str:
    return str(answer["details"][0]["reason"])


async def test_a_retry_gets_the_first_answer(app: Any, log: MemoryLog) -> None:
    order = {"customerId": new_id(), "total": TOTAL}
    headers = {"idempotency_key": new_id(), "x_correlation_id": "basket 7", "x_extra_tenant": "acme"}
    first = await post(app, "/create-order", order, **headers)
    assert first == await post(app, "/create-order", order, **headers)
    assert first[0] == 200
    assert first[1]["consistencyToken"] == "rooms:1"
    [event] = log.events
    assert event.type == OrderCreated.DESCRIPTOR.full_name
    assert event.metadata.correlation_id == "basket 7"
    assert event.metadata.causation_id == "rpc/CreateOrder"
    assert event.metadata.extra == {"tenant": "acme"}
    other = await post(app, "/create-order", {**order, "customerId": new_id()}, **headers)
    assert (other[0], reason(other[1])) == (409, "REQUEST_ID_REUSED")


async def test_a_refusal_is_the_same_as_over_grpc(app: Any, log: MemoryLog) -> None:
    code, answer = await post(app, "/create-order", {"customerId": "x", "total": TOTAL})
    assert (code, reason(answer)) == (400, "INVALID_ARGUMENT")
    assert [each["field"] for each in answer["details"][1]["fieldViolations"]] == ["customer_id"]
    code, answer = await post(app, "/cancel-order", {"orderId": new_id()})
    assert (code, reason(answer)) == (404, "ORDER_NOT_FOUND")
    assert not log.events


@pytest.mark.parametrize("body", [b"{", b"[]", b'{"nobody": 1}', b"x" * (1 << 21)])
async def test_what_is_no_request_is_refused(app: Any, body: bytes) -> None:
    code, answer = await post(app, "/create-order", body, idempotency_key=new_id())
    assert (code, reason(answer)) == (400, "INVALID_ARGUMENT")


async def test_another_path_is_not_found(app: Any) -> None:
    code, answer = await post(app, "/nowhere", b"")
    assert (code, reason(answer)) == (404, "NOT_FOUND")
