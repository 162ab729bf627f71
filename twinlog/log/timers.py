"""Timers: wake the streams whose time has come.

The log keeps one timer row per stream, set and cleared in the transaction of the events that change it, so timers
outlive the process. A late or repeated wake-up does nothing: the decider checks its state.

A timer that cannot be fired, because its stream cannot be read, its aggregate is gone or nothing is due there by this
program, stays where it is, is reported and is tried again now and then. It holds up no other. There may be very many of
them: they are told by their number and a few names, few are remembered, and few of them are tried again at a time.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import datetime
from itertools import islice

import structlog

from twinlog._aio.retrying import Randomness, Retrying
from twinlog.log import say
from twinlog.log.lease import ALWAYS_HELD, HELD_UP, Lease
from twinlog.log.ports import Log, ReadRequest, Timer
from twinlog.log.transaction import NotLoaded, Transaction
from twinlog.log.writer import Writer
from twinlog.model.aggregate import AnyAggregate
from twinlog.model.clock import Clock
from twinlog.model.errors import PartlyUnavailable, TwinlogError, Unavailable, defect, text_of
from twinlog.model.event import Metadata, Recorded

_BATCH = 200
_AGAIN_SECONDS = 10.0
"""How often timers that could not be fired are tried again, if all can be in that time."""
_PAGES_AGAIN = 5
"""How many batches of them at a look."""
_SILENT_SECONDS = 5.0
_NAMED = 5
"""How many of them health names."""
_REMEMBERED = 1_000
"""How many of them are known one by one, and logged."""

Causes = Mapping[Timer, Recorded]
"""By timer: the event that set it, where there is one."""
Traced = Callable[[Causes], AbstractContextManager[Mapping[Timer, str]]]


class AggregateGone(TwinlogError):
    """No aggregate {type} is declared here; deploy a version that has it, or delete the timer."""

    reason = "AGGREGATE_GONE"


class NothingDue(TwinlogError):
    """By this program nothing is due there; deploy the version that set the timer, or see what `make audit` says."""

    reason = "NOTHING_DUE"


@dataclass(slots=True)
class _Round:
    """One in which all that are stuck are tried again, over many looks where they are very many."""

    found: dict[Timer, str]
    """Some of those that are stuck still, and why."""
    after: Timer | None = None
    """The last that was tried again, of those that looks pass."""
    count: int = 0
    """How many of them are stuck still."""
    ended: bool = False


class Timers:
    """Fires the due timers of one log, for the aggregates it is given."""

    def __init__(
        self,
        log: Log,
        writer: Writer,
        aggregates: Sequence[AnyAggregate],
        *,
        clock: Clock,
        lease: Lease = ALWAYS_HELD,
        actor: str,
        interval_seconds: float = 0.5,
        traced: Traced = lambda _causes: nullcontext({}),
        randomness: Randomness = random,
    ) -> None:
        """``interval_seconds``: between two checks, so the most by which a wake-up is late while the store works.
        ``traced`` goes around each firing, and gives the trace contexts of what timers set off."""
        self._log = log
        self._writer = writer
        self._aggregates = {aggregate.name: aggregate for aggregate in aggregates}
        self._clock = clock
        self._lease = lease
        self._actor = actor
        self._interval_seconds = interval_seconds
        self._traced = traced
        self._told: dict[Timer, str] = {}
        """Some of those that could not be fired, and why."""
        self._known: dict[Timer, str] = {}
        """Some of those beyond ``_passed``: they are not tried before the next round."""
        self._vain: set[Timer] = set()
        """Some of those of this look that had nothing to do: mostly another replica, or a client, was faster."""
        self._vain_before: set[Timer] = set()
        """Those of the look before, and those that it knew to be stuck."""
        self._passed: Timer | None = None
        """Up to this one, all that are due are stuck; the next look begins behind it."""
        self._behind = self._beyond = 0
        """How many are stuck up to there, and after."""
        self._round: _Round | None = None
        self._try_again_at = 0.0
        self._retrying = Retrying(
            say_failing=say.warning("timers.stopped", log=log.name),
            say_working=say.info("timers.firing", log=log.name),
            on=(Exception,),  # whatever it is, later wake-ups are better than none
            first_seconds=interval_seconds,
            randomness=randomness,
        )

    @property
    def problem(self) -> str | None:
        """Current fault, or which timers could not be fired and why; None while healthy."""
        if self._retrying.problem or not self.stuck:
            return self._retrying.problem
        said = [
            f"the timer of {timer.stream} cannot fire: {why.removesuffix('.')}"
            for timer, why in islice(self._told.items(), min(_NAMED, self.stuck))
        ]
        if self.stuck > len(said):
            said.append(f"and {self.stuck - len(said)} more")
        looks = self.stuck // (_PAGES_AGAIN * _BATCH)
        said.append(f"tried again every {max(_AGAIN_SECONDS, looks * self._interval_seconds):g} s")
        return "; ".join(said).encode("ascii", "backslashreplace").decode()

    @property
    def stuck(self) -> int:
        """How many timers could not be fired."""
        return self._behind + self._beyond

    async def run(self) -> None:
        """Fires endlessly, while the lease is held; an outage of the store delays wake-ups and loses none."""
        await self._lease.hold(self._run_while_held)

    async def _run_while_held(self) -> None:
        try:
            while True:
                await self._retrying(self.fire)
                await asyncio.sleep(self._interval_seconds)
        finally:
            self._retrying.reset()  # another replica takes over, and its faults are not ours
            self._told, self._known, self._passed, self._behind, self._beyond = {}, {}, None, 0, 0
            self._vain = set()
            self._round, self._try_again_at = None, 0.0

    async def fire(self) -> int:
        """Wakes the streams that are due now; returns how many."""
        now, time = self._clock.now(), asyncio.get_running_loop().time()
        self._vain, self._vain_before = set(), self._vain | self._known.keys()
        if self._round is None and time >= self._try_again_at:
            self._round, self._known, self._try_again_at = _Round({}), {}, time + _AGAIN_SECONDS
        fired = await self._try_again(self._round, now) if self._round else 0
        fired += await self._look(now)
        if self._round and self._round.ended:
            self._told, self._round = self._round.found, None
        if fired:
            structlog.get_logger().info("timers.fired", log=self._log.name, count=fired)
        return fired

    async def _try_again(self, round: _Round, now: datetime) -> int:
        """Tries some again of those that every look passes; the round ends with the last."""
        passed, fired, pages = self._passed, 0, 0
        while passed and not round.ended and pages < _PAGES_AGAIN:
            page = await self._due(now, round.after)
            timers = [timer for timer in page if timer.due <= passed.due]
            timers = timers[: timers.index(passed) + 1] if passed in timers else timers
            failed = await self._wake_all(timers, now, again=True)
            fired += self._fired(timers, failed)
            round.count += len(failed)
            round.after = timers[-1] if timers else round.after
            round.ended, pages = passed in timers or len(timers) < _BATCH, pages + 1
        if passed is None or round.ended:
            round.ended, self._passed, self._behind = True, round.after, round.count
        return fired

    async def _look(self, now: datetime) -> int:
        """Fires all that are due beyond those that are known to be stuck."""
        after, fired, beyond = self._passed, 0, 0
        while True:
            timers = await self._due(now, after)
            waiting = [timer for timer in timers if timer not in self._known]
            failed = await self._wake_all(waiting, now)
            fired += self._fired(waiting, failed)
            stuck = len(timers) - len(waiting) + len(failed)
            if stuck == len(timers) == _BATCH and after == self._passed:
                self._passed, self._behind = timers[-1], self._behind + stuck
                for timer in timers:
                    self._known.pop(timer, None)
            else:
                beyond += stuck
                self._known |= islice(failed.items(), max(0, _REMEMBERED - len(self._known)))
            if len(timers) < _BATCH:
                break
            after = timers[-1]
        self._beyond = beyond
        return fired

    async def _due(self, now: datetime, after: Timer | None) -> Sequence[Timer]:
        silent = (
            f"log {self._log.name} has not told for {_SILENT_SECONDS:g} s which timers are due; {HELD_UP}"
        )
        with self._retrying.told_after(_SILENT_SECONDS, Unavailable(silent)):
            return await self._log.due(now, _BATCH, *([after] if after else []))

    async def _wake_all(
        self, timers: Sequence[Timer], now: datetime, *, again: bool = False
    ) -> Mapping[Timer, str]:
        """Wakes streams; gives the timers that could not be fired, and why. ``again``: all were stuck before."""
        failed: dict[Timer, Exception] = {
            timer: AggregateGone(type=timer.stream.type)
            for timer in timers
            if timer.stream.type not in self._aggregates
        }
        if declared := [timer for timer in timers if timer not in failed]:
            found = await self._wake_declared(declared, now)
            failed |= found if again else self._without_races(found)
        for timer in timers:
            if timer not in failed:
                self._told.pop(timer, None)
            else:
                self._tell(timer, failed[timer])
        return {timer: text_of(error) for timer, error in failed.items()}

    def _without_races(self, failed: Mapping[Timer, Exception]) -> Mapping[Timer, Exception]:
        """Without those that had nothing to do for the first time: they are gone at the next look, or told then.

        Where so many were stuck before that not all are remembered, nobody knows which those are.
        """
        vain = [timer for timer, error in failed.items() if isinstance(error, NothingDue)]
        self._vain.update(islice(vain, max(0, _REMEMBERED - len(self._vain))))
        forgets = len(self._vain_before) >= _REMEMBERED
        new = set() if forgets else self._vain.intersection(vain) - self._vain_before
        return {timer: error for timer, error in failed.items() if timer not in new}

    def _fired(self, timers: Sequence[Timer], failed: Mapping[Timer, str]) -> int:
        return sum(timer not in failed and timer not in self._vain for timer in timers)

    def _tell(self, timer: Timer, error: Exception) -> None:
        why = text_of(error)
        if self._round and len(self._round.found) < _REMEMBERED:
            self._round.found[timer] = why
        if self._told.get(timer) != why and (timer in self._told or len(self._told) < _REMEMBERED):
            self._told[timer] = why
            self._say_stuck(timer, error)

    async def _causes(self, timers: Sequence[Timer]) -> Causes:
        """The events that set the timers: a wake-up continues their trace, and has their correlation and ``extra``."""
        known = [timer for timer in timers if timer.version]  # the others are a repair's
        wanted = [ReadRequest(timer.stream, timer.version - 1, upto=timer.version) for timer in known]
        slices = await self._log.load(wanted) if wanted else []
        return {timer: found.events[0] for timer, found in zip(known, slices, strict=True) if found.events}

    async def _wake_declared(self, timers: Sequence[Timer], now: datetime) -> Mapping[Timer, Exception]:
        try:
            causes = await self._causes(timers)
            with self._traced({timer: causes[timer] for timer in timers if timer in causes}) as traces:
                outcome = await self._writer.execute(
                    lambda transaction: self._wake(transaction, timers, now, traces, causes),
                    preload=[(self._aggregates[timer.stream.type], timer.stream.id) for timer in timers],
                )
        except Exception as error:
            if isinstance(error, Unavailable) and not isinstance(error, PartlyUnavailable):
                raise
            # Of some of them: what is sound is fired without those.
            if len(timers) == 1:
                return {timers[0]: error}
            middle = len(timers) // 2
            return {
                **await self._wake_declared(timers[:middle], now),
                **await self._wake_declared(timers[middle:], now),
            }
        return outcome.result

    async def check(self) -> None:
        """Puts right what a repair of the log left of timers; for a service whose aggregates have none."""
        while await self._retrying(self.fire):
            pass

    def _wake(
        self,
        transaction: Transaction,
        timers: Sequence[Timer],
        now: datetime,
        traces: Mapping[Timer, str],
        causes: Causes,
    ) -> Mapping[Timer, Exception]:
        failed: dict[Timer, Exception] = {}
        for timer in timers:
            aggregate, id = self._aggregates[timer.stream.type], timer.stream.id
            try:
                state = transaction.state(aggregate, id)
                due = aggregate.due(state)
                if not timer.version:  # a repair of the log left it: what it should be is found out here
                    transaction.check_timer(aggregate, id)
                if due is not None and due <= now:
                    of = causes[timer].metadata if timer in causes else Metadata()
                    trace = traces.get(timer, "")
                    metadata = Metadata(
                        of.correlation_id or id, f"timer/{timer.stream}", trace, self._actor, of.extra
                    )
                    if transaction.do(aggregate, id, aggregate.on_due(state, now), metadata) is not state:
                        continue
                if timer.version:
                    failed[timer] = NothingDue()
            except NotLoaded:
                raise
            except BaseException as error:  # one stream's defect leaves the others their wake-ups
                failed[timer] = defect(error)
        return failed

    def _say_stuck(self, timer: Timer, error: Exception) -> None:
        structlog.get_logger().error(
            "timers.stuck",
            log=self._log.name,
            stream=str(timer.stream),
            due=timer.due.isoformat(),
            problem=text_of(error),
            exc_info=None if isinstance(error, TwinlogError) and error.__cause__ is None else error,
        )
