"""A service does not start with a table that its instances cannot go on with."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from tests import servers
from tests.saga.tables import step, table
from twinlog import (
    Address,
    ConfigurationError,
    Saga,
    Schema,
    ServiceSpec,
    Settings,
    Shutdown,
    open_service,
    saga_aggregate,
)
from twinlog.testing.internals import JetStreamTwin, NatsClient

ONE = table([step(0), step(1)])


class SagaSettings(Settings):
    """The settings of the service below."""

    sagas_address: Address = "127.0.0.1:0"
    """Where it serves."""


async def start(log: str, postgres_url: str, nats_url: str, *versions: Saga) -> None:
    task = asyncio.current_task()
    assert task is not None
    settings = SagaSettings(postgres_url=postgres_url, nats_url=nats_url, log_level="error")
    aggregates = [saga_aggregate(*versions)]
    spec = ServiceSpec(log, log, log, "tests", SagaSettings, "sagas_address", aggregates, Schema())
    async with open_service(spec, settings, Shutdown(task)):
        pass


async def test_a_service_with_an_edited_table_refuses_at_start(
    postgres_url: str, nats_url: str, nats: NatsClient
) -> None:
    two = replace(ONE, version=2, steps=ONE.steps[:1])
    async with servers.database(postgres_url) as log:
        await start(log, postgres_url, nats_url, ONE)
        with pytest.raises(ConfigurationError, match=r"version 1, has changed.*Make it version 2") as refused:
            await start(log, postgres_url, nats_url, replace(two, version=1))
        await start(log, postgres_url, nats_url, ONE, two)
        await start(log, postgres_url, nats_url, two)
    await JetStreamTwin(nats, log).delete()
    assert "\n" not in str(refused.value)
