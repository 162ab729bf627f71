"""The twin's adapters, each test with a stream of its own that is not there yet."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests import servers
from tests.twin.damage import JetStreamDamage
from twinlog.jetstream import connection as jetstream
from twinlog.testing.conformance import Damage, MemoryDamage
from twinlog.testing.internals import Twin


@pytest.fixture(params=["memory", "jetstream"])
def server(request: pytest.FixtureRequest) -> str | None:
    """Where the stream is kept; None: in memory."""
    return request.getfixturevalue("nats_url") if request.param == "jetstream" else None


@pytest.fixture
async def damage(server: str | None) -> AsyncIterator[Damage]:
    if server is None:
        yield MemoryDamage(servers.unique())
        return
    client = await jetstream.connect(server, "tests")
    async with servers.stream(client) as name:
        yield JetStreamDamage(client, name)
    await jetstream.close(client)


@pytest.fixture
def twin(damage: Damage) -> Twin:
    return damage.twin()
