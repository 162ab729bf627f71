"""Who waits for a program, or for anything while a task works, learns what has gone wrong."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest

from tests.forks import forks
from tests.programs import Program, program
from tests.waiting import Ended, beside, until

_SAYS_AND_ENDS = "import sys; print('one'); print('two', file=sys.stderr); sys.exit(3)"


async def test_a_wait_ends_with_the_program_and_tells_its_last_words(tmp_path: Path) -> None:
    async def waited(running: Program, kind: str) -> None:
        match kind:
            case "words":
                await running.says("three")
            case "server":
                await running.serves("127.0.0.1:1")
            case _:
                await running.until(lambda: False)

    for kind in ("words", "server", "condition"):
        async with program(sys.executable, "-uc", _SAYS_AND_ENDS, env=os.environ, cwd=tmp_path) as running:
            with pytest.raises(Ended) as told:
                await waited(running, kind)
        assert str(told.value) == "it ended with 3, and said:\none\ntwo\n", kind


async def test_what_it_said_before_it_ended_counts(tmp_path: Path) -> None:
    async with program(sys.executable, "-uc", _SAYS_AND_ENDS, env=os.environ, cwd=tmp_path) as running:
        assert await running.ended() == 3
        await running.says("two")
        assert running.said == "one\ntwo\n"


async def test_a_wait_for_what_forks_do_ends_with_one_of_them(tmp_path: Path) -> None:
    async with forks("tests.forks_that_end") as running:
        pid = await running.start()
        with pytest.raises(Ended, match=rf"these have ended: \[{pid}\]"):
            await running.until(lambda: False)
        assert await running.ended(pid) == 0


async def test_a_wait_that_is_too_long_tells_which_tasks_have_failed_meanwhile() -> None:
    async def fails() -> None:
        raise LookupError("nothing is there")

    task = asyncio.create_task(fails(), name="looking")
    with pytest.raises(TimeoutError, match=r"did not hold in 0.1 s; task looking failed: LookupError\('noth"):
        await until(lambda: False, seconds=0.1)
    with pytest.raises(LookupError):
        await task


async def test_a_wait_beside_a_task_ends_with_it() -> None:
    async def fails() -> None:
        raise LookupError("nothing is there")

    async def ends() -> str:
        return "all of it"

    with pytest.raises(LookupError):
        await beside(asyncio.create_task(fails()), asyncio.Event().wait())
    with pytest.raises(Ended, match="task serving has ended: 'all of it'"):
        await beside(asyncio.create_task(ends(), name="serving"), asyncio.Event().wait())
    working = asyncio.create_task(asyncio.sleep(600))
    assert await beside(working, ends()) == "all of it"
    working.cancel()
