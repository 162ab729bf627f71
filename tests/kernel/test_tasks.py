from __future__ import annotations

import asyncio

import pytest

from twinlog._aio.tasks import Tasks, to_its_end, until_it_heeds


class Crashes(dict[str, BaseException]):
    """What was told to have crashed."""

    def __init__(self) -> None:
        self.happened = asyncio.Event()

    def __call__(self, name: str, error: BaseException) -> None:
        self[name] = error
        self.happened.set()


async def test_leaving_the_block_cancels_and_awaits_what_runs() -> None:
    crashes = Crashes()
    started, cleaned = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            cleaned.set()

    async with Tasks(crashes) as tasks:
        tasks.start("work", work())
        await started.wait()

    assert cleaned.is_set()
    assert not crashes


async def test_a_crash_is_told_at_once_by_name() -> None:
    crashes = Crashes()

    async def broken() -> None:
        raise RuntimeError("no more")

    async with asyncio.timeout(60), Tasks(crashes) as tasks:
        tasks.start("relay", broken())
        await crashes.happened.wait()

        assert str(crashes["relay"]) == "no more"


async def test_a_cancellation_that_leaks_from_inside_is_a_crash() -> None:
    crashes = Crashes()

    async def leaky() -> None:
        raise asyncio.CancelledError

    async with asyncio.timeout(60), Tasks(crashes) as tasks:
        tasks.start("cursor", leaky())
        await crashes.happened.wait()

        assert "leaked" in str(crashes["cursor"])


async def test_a_task_that_is_cancelled_or_returns_is_no_crash() -> None:
    crashes = Crashes()

    async with Tasks(crashes) as tasks:
        forever = tasks.start("forever", asyncio.Event().wait())
        brief = tasks.start("brief", asyncio.sleep(0))
        forever.cancel()
        await asyncio.wait([forever, brief])

    assert not crashes


async def test_a_crash_while_closing_is_told() -> None:
    crashes = Crashes()
    started = asyncio.Event()

    async def stubborn() -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            raise RuntimeError("cannot close")

    async with Tasks(crashes) as tasks:
        tasks.start("stubborn", stubborn())
        await started.wait()

    assert str(crashes["stubborn"]) == "cannot close"


async def test_the_error_of_the_block_goes_on() -> None:
    with pytest.raises(KeyError):
        async with Tasks(Crashes()) as tasks:
            tasks.start("forever", asyncio.Event().wait())
            raise KeyError


async def test_a_cancellation_that_comes_with_the_answer_is_not_forgotten() -> None:
    """asyncio.wait_for, which libraries wait with, forgets it up to Python 3.11."""
    answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    asking = asyncio.create_task(to_its_end(asyncio.wait_for(answer, 60)))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    answer.set_result("yes")
    asking.cancel()

    with pytest.raises(asyncio.CancelledError):
        await asking


async def test_what_a_cancelled_caller_began_is_finished() -> None:
    done = asyncio.Event()
    may_end = asyncio.Event()

    async def work() -> None:
        await may_end.wait()
        done.set()

    caller = asyncio.create_task(to_its_end(work()))
    await asyncio.sleep(0)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    may_end.set()
    await asyncio.wait_for(done.wait(), 60)


async def test_work_that_forgets_cancellations_is_cancelled_again() -> None:
    """As what waits with asyncio.wait_for may up to Python 3.11, where the answer is an error."""
    forgotten, started = 0, asyncio.Event()

    async def forgetful() -> None:
        nonlocal forgotten
        while forgotten < 2:
            started.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                forgotten += 1
        await asyncio.Event().wait()

    waiting = asyncio.create_task(until_it_heeds(forgetful()))
    await started.wait()
    waiting.cancel()
    async with asyncio.timeout(60):
        with pytest.raises(asyncio.CancelledError):
            await waiting
    assert forgotten == 2


async def test_what_work_gives_or_raises_comes_through() -> None:
    async def gives(what: int) -> float:
        return 1 / what

    assert await until_it_heeds(gives(1)) == 1
    with pytest.raises(ZeroDivisionError):
        await until_it_heeds(gives(0))
