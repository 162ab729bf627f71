"""The seeded part of `make chaos` that finds most, against real processes."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import tempfile
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from proof.chaos import rig
from proof.chaos.__main__ import table
from proof.chaos.ledger import Figures
from proof.chaos.runner import Run
from proof.chaos.scenarios import SCENARIOS
from tests import servers
from tests.waiting import until

SEED = 20261124
RATE = 25.0
"""Requests per second, a quarter of what `make chaos` sends: what it costs is what the services compute for them."""


async def test_nothing_is_lost_doubled_off_or_stuck(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    short = [replace(scenario, rate=RATE) for scenario in SCENARIOS if scenario.short]
    monkeypatch.setattr(rig, "EmbeddedPostgres", servers.CopiedPostgres)
    with servers.folder() as folder:
        monkeypatch.setattr(tempfile, "tempdir", str(folder))  # where the rigs make theirs
        results = await Run(SEED, tmp_path, print).all(short)

    assert {name: figures.problems for name, figures in results.items() if not figures.clean} == {}
    assert list(results) == [scenario.name for scenario in short]
    assert all(figures.ok > 25 for figures in results.values()), table(results, colored=False)


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
async def test_a_run_that_is_ended_leaves_nothing_behind(signum: signal.Signals) -> None:
    with servers.folder() as folder:
        run = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "proof.chaos", "--only", SCENARIOS[0].name),
            env={**os.environ, "TMPDIR": str(folder)},
            stdout=asyncio.subprocess.DEVNULL,
        )
        try:
            await until(lambda: any(folder.glob("twinlog-chaos-*/*")))
            started = psutil.Process(run.pid).children(recursive=True)
            run.send_signal(signum)
            assert await run.wait() == 130
        finally:
            with suppress(ProcessLookupError):
                run.kill()
        assert not [*folder.glob("twinlog-chaos-*")]
        assert not [each for each in started if each.is_running()]


@pytest.mark.parametrize("colored", [False, True])
def test_the_table_fits_100_columns_and_is_colored_only_where_wanted(colored: bool) -> None:
    full = Figures(99_999, 99_999, 99_999, 99_999, 99_999, 9_999, 9_999, 999_000_000_000, 9_999, ["x"], 99.9)
    results = {scenario.name: full for scenario in SCENARIOS} | {"nats-full": Figures(not_run="not " * 50)}
    text = table(results, colored=colored)

    assert ("\x1b[" in text) is colored
    plain = table(results, colored=False)
    assert max(map(len, plain.splitlines())) <= 100
