"""Effects as a service runs them, over memory: a health check of their own, dead letters, and a clean stop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import grpc.aio
import pytest
from grpc_health.v1 import health_pb2_grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

from tests.dead_letters.journal import JOURNAL, Source, journal
from tests.effects.provider import Server, effects
from tests.memory_service import memory_service
from tests.waiting import RETRIED_SOON, beside, until
from twinlog import ConfigurationError, Service
from twinlog.dev import free_port
from twinlog.rpc.health import PROBLEM_KEY
from twinlog.service.environment import Endpoint
from twinlog.testing import MemoryLog, MemoryTwin


@dataclass
class Process:
    """A service that sends mail because of a source log's events."""

    service: Service
    source: Source
    twin: MemoryTwin
    log: MemoryLog
    health: Any

    async def say(self, *texts: str) -> None:
        await self.twin.publish(self.source.add(*texts))

    async def status(self, name: str) -> int:
        status: int = (await self.health.Check(HealthCheckRequest(service=name))).status
        return status

    async def problem(self) -> str:
        call = self.health.Check(HealthCheckRequest(service="effects-mail"))
        await call
        return str(dict(list(await call.trailing_metadata())).get(PROBLEM_KEY, ""))


def a_service(log: MemoryLog, source: MemoryTwin, address: str, stop: asyncio.Event) -> Service:
    own = MemoryTwin("own")

    return memory_service(
        "mailer",
        log,
        lambda of: source if of == "source" else own,
        aggregates=[JOURNAL],
        endpoint=Endpoint(address),
        until_stopped=stop.wait,
    )


@asynccontextmanager
async def process(server: Server, **changes: Any) -> AsyncIterator[Process]:
    source, twin, log, stop = Source(), MemoryTwin("source"), MemoryLog("own"), asyncio.Event()
    await twin.create(1)
    address = f"127.0.0.1:{free_port()}"
    service = a_service(log, twin, address, stop)
    async with service.running(), grpc.aio.insecure_channel(address, RETRIED_SOON) as channel:
        service.subscribe(effects(server, **changes))
        serving = asyncio.create_task(service.serve())
        await beside(serving, channel.channel_ready())
        yield Process(service, source, twin, log, health_pb2_grpc.HealthStub(channel))
        stop.set()
        await serving


async def test_a_provider_that_is_down_shows_under_the_effects_own_name_and_nowhere_else() -> None:
    server = Server()
    async with process(server) as mailer:
        assert await mailer.status("effects-mail") == HealthCheckResponse.SERVING
        server.down = True
        await mailer.say("a:1", "b:1")
        await until(lambda: bool(mailer.service.signals["effects-mail"].problem))
        asked = len(server.asked)
        await until(lambda: len(server.asked) > asked + 4)
        assert await mailer.status("effects-mail") == HealthCheckResponse.NOT_SERVING
        assert "no route to the mail server" in await mailer.problem()
        assert await mailer.status("") == HealthCheckResponse.SERVING
        assert await mailer.status("dead-letters") == HealthCheckResponse.SERVING
        server.down = False
        await until(lambda: journal(mailer.log, "b") == [1])
        await until(lambda: mailer.service.signals["effects-mail"].problem is None)
    assert journal(mailer.log, "a") == [1]


async def test_a_failing_key_is_a_dead_letter_and_others_go_on() -> None:
    server = Server()
    server.refuses = {"a:1"}
    async with process(server) as mailer:
        await mailer.say("a:1", "b:1", "a:2")
        await until(lambda: mailer.service.dead_letters.counts() == {"tests.mail.source": 2})
        assert await mailer.status("effects-mail") == HealthCheckResponse.SERVING
        assert await mailer.status("dead-letters") == HealthCheckResponse.NOT_SERVING
        await mailer.say("b:2")
        await until(lambda: journal(mailer.log, "b") == [1, 2])


async def test_a_stop_cancels_a_call_that_hangs() -> None:
    server = Server()
    server.hangs = {"a:1"}
    async with process(server, timeout=timedelta(hours=1)) as mailer:
        await mailer.say("a:1")
        await until(lambda: server.open == 1)
    assert server.open == 0
    assert mailer.log.checkpoints == {}


async def test_two_effects_with_one_name_are_refused() -> None:
    async with process(Server()) as mailer:
        with pytest.raises(ConfigurationError, match="two Effects are called mail"):
            mailer.service.subscribe(effects(Server()))
