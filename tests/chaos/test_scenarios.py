"""What a scenario breaks is whole again, also where it does not come to its end."""

from __future__ import annotations

import asyncio
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest
from nats.aio.client import Client as NatsClient

from proof.chaos.scenarios import streams_full
from proof.chaos.stage import Stage
from stack.topology import SHOP_LOGS, stream_of
from twinlog.dev import EmbeddedNats
from twinlog.testing.internals import connect


class CutShort(Stage):
    """The time of its scenario is up when the fault is there."""

    async def go_on(self, seconds: float) -> None:
        raise asyncio.CancelledError


async def test_a_stream_has_its_limit_back(own_nats: EmbeddedNats) -> None:
    client: NatsClient = await connect(own_nats.url, "tests")
    streams = client.jsm()
    for log in SHOP_LOGS:
        await streams.add_stream(name=stream_of(log), subjects=[f"{log}.>"])
        await client.jetstream().publish(f"{log}.x", b"x")
    rig: Any = SimpleNamespace(nats_url=own_nats.url, lines=[])
    load: Any = None
    stage = CutShort(rig, load, Random(1), print, pytest.fail)
    with pytest.raises(asyncio.CancelledError):
        await streams_full(stage)

    limits = [(await streams.stream_info(stream_of(log))).config.max_msgs for log in SHOP_LOGS]
    await client.close()
    assert limits == [-1] * len(SHOP_LOGS)
