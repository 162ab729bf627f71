"""docs/how-to/http.md: its files are an HTTP edge, called here as an ASGI server would, and once over uvicorn."""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import pytest
import structlog.testing

from order_svc.domain import ORDER, SAGA_MODE
from order_svc.service import OrderService
from shop.orders.v1.events_pb2 import OrderCreated
from shop.orders.v1.order_service_pb2 import DESCRIPTOR
from tests.controls import new_id
from tests.docs.test_how_to import written
from tests.mistakes.test_start import service
from tests.waiting import until
from twinlog import ServiceSpec
from twinlog.rpc import Commands
from twinlog.testing import MemoryLog

TOTAL = {"currencyCode": "EUR", "units": "12"}
ORDERS = "/shop.orders.v1.OrderService"


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """What the page's files define."""
    monkeypatch.syspath_prepend(str(tmp_path))
    edge, _, program = map(import_module, written("http.md", tmp_path))
    yield SimpleNamespace(edge=edge.edge, program=program)
    for name in [name for name in sys.modules if name.partition(".")[0] == "order_http"]:
        del sys.modules[name]


@pytest.fixture
def log() -> MemoryLog:
    return MemoryLog("rooms")


@pytest.fixture
async def orders(log: MemoryLog) -> AsyncIterator[OrderService]:
    async with service(ORDER, SAGA_MODE, log=log) as running:
        commands = Commands(running.log, running.writer)
        minute = timedelta(minutes=1)
        yield OrderService(commands, clock=running.clock, ids=running.ids, deadline=minute)


@pytest.fixture
def app(page: Any, orders: OrderService) -> Any:
    return page.edge(orders, DESCRIPTOR.services_by_name["OrderService"], "shop")


async def call(
    app: Any, path: str, parts: list[Any], method: str = "POST", **headers: str
) -> tuple[int, Any]:
    """What the application answers: status and JSON. ``parts``: messages of the request."""
    answers = list[Any]()

    async def receive() -> Any:
        return parts.pop(0)

    async def send(message: Any) -> None:
        answers.append(message)

    named = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "http", "method": method, "path": path, "headers": named, "query_string": b""}
    await app(scope, receive, send)
    return answers[0]["status"], json.loads(answers[1]["body"])


async def post(app: Any, path: str, body: bytes | dict[str, Any], **headers: str) -> tuple[int, Any]:
    sent = body if isinstance(body, bytes) else json.dumps(body).encode()
    parts = [{"type": "http.request", "body": sent[:10], "more_body": True}]
    return await call(app, path, [*parts, {"type": "http.request", "body": sent[10:]}], **headers)


def reason(answer: Any) -> str:
    return str(answer["details"][0]["reason"])


async def test_a_retry_gets_the_first_answer(app: Any, log: MemoryLog) -> None:
    order = {"customerId": new_id(), "total": TOTAL}
    headers = {"idempotency_key": new_id(), "x_correlation_id": "basket 7", "x_extra_tenant": "acme"}
    first = await post(app, f"{ORDERS}/CreateOrder", order, **headers)
    assert first == await post(app, f"{ORDERS}/CreateOrder", order, **headers)
    in_body = {**order, "requestId": headers["idempotency_key"]}
    assert first == await post(app, f"{ORDERS}/CreateOrder", in_body)
    assert first[0] == 200
    assert first[1]["consistencyToken"] == "rooms:1"
    [event] = log.events
    assert event.type == OrderCreated.DESCRIPTOR.full_name
    assert event.metadata.correlation_id == "basket 7"
    assert event.metadata.causation_id == "rpc/CreateOrder"
    assert event.metadata.extra == {"tenant": "acme"}
    other = await post(app, f"{ORDERS}/CreateOrder", {**order, "customerId": new_id()}, **headers)
    assert (other[0], reason(other[1])) == (409, "REQUEST_ID_REUSED")


async def test_a_refusal_is_the_same_as_over_grpc(app: Any, log: MemoryLog) -> None:
    code, answer = await post(app, f"{ORDERS}/CreateOrder", {"customerId": "x", "total": TOTAL})
    assert (code, reason(answer)) == (400, "INVALID_ARGUMENT")
    assert [each["field"] for each in answer["details"][1]["fieldViolations"]] == ["customer_id"]
    code, answer = await post(app, f"{ORDERS}/CancelOrder", {"orderId": new_id()})
    assert (code, reason(answer)) == (404, "ORDER_NOT_FOUND")
    assert not log.events


@pytest.mark.parametrize("body", [b"{", b"[]", b"1", b'{"nobody": 1}', b"\xff", b"[" * 100_000])
async def test_what_is_no_request_is_refused(app: Any, body: bytes) -> None:
    code, answer = await post(app, f"{ORDERS}/CreateOrder", body, idempotency_key=new_id())
    assert (code, reason(answer)) == (400, "INVALID_ARGUMENT")


async def test_only_an_object_is_a_request(app: Any) -> None:
    """Of a method that needs no field, too, where an empty list would be an empty request."""
    for body in (b"[]", b'""', b"null", b"false", b"0"):
        code, answer = await post(app, f"{ORDERS}/GetSagaMode", body)
        told = answer.get("details", [{}])[-1].get("fieldViolations")
        assert (code, told) == (400, [{"field": "body", "description": "is no JSON object"}]), body


async def test_a_body_that_breaks_off_is_no_defect(app: Any, log: MemoryLog) -> None:
    with structlog.testing.capture_logs() as lines:
        code, _ = await call(app, f"{ORDERS}/CreateOrder", [{"type": "http.disconnect"}])
    assert (code, lines, list(log.events)) == (400, [], [])


async def test_a_key_that_would_not_be_kept_is_refused(app: Any, log: MemoryLog) -> None:
    both = {"customerId": new_id(), "total": TOTAL, "requestId": new_id()}
    for path, body in (("CreateOrder", both), ("GetSagaMode", {})):
        code, answer = await post(app, f"{ORDERS}/{path}", body, idempotency_key=new_id())
        assert (code, reason(answer)) == (400, "INVALID_ARGUMENT")
    assert not log.events


async def test_a_defect_is_told_by_its_id_alone(page: Any) -> None:
    class Broken(OrderService):
        def __init__(self) -> None:
            pass

    app = page.edge(Broken(), DESCRIPTOR.services_by_name["OrderService"], "shop")
    with structlog.testing.capture_logs() as lines:
        code, answer = await post(app, f"{ORDERS}/GetSagaMode", {})
    assert (code, reason(answer)) == (500, "INTERNAL")
    assert [line["error_id"] for line in lines] == [answer["details"][0]["metadata"]["error_id"]]
    assert "_commands" not in json.dumps(answer)


async def test_another_path_is_not_found(app: Any) -> None:
    code, answer = await post(app, "/nowhere", b"")
    assert (code, reason(answer)) == (404, "NOT_FOUND")


async def test_what_http_has_a_status_for_is_told_by_it_and_as_any_other_refusal(
    app: Any, log: MemoryLog
) -> None:
    path, order = f"{ORDERS}/CreateOrder", json.dumps({"customerId": new_id(), "total": TOTAL}).encode()
    answered = {
        "method": (405, await call(app, path, [{"type": "http.request", "body": order}], "GET")),
        "body": (413, await post(app, path, b"x" * (1 << 21))),
        "content-type": (415, await post(app, path, order, content_type="text/plain; charset=utf-8")),
    }
    for part, (status, (code, answer)) in answered.items():
        assert (code, reason(answer)) == (status, "INVALID_ARGUMENT"), part
        assert [each["field"] for each in answer["details"][1]["fieldViolations"]] == [part]
    code, answer = await call(app, "/nowhere", [{"type": "http.request", "body": b""}], "GET")
    assert (code, reason(answer)) == (404, "NOT_FOUND")
    assert not log.events
    code, _ = await post(
        app, path, order, content_type="Application/JSON; charset=utf-8", idempotency_key=new_id()
    )
    assert code == 200


async def test_a_program_serves_http_on_loopback_while_it_serves(
    page: Any, orders: OrderService, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def asked() -> Any:
        named = {"content-type": "application/json"}
        request = Request(f"http://127.0.0.1:{port}{ORDERS}/GetSagaMode", b"{}", named, method="POST")
        with suppress(URLError), urlopen(request, timeout=60) as answer:
            return json.loads(answer.read())

    served = list[object]()

    async def serve() -> None:
        await until(lambda: asyncio.to_thread(asked))
        assert await asyncio.to_thread(asked) == {"sagaMode": "SAGA_MODE_CHOREOGRAPHY"}
        served.append(orders)

    @asynccontextmanager
    async def opened(
        spec: ServiceSpec, settings: object, _shutdown: object, *, wire: Any
    ) -> AsyncIterator[Any]:
        assert (spec.name, settings) == ("order_svc", "its settings")
        yield SimpleNamespace(serve=serve, servicers=[wire(None, None)])

    for name, value in {
        "open_service": opened,
        "load": lambda _kind: "its settings",
        "wire": lambda _service, _views: orders,
        "PORT": port,
    }.items():
        assert hasattr(page.program, name)
        monkeypatch.setattr(page.program, name, value)
    assert await page.program.main(None) == 0
    assert served == [orders]
    with pytest.raises((URLError, HTTPError)):
        await asyncio.to_thread(urlopen, f"http://127.0.0.1:{port}/", timeout=60)
