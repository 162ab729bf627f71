"""The last steps of a start, when a server is away again: waited for, unless somebody has to mend a setting."""

from __future__ import annotations

import asyncio

import grpc.aio
import pytest
from structlog.testing import capture_logs

from tests.memory_service import memory_service
from tests.waiting import RETRIED_SOON, beside
from twinlog import ConfigurationError, Unavailable
from twinlog.dev import free_port
from twinlog.model.errors import WrongSetting
from twinlog.service.conditions import waited_for
from twinlog.service.environment import Endpoint
from twinlog.testing import MemoryLog, MemoryTwin


class Away(MemoryLog):
    """A log that cannot be read at first."""

    refusals = 0

    async def page_token_secret(self) -> bytes:
        if self.refusals < 3:
            self.refusals += 1
            raise Unavailable("too many connections")
        return await super().page_token_secret()


async def test_a_service_whose_log_is_away_just_before_it_serves_waits_and_says_so_once() -> None:
    log, address, stop = Away("own"), f"127.0.0.1:{free_port()}", asyncio.Event()
    twin = MemoryTwin("own")
    service = memory_service(
        "mailer", log, lambda _of: twin, endpoint=Endpoint(address), until_stopped=stop.wait
    )
    with capture_logs() as said:
        async with service.running(), grpc.aio.insecure_channel(address, RETRIED_SOON) as channel:
            serving = asyncio.create_task(service.serve())
            await beside(serving, channel.channel_ready())
            stop.set()
            await serving
    steps = [line["event"] for line in said if line["event"].startswith("start.")]
    assert (log.refusals, steps) == (3, ["start.waiting", "start.going_on"])


async def test_a_wrong_setting_is_refused_instead() -> None:
    async def refused() -> None:
        raise WrongSetting("POSTGRES_URL: this user lacks a right")

    with pytest.raises(ConfigurationError, match=r"^POSTGRES_URL: this user lacks a right$"):
        await waited_for("page tokens", refused)
