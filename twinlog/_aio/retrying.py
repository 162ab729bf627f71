"""Retries with exponential backoff and jitter, logged once per fault and not per attempt; and what can have faults."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Protocol, TypeVar

T = TypeVar("T")


class Randomness(Protocol):
    """A source of randomness, such as ``random.Random(seed)``."""

    def random(self) -> float:
        """A number from 0 up to, but not including, 1."""


def backoff(
    first_seconds: float = 0.05, cap_seconds: float = 5.0, randomness: Randomness = random
) -> Iterator[float]:
    """Seconds to wait before each retry, endlessly: doubling up to the cap, minus up to half as jitter.

    The jitter keeps replicas from retrying in step.
    """
    ceiling = min(first_seconds, cap_seconds)
    while True:
        yield ceiling * (0.5 + 0.5 * randomness.random())
        ceiling = min(2 * ceiling, cap_seconds)


class Retrying:
    """Repeats one piece of work until it succeeds; ``problem`` is the current fault, None while healthy.

        retrying = Retrying(say_failing=log_waiting, say_working=log_available, on=(Unavailable,))
        result = await retrying(attempt)

    ``say_failing`` is called with the error when the work starts to fail, and again only when an error of another
    type follows; ``say_working`` is called when the work succeeds after that. Work that never returns reports its
    successes through :meth:`succeeded`; a loop that catches its errors itself uses :meth:`failed` and :meth:`pause`.
    """

    def __init__(
        self,
        *,
        say_failing: Callable[[Exception], None],
        say_working: Callable[[], None],
        on: tuple[type[Exception], ...] = (),
        first_seconds: float = 0.05,
        cap_seconds: float = 2.0,
        randomness: Randomness = random,
    ) -> None:
        """``on``: the errors worth a retry. Waits grow from ``first_seconds`` to ``cap_seconds``, jittered."""
        self._say_failing = say_failing
        self._say_working = say_working
        self._on = on
        self._limits = (first_seconds, cap_seconds, randomness)
        self._waits: Iterator[float] | None = None
        self._said: type[Exception] | None = None
        self.problem: str | None = None
        """Current fault, or None while healthy."""
        self.last = ""
        """The newest fault, also where it has passed; empty where there was none."""

    async def __call__(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """The result of the first attempt that succeeds. Raises at once what is not worth a retry."""
        while True:
            try:
                result = await attempt()
            except self._on as error:
                self.failed(error)
                await self.pause()
            else:
                self.succeeded()
                return result

    async def bear(self, work: Awaitable[object]) -> None:
        """Awaits work that may fail: it records the fault, whatever it is, and waits instead of raising."""
        try:
            await work
        except Exception as error:
            self.failed(error)
            await self.pause()
        else:
            self.succeeded()

    def failed(self, error: Exception) -> None:
        """Records the fault, and says so unless the last fault was of the same type. Call it while handling it."""
        self.problem = self.last = str(error) or type(error).__name__
        if type(error) is not self._said:
            self._said = type(error)
            self._say_failing(error)

    @contextmanager
    def told_after(self, seconds: float, error: Exception) -> Iterator[None]:
        """Records a fault while the block takes longer, unless there is one already."""

        def tell() -> None:
            if self.problem is None:
                self.failed(error)

        timer = asyncio.get_running_loop().call_later(seconds, tell)
        try:
            yield
        finally:
            timer.cancel()

    def succeeded(self) -> None:
        """Clears the fault, and says so if there was one; the next wait is a short one."""
        self._waits = None
        if self.problem is not None:
            self.healed()

    def healed(self) -> None:
        """Clears the fault and says so; waits go on growing, because no work was done yet."""
        if self.problem is not None:
            self.problem = self._said = None
            self._say_working()

    def reset(self) -> None:
        """Starts over silently, as when another replica takes over the work."""
        self.problem = self._said = self._waits = None

    async def pause(self) -> None:
        """Waits before the next attempt."""
        if self._waits is None:
            self._waits = backoff(*self._limits)
        await asyncio.sleep(next(self._waits))


class Watched(Protocol):
    """A part of the process, such as a relay or a cursor, that can fail for a while; health checks watch it."""

    @property
    def problem(self) -> str | None:
        """Current fault, or None while healthy."""


class Together:
    """Several parts, watched as one."""

    def __init__(self, parts: Collection[Watched]) -> None:
        """``parts`` may still grow."""
        self._parts = parts

    @property
    def problem(self) -> str | None:
        """Current faults, or None while all are healthy."""
        return "; ".join(problem for part in self._parts if (problem := part.problem)) or None
