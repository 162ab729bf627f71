"""Real processes: how they start, stop and crash."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import resource
import signal
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests import preloaded
from twinlog.service.runtime import _ECHO_SECONDS, use_all_descriptors, yield_to_others


@asynccontextmanager
async def running(scenario: str) -> AsyncIterator[Process]:
    process = await preloaded.start("tests.kernel.process", scenario)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


async def says(process: Process, line: str) -> None:
    assert process.stdout is not None
    said = (await process.stdout.readline()).decode().strip()
    if said != line:
        process.kill()
        out, err = await process.communicate()
        raise AssertionError(f"it said {said!r}, not {line!r}, and then\n{out.decode()}\n{err.decode()}")


async def end(process: Process) -> tuple[int | None, str, list[dict[str, Any]]]:
    """Its exit code, what it printed, and what it logged."""
    out, err = await process.communicate()
    return process.returncode, out.decode(), [json.loads(line) for line in err.splitlines()]


@pytest.mark.parametrize(
    ("scenario", "signum"),
    [("serves", signal.SIGTERM), ("serves", signal.SIGHUP), ("starts_for_ever", signal.SIGINT)],
)
async def test_a_signal_closes_in_order(scenario: str, signum: signal.Signals) -> None:
    async with running(scenario) as process:
        await says(process, "ready")
        process.send_signal(signum)
        code, printed, logged = await end(process)

    assert (code, printed) == (0, "closed\n")
    assert [(line["event"], line["why"]) for line in logged] == [("process.stopping", signum.name)]


async def test_a_second_signal_cuts_the_closing_short() -> None:
    async with running("ends_slowly") as process:
        await says(process, "ready")
        process.terminate()
        await says(process, "stopping")
        await asyncio.sleep(2 * _ECHO_SECONDS)  # one right behind the first is taken for the same
        process.terminate()
        async with asyncio.timeout(60):
            code, printed, _ = await end(process)

    assert (code, printed) == (1, "closed\n")


async def test_a_closing_that_takes_too_long_is_cut_off() -> None:
    async with running("cannot_close") as process:
        await says(process, "ready")
        process.terminate()
        code, printed, logged = await end(process)

    assert (code, printed) == (1, "stopping\nclosed\n")
    assert [line["event"] for line in logged] == ["process.stopping", "process.cut_off"]


@pytest.mark.parametrize("scenario", ["loses_a_task", "loses_a_task_at_start"])
async def test_a_crashed_task_ends_the_process_in_order(scenario: str) -> None:
    async with running(scenario) as process:
        code, printed, [line] = await end(process)

    assert (code, printed) == (1, "ready\nclosed\n")
    assert (line["event"], line["task"], line["level"]) == ("process.task_crashed", "relay", "critical")
    assert "RuntimeError: the relay broke" in line["exception"]


async def test_a_crash_is_logged() -> None:
    async with running("crashes") as process:
        code, _, [line] = await end(process)

    assert code == 1
    assert line["event"] == "process.crashed"
    assert "RuntimeError: out of order" in line["exception"]


@pytest.mark.parametrize(
    ("scenario", "line"),
    [
        ("is_misconfigured", "NATS_URL is not set: set it"),
        ("has_a_misconfigured_task", "NATS_URL: the server is too old"),
    ],
)
async def test_a_configuration_error_is_one_line(scenario: str, line: str) -> None:
    async with running(scenario) as process:
        out, err = await process.communicate()

    assert process.returncode == 2
    assert (out.decode(), err.decode()) == ("", f"{line}\n")


def test_a_process_takes_as_many_files_and_connections_as_it_may() -> None:
    kind = resource.RLIMIT_NOFILE
    soft, hard = resource.getrlimit(kind)
    resource.setrlimit(kind, (4096 if hard == resource.RLIM_INFINITY else hard - 1, hard))
    try:
        use_all_descriptors()
        assert resource.getrlimit(kind) == (hard, hard)
    finally:
        resource.setrlimit(kind, (soft, hard))


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux knows such policies")
@pytest.mark.parametrize("name", ["SCHED_OTHER", "SCHED_IDLE"])
def test_a_process_waits_for_its_turn_unless_its_starter_chose_otherwise(name: str) -> None:
    policy: int = getattr(os, name)

    def chosen() -> tuple[int, int]:
        os.sched_setscheduler(0, policy, os.sched_param(0))  # of this thread only
        yield_to_others()
        started = pool.submit(os.sched_getscheduler, 0)
        return os.sched_getscheduler(0), started.result()

    with ThreadPoolExecutor(1) as first, ThreadPoolExecutor(1) as pool:
        expected = os.SCHED_BATCH if policy == os.SCHED_OTHER else policy
        assert first.submit(chosen).result() == (expected, expected)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux knows such policies")
@pytest.mark.parametrize("name", ["sched_getscheduler", "sched_setscheduler"])
def test_a_process_runs_also_where_it_may_not_choose(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a sandbox, or on Alpine, whose C library has no such function."""
    asked: list[tuple[object, ...]] = []

    def refused(*given: object) -> None:
        asked.append(given)
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(os, "sched_getscheduler", lambda _pid: os.SCHED_OTHER)
    monkeypatch.setattr(os, name, refused)
    yield_to_others()
    assert asked
