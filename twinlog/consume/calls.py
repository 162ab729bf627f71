"""Calls to the outside world: bounded, timed, retried, in order within a key; and whose fault a failure is.

An error that is not transient is the event's. A transient one, such as a timeout, may be the other system's, which is
then down for everybody: what fails so is a *suspect*. It is found at fault where others are answered after it failed,
and it fails once more; or where it alone is left for a minute, after others were answered. Otherwise the other
system counts as down.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass, field
from uuid import UUID

from structlog.contextvars import bound_contextvars

from twinlog._aio.retrying import Randomness, backoff
from twinlog.consume.dead_letters import TriedInVain, without_text
from twinlog.model.effects import Attempt, Call, Effects
from twinlog.model.errors import Unavailable, defect, named
from twinlog.model.event import Recorded
from twinlog.model.forms import shown
from twinlog.model.personal import holds_personal
from twinlog.model.policies import Dispatch, NoDispatch, several_dispatches
from twinlog.model.trace import log_fields

ALONE_SECONDS = 60.0
"""How long one suspect is asked again while it alone fails and nothing new comes to compare it with."""


class ProviderDown(Unavailable):
    """{consumer}: no call gets through ({error}); {events} events wait until one does."""

    reason = "PROVIDER_DOWN"


@dataclass(eq=False)
class Effect:
    """What one event calls for, and how far that is."""

    event: Recorded
    calls: Sequence[Call]
    results: Sequence[Dispatch] | None = None
    """None: not answered yet."""
    error: Exception | None = None
    """Of the last try."""
    transient: bool = False
    """Whether the error may be the other system's."""
    given_up: bool = False
    """Whether it is the event's fault."""
    doubted: bool = False
    """Whether others were answered after it failed: it is asked once more."""
    attempts: int = 0
    since: float = 0.0
    """When it became a suspect, by the loop's time; 0 while it is none."""
    first: int = 0
    """How many calls had been begun before its first."""
    failed: int = 0
    """How many calls had been begun when it failed last."""

    @property
    def settled(self) -> bool:
        """Whether nothing more is to be tried."""
        return self.results is not None or self.given_up

    @property
    def suspect(self) -> bool:
        """Whether it failed, and it is open whose fault that is."""
        return self.error is not None and self.transient and not self.settled


@dataclass
class Calls:
    """Makes the calls of one table of effects, and remembers answers until they are committed."""

    effects: Effects
    randomness: Randomness = random
    _known: dict[UUID, Effect] = field(default_factory=dict)
    """By event: what is not committed yet."""
    _begun: int = 0
    """How many calls were begun so far."""
    _answered: int = 0
    """The number of the last begun call that was answered."""
    _silent: int = 0
    """How many transient failures there were since the last answer, in this round."""
    _down: bool = False

    def of(self, event: Recorded, calls: Sequence[Call]) -> Effect:
        """What is known of an event's effect."""
        return self._known.setdefault(event.event_id, Effect(event, calls))

    def forget(self, events: Sequence[Recorded], upto: int = 0) -> None:
        """Drops what is known of these events, and of all up to a position."""
        for event in events:
            self._known.pop(event.event_id, None)
        for id in [id for id, known in self._known.items() if known.event.position <= upto]:
            del self._known[id]

    async def make(self, wanted: Sequence[Effect]) -> None:
        """Has the calls answered. Raises TriedInVain for an event at fault, or ProviderDown.

        What was answered or is at fault is remembered, and not called again.
        """
        lanes = _lanes(wanted)
        while left := [lane for lane in lanes.values() if not _head(lane).settled]:
            suspects = [[head] for lane in left if (head := _head(lane)).suspect]
            if suspects:
                await self._round(suspects)
            await self._round([lane for lane in left if not _head(lane).suspect])
            self._judge([head for lane in left if (head := _head(lane)).suspect], len(wanted))
        self._down = False
        for effect in wanted:
            if effect.given_up:
                assert effect.error is not None
                raise TriedInVain(effect.error, effect.attempts)

    async def _round(self, lanes: Sequence[Sequence[Effect]]) -> None:
        self._silent = 0
        slots = asyncio.Semaphore(self.effects.concurrency)
        async with asyncio.TaskGroup() as group:
            for lane in lanes:
                group.create_task(self._follow(lane, slots))

    async def _follow(self, lane: Sequence[Effect], slots: asyncio.Semaphore) -> None:
        for effect in lane:
            if effect.results is not None:
                continue
            await self._try_again_and_again(effect, slots)
            if effect.results is None:
                return  # those behind it wait

    async def _try_again_and_again(self, effect: Effect, slots: asyncio.Semaphore) -> None:
        effects, asked_before = self.effects, effect.suspect
        first, most = effects.first_wait.total_seconds(), effects.longest_wait.total_seconds()
        for tried, pause in enumerate(backoff(first, most, self.randomness), 1):
            async with slots:
                if self._silent >= effects.concurrency:
                    return
                await self._try(effect)
            if effect.settled or (effect.transient and (asked_before or self._down)):
                return  # the question is only whether the other system is back
            if tried > effects.retries:
                effect.given_up = not effect.transient
                return
            await asyncio.sleep(pause)

    async def _try(self, effect: Effect) -> None:
        if not effect.attempts:
            effect.first = self._begun
        self._begun += 1
        began = self._begun
        effect.attempts += 1
        transient: tuple[type[Exception], ...] = (*self.effects.transient, TimeoutError)
        try:
            async with asyncio.timeout(self.effects.timeout.total_seconds()):
                effect.results = await self._call(effect)
            self._answered, self._silent, self._down = max(self._answered, began), 0, False
        except Exception as error:
            effect.error, effect.transient = error, _all_of(error, transient)
            if effect.transient:
                effect.failed, effect.given_up = self._begun, effect.doubted
                self._silent += 1
            else:  # where it gave no commands, it was made, and would come to the same
                effect.given_up = isinstance(error, NoDispatch)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task and task.cancelling():
                raise
            effect.error, effect.transient = RuntimeError("a cancellation leaked from the call"), False
        except GeneratorExit:
            raise
        except BaseException as error:  # a SystemExit, say, that an SDK for a command line raises
            effect.error, effect.transient = defect(error), False

    async def _call(self, effect: Effect) -> Sequence[Dispatch]:
        results: list[Dispatch] = []
        with bound_contextvars(**log_fields(effect.event.metadata)):  # what it logs says what for
            for number, (function, message) in enumerate(effect.calls):
                key = self.effects.key(effect.event, number)
                call = function(message, Attempt(key, effect.attempts, effect.event))
                if not isinstance(call, Awaitable):
                    raise NoDispatch(f"it gave {shown(call)} and nothing to wait for; make it async def")
                answer = await call
                if answer is not None:
                    results += [answer] if isinstance(answer, Dispatch) else several_dispatches(answer)
        return results

    def _judge(self, suspects: Sequence[Effect], events: int) -> None:
        """Raises ProviderDown where nothing speaks for it that a suspect is at fault."""
        found, now = False, asyncio.get_running_loop().time()
        for suspect in suspects:
            suspect.since = suspect.since or now
            alone = len(suspects) == 1 and now - suspect.since >= ALONE_SECONDS
            if alone and self._answered > suspect.first:
                suspect.given_up = found = True
            elif self._answered > suspect.failed:
                suspect.doubted = found = True
        if suspects and not found:
            self._down = True
            assert suspects[0].error
            event = suspects[0].event
            error = without_text(suspects[0].error, holds_personal(event.type, event.payload))
            raise ProviderDown(consumer=self.effects.consumer, error=named(error), events=events) from error


def _lanes(wanted: Sequence[Effect]) -> Mapping[str, Sequence[Effect]]:
    """The effects by partition key: within a lane, one after the other."""
    lanes: dict[str, list[Effect]] = {}
    for effect in wanted:
        lanes.setdefault(effect.event.partition_key, []).append(effect)
    return lanes


def _all_of(error: Exception, types: tuple[type[Exception], ...]) -> bool:
    """Whether an error is of these types, or several are, as a TaskGroup raises them."""
    return error.split(types)[1] is None if isinstance(error, ExceptionGroup) else isinstance(error, types)


def _head(lane: Sequence[Effect]) -> Effect:
    """The first that is not answered, which holds up those behind it; the last where all are."""
    return next((effect for effect in lane if effect.results is None), lane[-1])
