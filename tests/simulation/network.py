"""Round trips to servers that outlive processes: a request that was sent has its effect, whoever dies meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from random import Random
from typing import Any, TypeVar

from tests.simulation.faults import Weather
from tests.simulation.loop import Life, SimulatedLoop
from twinlog.errors import TwinlogError, Unavailable

T = TypeVar("T")


class Violation(Exception):
    """A promise that was broken: what, and the facts."""


@dataclass
class Client:
    """A process as the network knows it."""

    life: Life
    chance: Random
    crash: Callable[[], None]
    trips: int = 0
    doomed_after: int | None = None
    """The number of the round trip at which it crashes."""


@dataclass
class Store:
    """A server's store as the network knows it."""

    name: str
    holder: Life | None = None
    """Who has locked others out."""
    waiting: list[Callable[[], None]] = field(default_factory=list)


class Network:
    """Carries requests to stores and answers back; both take their time, and some get lost."""

    def __init__(self, loop: SimulatedLoop, weather: Weather, trace: Callable[[str, str], None]) -> None:
        self.loop = loop
        self.weather = weather
        self.trace = trace

    async def ask(self, client: Client, store: Store, what: str, apply: Callable[[], T]) -> T:
        """One round trip. ``apply`` happens at the store, at one moment. Raises what it raises, or Unavailable."""
        client.trips += 1
        loop, chance, bad, now = self.loop, client.chance, self.weather.bad, self.loop.time()
        answer: asyncio.Future[T] = loop.create_future()
        there, back = latency(chance), latency(chance)
        if bad("slowness", store.name, now):
            there, back = there + chance.random() * 2, back + chance.random() * 2
        refused = bad("outage", store.name, now)
        lost = bad("lost replies", store.name, now) and chance.random() < 0.4
        late = bad("late effects", store.name, now) and chance.random() < 0.4
        doomed = client.doomed_after is not None and client.trips >= client.doomed_after
        if late:
            loop.call_later(
                there, answered, answer, None, Unavailable("the connection broke"), context=loop.nobody
            )
            there += chance.random() * 3
        elif lost:
            back += chance.random()

        def arrive() -> None:
            if doomed and client.life.alive and client.trips % 2:
                self.trace(client.life.name, f"crashes before: {what}")
                client.crash()
                return
            if refused:
                loop.call_later(back, answered, answer, None, Unavailable("refused"), context=loop.nobody)
                return
            if store.holder is not None and store.holder is not client.life:
                store.waiting.append(arrive)
                return
            result, error = None, None
            try:
                result = apply()
            except TwinlogError as raised:
                error = raised
            if doomed and client.life.alive:
                self.trace(client.life.name, f"crashes after: {what}")
                client.crash()
            elif lost:
                self.trace(store.name, f"answer to {client.life.name} is lost: {what}")
                gone = Unavailable("the answer was lost")
                loop.call_later(back, answered, answer, None, gone, context=loop.nobody)
            else:
                loop.call_later(back, answered, answer, result, error, context=loop.nobody)

        loop.call_later(there, arrive, context=loop.nobody)
        return await answer

    def unlock(self, store: Store, life: Life) -> None:
        """Lets others in again, where ``life`` had locked them out."""
        if store.holder is life:
            store.holder = None
            waiting, store.waiting = store.waiting, []
            for arrive in waiting:
                self.loop.call_soon(arrive, context=self.loop.nobody)


def latency(chance: Random) -> float:
    """Seconds on the way: about a millisecond, and sometimes a hundred."""
    drawn = chance.random()
    return 0.0005 + drawn * 0.002 if drawn < 0.97 else drawn * 0.2


def answered(answer: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    """Gives an answer to whoever still waits for it."""
    if answer.done():
        return
    if error is not None:
        answer.set_exception(error)
    else:
        answer.set_result(result)


def at_once(work: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine of a memory adapter, which never waits."""
    try:
        work.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    raise AssertionError("a memory adapter waits")
