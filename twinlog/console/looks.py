"""What all services say of themselves, asked again and again while somebody watches, and kept when one falls silent.

A service that answers late lives: it is slow, is given more time from then on, and is silent only beyond that.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any, Protocol, Self

from twinlog.console.answers import Answer, Why
from twinlog.console.chains import Chains
from twinlog.console.rates import Rates
from twinlog.v1 import inspection_pb2 as pb
from twinlog.v1.inspection_pb2_grpc import InspectionServiceStub

SLOW = "slow"
"""The signal of a service that answers late."""
EVERY_SECONDS = 0.75
DEADLINE_SECONDS = 1.25
"""A service that stops is noticed after these two together, at the latest."""
LATE_SECONDS = 10.0
"""How long an answer of a service that is silent is waited for: one that comes says that it lives."""
_SLOW_SECONDS = 3.0
"""How long one that was late may take the next time, at the least."""
_FIRST_SECONDS = 0.1
"""How long the first reader waits for services that have said nothing yet."""
_LINGER_SECONDS = 5.0
"""Asking goes on for so long after the last reader."""


@dataclass(frozen=True)
class Said:
    """What one service said last."""

    service: str
    address: str
    described: pb.DescribeResponse | None = None
    """None where it has said nothing since the console started."""
    consumers: tuple[pb.ConsumerDescription, ...] = ()
    silent_since: datetime | None = None
    """When it was first missed; None while it answers."""
    problem: str = ""
    """Why it is silent."""
    slow_seconds: int = 0
    """How long its answers take at the moment, where that is long; 0: it is quick, or silent."""
    chain_problem: str = ""
    """What is wrong with the chain of its log."""

    @property
    def own_log(self) -> pb.LogDescription | None:
        """The log that it owns."""
        return next((log for log in self.described.logs if log.own), None) if self.described else None

    @property
    def state(self) -> str:
        """ok; warn: it serves, and something calls for an operator; bad: something stands still; silent: not known."""
        if self.silent_since or not self.described:
            return "silent"
        wrong = {signal for signal, _ in self.problems()}
        goes_on = {SLOW, *(each.signal for each in self.described.problems)} - {""}
        return "ok" if not wrong else "warn" if wrong <= goes_on else "bad"

    def problems(self) -> Iterator[tuple[str, str]]:
        """What is wrong, as signal and text; the signal is empty where the service itself does not serve."""
        if self.silent_since:
            yield "silent", self.problem
        elif self.described:
            if self.slow_seconds:
                yield (
                    SLOW,
                    f"it answers, and takes {self.slow_seconds} s: it has much to do, or its machine has",
                )
            for each in self.described.problems:
                yield each.signal, each.problem
            for log in self.described.logs:
                if log.problem and log.own:
                    yield f"log {log.log}", log.problem
            if self.chain_problem and self.own_log:
                yield f"chain of {self.own_log.log}", self.chain_problem


@dataclass(frozen=True)
class Look:
    """What all services said, by name."""

    services: Mapping[str, Said] = field(default_factory=dict)
    rates: Rates = field(default_factory=Rates)

    def owner(self, log: str) -> Said | None:
        """The service whose own log that is."""
        return self.logs.get(log)

    def head(self, log: str) -> int | None:
        """The position of a log's last event, where its owner has told that."""
        owner = self.owner(log)
        return owner.own_log.head if owner and owner.own_log else None

    @property
    def logs(self) -> dict[str, Said]:
        """Each log with the service that owns it."""
        return {said.own_log.log: said for said in self.services.values() if said.own_log}

    def problems(self) -> list[tuple[str, str, str]]:
        """Each as service, signal and text."""
        return list(
            dict.fromkeys((name, *each) for name, said in self.services.items() for each in said.problems())
        )


class Ask(Protocol):
    """Asks a service; see :meth:`twinlog.console.services.Services.ask`."""

    async def __call__(
        self, service: str, method: Callable[[Any], Any], request: Any, /, *, seconds: float
    ) -> Answer[Any]: ...


class Looking:
    """Asks each service in its own task. Use as an async context manager.

    It is the one observation that all pages go by: who is silent, and whether anything has moved since they were
    loaded.
    """

    def __init__(self, addresses: Mapping[str, str], ask: Ask) -> None:
        self._ask_service = ask
        self._said = {name: Said(name, address) for name, address in addresses.items()}
        self._tasks: list[asyncio.Task[None]] = []
        self._wanted_until = 0.0
        self._wanted = asyncio.Event()
        self._news = asyncio.Event()
        self._fresh: set[str] = set()
        """Those that have been asked since somebody watches."""
        self._rates = Rates()
        self._chains = Chains()
        self._silent: dict[str, Answer[Any]] = {}
        self._patience = dict.fromkeys(addresses, DEADLINE_SECONDS)
        """How long each may take before it is silent: longer for one that was late."""
        self.on_move: Callable[[], None] = lambda: None
        """Called when a service says something different from before."""
        self.on_turn: Callable[[], None] = lambda: None
        """Called when a service falls silent, and when it answers again."""

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.create_task(self._ask(name)) for name in self._said]
        self.want()  # a first reader finds connections, and answers
        return self

    async def __aexit__(self, *exc: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def look(self) -> Look:
        """The newest. A first reader waits a moment for services that have not been asked for a while."""
        self.want()
        with suppress(TimeoutError):
            await asyncio.wait_for(self._news.wait(), _FIRST_SECONDS if self._said else 0)
        return Look(dict(self._said), self._rates)

    def want(self) -> None:
        """Asking goes on for a while."""
        self._wanted_until = time.monotonic() + _LINGER_SECONDS
        if not self._wanted.is_set():
            self._news = asyncio.Event()
            self._fresh.clear()
            self._wanted.set()

    async def heard(self) -> Look:
        """The newest, once every service has answered, or has not by the deadline."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._news.wait(), DEADLINE_SECONDS)
        return await self.look()

    def silence(self, name: str) -> Answer[Any] | None:
        """Why a service did not answer when it was asked last; None: it did, or that is long ago."""
        return self._silent.get(name) if name in self._fresh else None

    def lives(self, name: str) -> bool:
        """Whether a service answered when it was asked last."""
        said = self._said.get(name)
        return bool(said and said.described and not said.silent_since)

    def patience(self, name: str) -> float:
        """How long a service may take, in seconds, before it is silent."""
        return self._patience.get(name, DEADLINE_SECONDS)

    async def _ask(self, name: str) -> None:
        while True:
            await self._wanted.wait()
            began = time.monotonic()
            await self._ask_once(name)
            await asyncio.sleep(max(0.0, began + EVERY_SECONDS - time.monotonic()))
            if time.monotonic() > self._wanted_until:
                self._wanted.clear()

    async def _ask_once(self, name: str) -> None:
        began, patience = time.monotonic(), self.patience(name)
        asked_at = datetime.now(UTC)
        asked = asyncio.create_task(self._ask_both(name))
        try:
            if not (await asyncio.wait([asked], timeout=patience))[0]:
                late = f"no answer in {patience:g} s"
                self._fell_silent(name, Answer(name, None, Why.SLOW, late, "DEADLINE_EXCEEDED"), asked_at)
            described, consumers = await asked
        finally:
            asked.cancel()
            # Nobody else hears what a canceled one ends with, which asyncio would log.
            await asyncio.gather(asked, return_exceptions=True)
        if described.message is None or consumers.message is None:
            self._fell_silent(name, consumers if described.ok else described, asked_at)
        else:
            found = tuple(consumers.message.consumers)
            self._answered(name, described.message, found, time.monotonic() - began)

    async def _ask_both(self, name: str) -> tuple[Answer[Any], Answer[Any]]:
        ask, stub = partial(self._ask_service, name, seconds=LATE_SECONDS), InspectionServiceStub
        return await asyncio.gather(
            ask(lambda c: stub(c).Describe, pb.DescribeRequest()),
            ask(lambda c: stub(c).ListConsumers, pb.ListConsumersRequest()),
        )

    def _fell_silent(self, name: str, failed: Answer[Any], asked_at: datetime) -> None:
        """Since it was asked: it may have answered long before, where nobody watched, and that says nothing."""
        before = self._said[name]
        silent = before.silent_since or asked_at
        self._silent[name] = failed
        self._rates.forget(name)
        self._note(replace(before, silent_since=silent, problem=failed.problem, slow_seconds=0))

    def _answered(
        self,
        name: str,
        described: pb.DescribeResponse,
        consumers: tuple[pb.ConsumerDescription, ...],
        took_seconds: float,
    ) -> None:
        late = took_seconds > DEADLINE_SECONDS
        # The first late answer may be that of one which was stopped, and goes on.
        slow = late and self._patience[name] > DEADLINE_SECONDS
        more = min(LATE_SECONDS, max(_SLOW_SECONDS, 2 * took_seconds))
        self._patience[name] = more if late else DEADLINE_SECONDS
        self._silent.pop(name, None)
        self._rates.note(name, described, consumers, time.monotonic())
        said = Said(name, self._said[name].address, described, consumers)
        chain_problem = self._chains.problem_of(said.own_log, time.monotonic())
        slow_seconds = max(1, round(took_seconds)) if slow else 0
        self._note(replace(said, chain_problem=chain_problem, slow_seconds=slow_seconds))

    def _note(self, said: Said) -> None:
        before, self._said[said.service] = self._said[said.service], said
        self._fresh.add(said.service)
        if len(self._fresh) == len(self._said):
            self._news.set()
        if said != before:
            self.on_move()
        if said.silent_since != before.silent_since:
            self.on_turn()
