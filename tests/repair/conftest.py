from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from tests import servers
from tests.repair.site import Site
from tests.twin.damage import JetStreamDamage
from twinlog.testing.internals import JetStreamTwin, NatsClient, open_log


@pytest.fixture
async def site(postgres_url: str, nats_url: str, nats: NatsClient, stream: str) -> AsyncIterator[Site]:
    async with AsyncExitStack() as stack:
        names = [await stack.enter_async_context(servers.database(postgres_url)) for _ in range(2)]
        log = await stack.enter_async_context(open_log(postgres_url, names[0], stream))
        other = await stack.enter_async_context(open_log(postgres_url, names[1], "other"))
        twin = JetStreamTwin(nats, stream)
        yield Site(postgres_url, nats_url, log, other, twin, JetStreamDamage(nats, stream))
