"""Retries: how long they wait, what they say, and what they leave alone."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from itertools import islice
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twinlog._aio.retrying import Retrying, backoff


class Always:
    def __init__(self, value: float) -> None:
        self._value = value

    def random(self) -> float:
        return self._value


@given(st.floats(0.001, 10), st.floats(0.001, 100), st.integers())
def test_waits_stay_within_half_of_the_cap_and_the_cap(first: float, cap: float, seed: int) -> None:
    waits = list(islice(backoff(first, cap, Random(seed)), 50))

    assert all(0 < wait <= cap for wait in waits)
    assert all(wait >= cap / 2 for wait in waits[20:])


def test_waits_double_up_to_the_cap() -> None:
    assert list(islice(backoff(1.0, 5.0, Always(0.0)), 5)) == [0.5, 1.0, 2.0, 2.5, 2.5]


def test_one_seed_gives_one_sequence() -> None:
    one, same, other = (list(islice(backoff(randomness=Random(seed)), 9)) for seed in (1, 1, 2))

    assert one == same != other


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The waits; nobody waits."""
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    return waits


def retrying(said: list[str]) -> Retrying:
    return Retrying(
        say_failing=lambda error: said.append(f"{type(error).__name__}: {error}"),
        say_working=lambda: said.append("works"),
        on=(OSError,),
        first_seconds=1.0,
        cap_seconds=4.0,
        randomness=Always(0.0),
    )


def failing(*errors: Exception) -> Callable[[], Awaitable[str]]:
    """Work that raises these, one after the other, and then succeeds."""
    left = list(errors)

    async def attempt() -> str:
        if left:
            raise left.pop(0)
        return "done"

    return attempt


async def test_work_is_repeated_until_it_succeeds_and_said_once(slept: list[float]) -> None:
    said: list[str] = []
    work = failing(*[ConnectionError(f"refused {number}") for number in range(4)])
    assert await retrying(said)(work) == "done"
    assert slept == [0.5, 1.0, 2.0, 2.0]
    assert said == ["ConnectionError: refused 0", "works"]


async def test_work_that_succeeds_at_once_is_not_spoken_of(slept: list[float]) -> None:
    said: list[str] = []
    assert await retrying(said)(failing()) == "done"
    assert (slept, said) == ([], [])


async def test_a_fault_of_another_kind_is_said_too(slept: list[float]) -> None:
    said: list[str] = []
    work = failing(ConnectionError("refused"), ConnectionError("again"), PermissionError("denied"))
    await retrying(said)(work)
    assert said == ["ConnectionError: refused", "PermissionError: denied", "works"]


async def test_an_error_that_is_not_worth_a_retry_is_raised_at_once(slept: list[float]) -> None:
    with pytest.raises(KeyError):
        await retrying([])(failing(KeyError("defect")))
    assert slept == []


async def test_the_current_fault_can_be_read(slept: list[float]) -> None:
    said: list[str] = []
    loop = retrying(said)
    problems = [loop.problem]
    for error in (ConnectionError("refused"), ConnectionError("reset"), TimeoutError()):
        loop.failed(error)
        problems.append(loop.problem)
    for _ in range(2):
        loop.succeeded()
        problems.append(loop.problem)
    assert problems == [None, "refused", "reset", "TimeoutError", None, None]
    assert said == ["ConnectionError: refused", "TimeoutError: ", "works"]


async def test_only_work_that_was_done_makes_the_next_wait_short(slept: list[float]) -> None:
    loop = retrying([])
    for _ in range(2):
        loop.failed(OSError())
        await loop.pause()
    loop.healed()
    await loop.pause()
    assert loop.problem is None
    loop.succeeded()
    await loop.pause()
    assert slept == [0.5, 1.0, 2.0, 0.5]


async def test_a_fresh_start_is_silent(slept: list[float]) -> None:
    said: list[str] = []
    loop = retrying(said)
    loop.failed(OSError("away"))
    await loop.pause()
    loop.reset()
    assert loop.problem is None
    loop.failed(OSError("away"))
    await loop.pause()
    assert said == ["OSError: away"] * 2
    assert slept == [0.5, 0.5]
