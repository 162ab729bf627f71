"""What clients do: a script from the seed, played through the services' own edges over a network that may fail."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import Any

from google.protobuf.message import Message

from twinlog.model.errors import StreamUnreadable, TwinlogError, Unavailable
from twinlog.testing.simulation.call import Call, CallContext
from twinlog.testing.simulation.invariants import Invariants, check
from twinlog.testing.simulation.loop import Life, SimulatedLoop
from twinlog.testing.simulation.network import answered, latency

Edge = Callable[[Call], tuple[Life, Callable[[Any, Any], Awaitable[Message]]] | None]
"""Chooses a replica for a call: its life, and the method of its servicer; None: nobody answers."""


@dataclass
class Clients:
    """Plays calls, and checks that what they are told is so."""

    loop: SimulatedLoop
    chance: Random
    domain: Invariants
    edge: Edge
    trace: Callable[[str, str], None]
    failed: Callable[[BaseException], None]
    """Told of what is broken."""
    _refused: list[Call] = field(default_factory=list)
    _waiting: int = 0

    def play(self, calls: Sequence[Call]) -> None:
        """Starts every call at its time."""
        for call in calls:
            self._waiting += 1
            self.loop.call_later(call.at, partial(self._start, call), context=self.loop.nobody)

    @property
    def done(self) -> bool:
        """Whether every outcome is known, or given up."""
        return not self._waiting

    def at_rest(self) -> None:
        """Checks that what was refused has had no effect."""
        for call in self._refused:
            check(not self._effects(call), "refusals", f"refused, and done: {call}")

    def _effects(self, call: Call) -> Sequence[Any]:
        requested: Mapping[str, Sequence[Any]] = self.domain.scene.requested
        return requested.get(call.correlation_id, ())

    def _start(self, call: Call) -> None:
        self.loop.start(self._guarded(call))

    async def _guarded(self, call: Call) -> None:
        try:
            await self._insist(call)
        except Exception as error:
            self.failed(error)
        self._waiting -= 1

    async def _insist(self, call: Call) -> None:
        self.trace("client", str(call))
        unknown = False  # what became of an earlier try
        while True:
            done = bool(self._effects(call))
            try:
                response = await self._send(call)
            except (Unavailable, TimeoutError) as error:
                if not call.is_repeated:
                    self.trace("client", f"gives up on {call.method}: {type(error).__name__}")
                    return
                unknown = True
                await asyncio.sleep(self.chance.random())
            except TwinlogError as error:
                self.trace("client", f"{call.method} is refused: {error}")
                # Without a request id it is another command, and only its stream could tell that the first was done.
                unheard = call.repeats and isinstance(error, StreamUnreadable)
                check(not done or unheard, "refusals", f"done, and refused: {call}")
                if not unknown:  # else the earlier try may still be on its way
                    self._refused.append(call)
                self.domain.refused(call, error)
                return
            else:
                self.trace("client", f"{call.method} is done")
                self.domain.acknowledged(call, response)
                return

    async def _send(self, call: Call) -> Message:
        """One try. Raises what the edge raises, or TimeoutError where no answer comes in time."""
        loop, chance = self.loop, self.chance
        answer: asyncio.Future[Message] = loop.create_future()
        served: list[asyncio.Task[Any]] = []

        async def serve(method: Callable[[Any, Any], Awaitable[Message]]) -> None:
            request = type(call.request)()
            request.CopyFrom(call.request)
            try:
                response, error = await method(request, CallContext.of(call)), None
            except TwinlogError as raised:
                response, error = None, raised
            except asyncio.CancelledError:
                return
            except Exception as defect:
                self.failed(defect)
                return
            loop.call_later(latency(chance), answered, answer, response, error, context=loop.nobody)

        def arrive() -> None:
            try:
                chosen = self.edge(call)
            except LookupError as wrong:
                self.failed(wrong)
                return
            if chosen is None:
                answered(answer, None, Unavailable("connection refused"))
                return
            life, method = chosen
            served.append(loop.start(serve(method), life))

        loop.call_later(latency(chance), arrive, context=loop.nobody)
        try:
            async with asyncio.timeout(call.patience_seconds):
                return await answer
        finally:
            for task in served:
                task.cancel()  # as gRPC does when the deadline has passed
