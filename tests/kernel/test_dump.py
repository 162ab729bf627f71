"""Real processes that are asked by SIGUSR1 what they do."""

from __future__ import annotations

import asyncio
import json
import signal
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from tests import preloaded
from tests.kernel.test_runtime import says
from twinlog.service.dump import SIGNALS


@asynccontextmanager
async def running(scenario: str) -> AsyncIterator[Process]:
    process = await preloaded.start("tests.kernel.process", scenario, stdin=PIPE)
    try:
        async with asyncio.timeout(60):
            await says(process, "ready")
            yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def dumped(
    process: Process, signum: signal.Signals = signal.SIGUSR1
) -> tuple[list[str], list[dict[str, Any]]]:
    """What it writes when it is asked, the stacks of its threads, and its lines."""
    process.send_signal(signum)
    assert process.stderr
    stacks: list[str] = []
    lines: list[dict[str, Any]] = []
    while not (lines and lines[-1]["part"] == "end"):
        text = (await process.stderr.readline()).decode()
        assert text, [await process.wait(), *stacks, *lines]
        if text.startswith("{"):
            lines.append(json.loads(text))
        else:
            stacks.append(text)
    return stacks, lines


async def test_an_idle_process_tells_its_tasks_and_goes_on() -> None:
    async with running("idles") as process:
        for signum in (*SIGNALS, signal.SIGUSR1):
            stacks, lines = await dumped(process, signum)
            assert "most recent call first" in stacks[0]
            assert {line["event"] for line in lines} == {"process.dump"}
            told = {line.get("name"): line for line in lines if line["part"] == "task"}
            assert "forever (tests/kernel/process.py:" in told["waits"]["stands"]
            assert told["waits"]["seconds"] >= 0
            assert told["_supervise"]["count"] == 1
        process.terminate()
        assert await process.wait() == 0


async def test_a_process_whose_loop_hangs_tells_where() -> None:
    async with running("hangs") as process:
        stacks, lines = await dumped(process)
        assert any("in hanging" in line for line in stacks)
        [itself] = [line for line in lines if line["part"] == "process"]
        assert (itself["pid"], itself["running"]) == (process.pid, "hanging")
        assert "hangs.<locals>.hanging (tests/kernel/process.py:" in itself["stands"]
        told = {line.get("name"): line for line in lines if line["part"] == "task"}
        assert told["hanging"]["stands"] == "it runs"
        assert "forever (tests/kernel/process.py:" in told["waits"]["stands"]
        assert process.stdin
        process.stdin.close()
        assert await process.wait() == 0


async def test_a_process_that_hangs_outside_of_python_shows_the_stack_of_each_thread() -> None:
    async with running("hangs_outside_of_python") as process:
        process.send_signal(signal.SIGUSR1)
        assert process.stderr
        said = ""
        while "in hangs_outside_of_python" not in said:
            line = (await process.stderr.readline()).decode()
            assert line, f"ended with {await process.wait()}: {said}"
            said += line
        assert "process.dump" not in said
