"""Two whole demos on the same two servers, at the same time, one of them in a namespace."""

from __future__ import annotations

import os

import asyncpg

from tests import preloaded
from tests.stack.checkout import checkout
from tests.waiting import until
from twinlog.dev import EmbeddedNats, EmbeddedPostgres
from twinlog.jetstream.connection import close, connect

LOGS, DATABASES = (
    ("orders", "customers", "sagas", "projector"),
    ("shop_orders", "shop_customers", "shop_sagas", "shop_views"),
)


async def test_they_run_beside_each_other_and_the_auditor_passes_both(
    own_postgres: EmbeddedPostgres, own_nats: EmbeddedNats
) -> None:
    # Both are at work at the same time from their starts on.
    env = {"POSTGRES_URL": own_postgres.url, "NATS_URL": own_nats.url, "DEMO_ORDERS": "12"}
    with checkout() as plain, checkout() as staging:
        demos = [
            plain.start_cheaply("demo", **env),
            staging.start_cheaply("demo", **env, TWINLOG_NAMESPACE="staging"),
        ]

        def over() -> bool:
            codes = [demo.poll() for demo in demos]
            return any(codes) or None not in codes

        await until(over, seconds=240)
        assert [demo.returncode for demo in demos] == [0, 0], plain.said + staging.said
        for shop in (plain, staging):
            shows_both_modes(shop.said)
            assert not shop.processes()
    client = await connect(own_nats.url, "tests")
    streams = {info.config.name for info in await client.jsm().streams_info()}
    await close(client)
    connection = await asyncpg.connect(f"{own_postgres.url}/postgres")
    rows = await connection.fetch("SELECT datname FROM pg_database WHERE datname LIKE '%shop\\_%'")
    await connection.close()

    assert streams == {*LOGS, *(f"staging_{name}" for name in LOGS)}
    assert {row[0] for row in rows} == {*DATABASES, *(f"staging_{name}" for name in DATABASES)}
    for namespace in ("", "staging"):
        assert await audited({**os.environ, **env, "TWINLOG_NAMESPACE": namespace}) == 0


def shows_both_modes(said: str) -> None:
    """What a demo that has gone well prints, on a hundred columns and without colors where it is no terminal."""
    assert said.count("✓ They balance.") == 2
    for event in ("OrderApprovalRefused", "SagaCompensated", "UNKNOWN_CUSTOMER", "INSUFFICIENT_CREDIT"):
        assert event in said
    assert max(map(len, said.splitlines())) <= 100
    assert "\x1b" not in said


async def audited(env: dict[str, str]) -> int | None:
    """The exit code of `make audit`."""
    ran = await preloaded.run("proof.auditor", "--wait", "240", env=env, seconds=280.0)
    print(ran.out, ran.err)
    return ran.code
