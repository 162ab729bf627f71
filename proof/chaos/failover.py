"""Postgres fails over to a server that lacks its last commits; each log is then repaired as its service says."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys

from proof.chaos.rig import Rig
from proof.chaos.stage import Stage
from stack.topology import NAMESPACE, ROOT, SHOP_LOGS
from twinlog.testing.internals import JetStreamTwin, connect

_COPIED_SECONDS, _NOTICED_SECONDS, _REPAIR_SECONDS = 30.0, 60.0, 120.0


async def failover(stage: Stage) -> None:
    """What clients were told is in the streams by then, so that nothing of it may be missing in the end.

    Nothing is under way at that moment: with the last commits go the outcomes of requests, and who repeats one of those
    is answered anew.
    """
    postgres = stage.rig.postgres
    data, standby = postgres.folder / "data", postgres.folder / "standby"
    await postgres.kill()
    await _run(stage, "cp", "-a", str(data), str(standby))
    await stage.rig.restart_postgres()
    while not await stage.load.goes_through():
        await asyncio.sleep(0.1)
    await stage.go_on(2.0)
    stage.rig.lines.clear()
    async with stage.load.paused():
        await _copied(stage.rig)
        stage.say("Postgres fails over to a server that lacks the last commits")
        await postgres.kill()
        shutil.rmtree(data)
        standby.rename(data)
        await stage.rig.restart_postgres()
    for log in stage.rng.sample(list(SHOP_LOGS), len(SHOP_LOGS)):
        way_out = f"`twinlog repair {log}` puts it back"
        async with asyncio.timeout(_NOTICED_SECONDS):
            while not any(way_out in line for line in stage.rig.lines):
                await asyncio.sleep(0.1)
        stage.say(way_out)
        async with asyncio.timeout(_REPAIR_SECONDS):
            await _run(stage, sys.executable, "-m", "twinlog", "repair", log)


async def _copied(rig: Rig) -> None:
    """Returns when the streams have every event of the logs."""
    client = await connect(rig.nats_url, "chaos")
    try:
        async with asyncio.timeout(_COPIED_SECONDS):
            while not all(
                [await _is_copied(rig, JetStreamTwin(client, log, namespace=NAMESPACE)) for log in SHOP_LOGS]
            ):
                await asyncio.sleep(0.05)
    finally:
        await client.close()


async def _is_copied(rig: Rig, twin: JetStreamTwin) -> bool:
    async with rig.connected(SHOP_LOGS[twin.name]) as connection:
        head = await connection.fetchval("SELECT position FROM log_head")
    return bool((await twin.state()).last == head)


async def _run(stage: Stage, *command: str) -> None:
    """Runs a command, and complains where it fails."""
    servers = {"POSTGRES_URL": stage.rig.postgres.url, "NATS_URL": stage.rig.nats_url}
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=ROOT,
        env={**os.environ, **servers},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await process.communicate()
    if process.returncode:
        stage.complain(f"{' '.join(command)} failed: {said.decode(errors='replace')[-400:]}")
