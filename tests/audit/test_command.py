"""`python -m proof.auditor`: what it prints, and its exit codes."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from pathlib import Path

import pytest

from proof.auditor.__main__ import CANNOT, CLEAN, VIOLATIONS, servers
from proof.auditor.auditor import CannotAudit, audit
from stack.attach import Running
from tests import preloaded
from tests.audit import faults
from tests.audit.world import World
from twinlog.dev import free_port

pytestmark = pytest.mark.asyncio(loop_scope="package")


async def start(shop: World, *arguments: str, **settings: str) -> asyncio.subprocess.Process:
    return await preloaded.start("proof.auditor", *arguments, env=_env(shop, settings))


async def run(shop: World, *arguments: str, **settings: str) -> preloaded.Ran:
    return await preloaded.run("proof.auditor", *arguments, env=_env(shop, settings))


def _env(shop: World, settings: dict[str, str]) -> dict[str, str]:
    return os.environ | {"POSTGRES_URL": shop.postgres_url, "NATS_URL": shop.nats_url} | settings


async def test_a_clean_shop_ends_with_0(shop: World) -> None:
    code, out, err = await run(shop)
    assert (code, err) == (CLEAN, "")
    assert out.splitlines()[-1].startswith("✓ no violation · settled: everything was checked")


async def test_violations_end_with_1_and_the_command_that_mends_them(shop: World) -> None:
    _, (order_id,) = await faults.a_row_is_gone(shop)
    code, out, _ = await run(shop)
    assert code == VIOLATIONS
    assert f"row {order_id} of orders" in " ".join(out.split())
    assert '  mend    psql shop_views -1 -c "DELETE FROM timeline WHERE log' in out
    assert out.splitlines()[-1].startswith("✗ 1 violation ")


async def test_what_does_not_settle_in_time_ends_with_2(shop: World) -> None:
    order_id = await faults._order(shop, faults.FUTURE)
    await faults._set_timer(shop, order_id, faults.FUTURE)
    code, out, _ = await run(shop, "--wait", "0.1")
    assert code == CANNOT
    assert "✓ no violation · in flight, and so not judged: stream orders lags 1 events" in out


async def test_no_server_ends_with_2_and_one_line(shop: World) -> None:
    nowhere = f"127.0.0.1:{free_port()}"
    code, out, err = await run(shop, POSTGRES_URL=f"postgresql://{nowhere}")
    assert (code, out) == (CANNOT, "")
    assert err == "Cannot audit: no Postgres answers at POSTGRES_URL; start it, or `make run`\n"
    code, out, err = await run(shop, NATS_URL=f"nats://{nowhere}")
    assert (code, out) == (CANNOT, "")
    assert err == "Cannot audit: no NATS answers at NATS_URL; start it, or `make run`\n"


async def test_an_empty_server_ends_with_2(shop: World, own_postgres_url: str) -> None:
    code, _, err = await run(shop, POSTGRES_URL=own_postgres_url)
    assert code == CANNOT
    assert err == "Cannot audit: there is no database shop_views; `make run` makes it\n"


async def test_a_watch_shows_each_round_and_each_violation_once(shop: World) -> None:
    _, (order_id,) = await faults.an_order_row_was_edited(shop)
    code, out, _ = await run(shop, "--watch", "--rounds", "3", "--every", "0")
    assert code == VIOLATIONS
    assert sum("lag: streams 0 views 0 consumers 0 · pending 0" in line for line in out.splitlines()) == 3
    assert out.count(order_id) == 2  # in the sentence and among the ids


async def test_a_watch_ends_at_ctrl_c(shop: World) -> None:
    process = await start(shop, "--watch")
    assert process.stdout is not None
    async with asyncio.timeout(60):
        assert "✓" in (await process.stdout.readline()).decode()
        process.send_signal(signal.SIGINT)
        _, err = await process.communicate()
    assert (process.returncode, err) == (CLEAN, b"")


@pytest.fixture
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.delenv("POSTGRES_URL", raising=False)
    monkeypatch.delenv("NATS_URL", raising=False)
    return monkeypatch


async def test_it_attaches_to_the_stack_that_runs(tmp_path: Path, nothing_set: pytest.MonkeyPatch) -> None:
    running = Running(os.getpid(), "postgresql://here", "nats://here", "", "", "", "", "")
    (tmp_path / "stack.json").write_text(json.dumps(running.__dict__))
    async with servers(tmp_path) as found:
        assert found == ("postgresql://here", "nats://here", False)


async def test_servers_of_ones_own_come_first(tmp_path: Path, nothing_set: pytest.MonkeyPatch) -> None:
    nothing_set.setenv("POSTGRES_URL", "postgresql://mine")
    with pytest.raises(CannotAudit, match="NATS_URL is not set; set both, or neither"):
        async with servers(tmp_path):
            pass
    nothing_set.setenv("NATS_URL", "nats://mine")
    async with servers(tmp_path) as found:
        assert found == ("postgresql://mine", "nats://mine", False)


@pytest.mark.parametrize("at", ["127.0.0.1:99999", "127.0.0.1:abc", "[::1"])
async def test_a_wrong_url_is_refused_in_one_line(at: str) -> None:
    with pytest.raises(CannotAudit, match=r"^Cannot audit: POSTGRES_URL is wrong: must "):
        await audit(f"postgresql://me:hunter2@{at}", "nats://127.0.0.1:1")


async def test_without_data_it_says_what_to_do(tmp_path: Path, nothing_set: pytest.MonkeyPatch) -> None:
    with pytest.raises(CannotAudit, match="nothing runs and there is no data; `make run` first"):
        async with servers(tmp_path):
            pass
