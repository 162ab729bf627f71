"""Round trips to servers that outlive processes: a request that was sent has its effect, even if its sender dies."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from random import Random
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar

from twinlog.model.errors import TwinlogError, Unavailable
from twinlog.testing.fakes import START
from twinlog.testing.simulation.faults import Weather
from twinlog.testing.simulation.loop import Life, SimulatedLoop

T = TypeVar("T")


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


StoreType = TypeVar("StoreType", bound=Store)
P = ParamSpec("P")


class Network:
    """Carries requests to stores and answers back; both take their time, and some get lost."""

    def __init__(self, loop: SimulatedLoop, weather: Weather, trace: Callable[[str, str], None]) -> None:
        self.loop = loop
        self.weather = weather
        self.trace = trace

    async def ask(self, client: Client, store: Store, what: str, apply: Callable[[], T]) -> T:
        """One round trip. ``apply`` happens at the store, at one moment. Raises what it raises, or Unavailable."""
        client.trips += 1
        answer: asyncio.Future[T] = self.loop.create_future()
        trip = Trip(self, client, store, what, apply, answer)
        self.loop.call_later(trip.set_out(), trip.arrive, context=self.loop.nobody)
        return await answer

    def time(self) -> datetime:
        """What time it is at the stores."""
        return START + timedelta(seconds=round(self.loop.time(), 6))

    def unlock(self, store: Store, life: Life) -> None:
        """Lets others in again, where ``life`` had locked them out."""
        if store.holder is life:
            store.holder = None
            waiting, store.waiting = store.waiting, []
            for arrive in waiting:
                self.loop.call_soon(arrive, context=self.loop.nobody)


class Remote(Generic[StoreType]):
    """A store as one process sees it, a round trip away."""

    def __init__(self, network: Network, client: Client, server: StoreType) -> None:
        self._network = network
        self._client = client
        self._server = server

    @property
    def _memory(self) -> Any:
        """The adapter that the store is kept by."""
        raise NotImplementedError

    async def _ask(self, what: str, apply: Callable[[], T]) -> T:
        return await self._network.ask(self._client, self._server, f"{what} {self._server.name}", apply)


def asked(
    what: str, method: Callable[Concatenate[Any, P], Coroutine[Any, Any, T]]
) -> Callable[Concatenate[Any, P], Coroutine[Any, Any, T]]:
    """The method of a memory adapter as one of a :class:`Remote`, which asks for it over the network.

    It is looked up when it is asked for: a bug may have been planted in it since.
    """

    async def ask(remote: Remote[Any], /, *given: P.args, **named: P.kwargs) -> T:
        return await remote._ask(
            what, lambda: at_once(getattr(remote._memory, method.__name__)(*given, **named))
        )

    return ask


@dataclass(slots=True, eq=False)
class Trip:
    """A request on its way to a store, and its answer on the way back."""

    network: Network
    client: Client
    store: Store
    what: str
    apply: Callable[[], Any]
    answer: asyncio.Future[Any]
    back: float = field(init=False)
    """Seconds that the answer takes."""
    refused: bool = field(init=False)
    lost: bool = field(init=False)
    doomed: bool = field(init=False)

    def set_out(self) -> float:
        """Decides what will become of it; gives the seconds until it arrives."""
        client, name, chance = self.client, self.store.name, self.client.chance
        now, bad = self.network.loop.time(), self.network.weather.bad
        there, self.back = latency(chance), latency(chance)
        if bad("slowness", name, now):
            there, self.back = there + chance.random() * 2, self.back + chance.random() * 2
        self.refused = bad("outage", name, now)
        self.lost = bad("lost replies", name, now) and chance.random() < 0.4
        self.doomed = client.doomed_after is not None and client.trips >= client.doomed_after
        if bad("late effects", name, now) and chance.random() < 0.4:
            self.network.trace(
                self.store.name, f"{client.life.name} is cut off, and this comes late: {self.what}"
            )
            self._answer(there, None, Unavailable("the connection broke"))
            there += chance.random() * 3
        elif self.lost:
            self.back += chance.random()
        return there

    def arrive(self) -> None:
        """Has its effect, unless something is in the way."""
        client, store = self.client, self.store
        doomed = self.doomed and client.life.alive
        if doomed and client.trips % 2:
            self.network.trace(client.life.name, f"crashes before: {self.what}")
            client.crash()
        elif self.refused:
            self._answer(self.back, None, Unavailable("refused"))
        elif store.holder is not None and store.holder is not client.life:
            store.waiting.append(self.arrive)
        else:
            self._have_effect(doomed)

    def _have_effect(self, doomed: bool) -> None:
        result, error = None, None
        try:
            result = self.apply()
        except TwinlogError as raised:
            error = raised
        if doomed:
            self.network.trace(self.client.life.name, f"crashes after: {self.what}")
            self.client.crash()
        elif self.lost:
            self.network.trace(self.store.name, f"answer to {self.client.life.name} is lost: {self.what}")
            self._answer(self.back, None, Unavailable("the answer was lost"))
        else:
            self._answer(self.back, result, error)

    def _answer(self, seconds: float, result: Any, error: BaseException | None) -> None:
        loop = self.network.loop
        loop.call_later(seconds, answered, self.answer, result, error, context=loop.nobody)


def latency(chance: Random) -> float:
    """Seconds on the way: about a millisecond, and sometimes a hundred."""
    drawn = chance.random()
    return 0.0005 + drawn * 0.002 if drawn < 0.97 else drawn * 0.2


def answered(answer: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    """Gives an answer to its caller, if that still waits."""
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
