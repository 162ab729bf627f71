"""`twinlog status` and the health service tell the same."""

from __future__ import annotations

import grpc.aio
import pytest
from grpc_health.v1 import health_pb2_grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

from tests.cli.conftest import Served, Terminal
from twinlog.rpc import serve
from twinlog.rpc.inspection_service import InspectionService
from twinlog.rpc.registrations import registrations


class Part:
    """Something that is watched."""

    problem: str | None = None


@pytest.mark.parametrize(
    ("part", "signal"), [("", ""), ("no NATS", ""), ("", "orders/17 waits"), ("no NATS", "orders/17 waits")]
)
async def test_status_tells_what_health_tells(
    twinlog: Terminal, served: Served, part: str, signal: str
) -> None:
    service = served.shop.order_svc
    broken, alarming = Part(), Part()
    broken.problem, alarming.problem = part or None, signal or None
    service.inspected.parts = [*service.watched, broken]
    service.signals["alarm"] = alarming
    [registration] = registrations(InspectionService(service.inspected))
    async with (
        serve(
            [registration], domain="shop", health=service.inspected.parts, signals=service.signals
        ) as server,
        grpc.aio.insecure_channel(server.address) as channel,
    ):
        said = await twinlog("status", "--json", "--at", server.address)
        shown = await twinlog("status", "--at", server.address)
        health = health_pb2_grpc.HealthStub(channel)
        told: dict[str, str] = {}
        for name in ("", *service.signals):
            call = health.Check(HealthCheckRequest(service=name))
            if (await call).status == HealthCheckResponse.NOT_SERVING:
                told[name] = str(dict(list(await call.trailing_metadata())).get("x-problem", ""))
    problems = {each["signal"]: each["problem"] for each in said.json["services"][0]["problems"]}
    assert problems == told
    assert said.code == shown.code == (1 if told else 0)
    assert ("NOT_SERVING" in shown.out) == ("" in told)
