"""docs/how-to/traces.md: its trees are those that the running shop sends, its snippets work, its settings exist."""

from __future__ import annotations

import re
from typing import Any

from opentelemetry.sdk import environment_variables

from shop.orders.v1.events_pb2 import OrderApproved
from shop.orders.v1.order_service_pb2 import CreateOrderRequest, CreateOrderResponse
from tests.dead_letters.journal import event
from tests.docs.test_pages import page
from tests.tracing.test_shop import CHOREOGRAPHED, ORCHESTRATED
from twinlog import Attempt
from twinlog.rpc import call_metadata

PAGE = page("docs/how-to/traces.md")
_TRACED, _SHIPPING = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def run(block: str) -> dict[str, Any]:
    names: dict[str, Any] = {"__name__": "page"}
    exec(compile(block, "traces.md", "exec", dont_inherit=True), names)
    return names


def test_its_trees_are_those_of_the_running_shop() -> None:
    assert re.findall(r"```text\n(.*?)\n```", PAGE, re.DOTALL) == [CHOREOGRAPHED, ORCHESTRATED]


def test_its_settings_are_opentelemetrys() -> None:
    named = set(re.findall(r"OTEL_[A-Z_]+", PAGE))
    assert len(named) > 8
    assert named <= set(vars(environment_variables))


async def test_a_client_asks_for_a_trace() -> None:
    class Call:
        def __init__(self, metadata: Any) -> None:
            self._metadata = metadata

        def invocation_metadata(self) -> Any:
            return self._metadata

        def time_remaining(self) -> None:
            return None

    class Orders:
        async def CreateOrder(self, request: CreateOrderRequest, metadata: Any) -> CreateOrderResponse:
            kept.append(call_metadata(Call(metadata), "CreateOrder").traceparent)
            return CreateOrderResponse(order_id="o")

    kept: list[str] = []
    trace_id, response = await run(_TRACED)["traced"](Orders(), CreateOrderRequest())
    assert response.order_id == "o"
    [traceparent] = kept
    assert traceparent.split("-")[1::2] == [trace_id, "01"]


async def test_an_effect_hands_the_trace_on() -> None:
    class Http:
        async def post(self, path: str, *, headers: dict[str, str]) -> None:
            posted.append((path, headers))

    posted: list[tuple[str, dict[str, str]]] = []
    table = run(_SHIPPING)["shipping"](Http())
    given = event(1, "a:1")
    traced = given._replace(metadata=given.metadata._replace(traceparent="00-t-s-01"))
    for each in (given, traced):
        await table.rules[OrderApproved](OrderApproved(order_id="o"), Attempt("key", 1, each))
    assert posted == [("/shipments/o", {}), ("/shipments/o", {"traceparent": "00-t-s-01"})]
