"""Unfinished work: what commands from outside began and what the sagas behind them have not ended yet.

A stream is unfinished from the command that begins it until its timer is cleared. How much may be unfinished at once
follows from Little's law: what finishes C streams a second, each within T seconds, has room for C times T. T is a share
of the time that the timers leave; C is measured, and counts only while work is slow: before that, it says how much was
asked for. (BBR, by Cardwell et al., sizes the window of a TCP connection like this.) Streams that have been unfinished
for much longer do not count: they wait for something else, and are to take nothing from the others.

Where work has just become slow, C is not known yet: it is at least what was asked for before. And while nothing at all
is finished, it cannot be measured: a service hands over, as when it is updated, and finishes as much as before in a
second or two. So a look that sees nothing finished is a part of the next one, for as long as T; and until some looks
have measured C, the window is that of half of the time that the timers leave.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from statistics import fmean, median

import structlog

from twinlog.log.ports import Log, ReadRequest
from twinlog.log.transaction import Entry
from twinlog.log.units import StreamRef
from twinlog.model.aggregate import AnyAggregate
from twinlog.model.clock import Clock
from twinlog.model.errors import Overloaded
from twinlog.model.event import Recorded, StreamId, known_stream

_LOOK_SECONDS = 0.25
_RATES, _REMEMBERED = 8, 12
"""Looks over which the rate is averaged, and those whose highest average counts: a service that is away for a moment,
as in a restart, finishes as much as before when it is back."""
_SHARE_OF_TIMER, _LARGEST_SHARE, _SHORT_SECONDS, _LONG_SECONDS = 1 / 3, 0.5, 1.0, 2.5
"""T: a third of what a timer leaves; up to a half of it where that is less than a second, and never longer than what is
worked off in a few seconds."""
_SLOW_SHARE, _SLOW_SECONDS = 0.25, 2 * _LOOK_SECONDS
"""Work is slow beyond this share of T, and beyond what two looks blur."""
_LEAST, _FIRST, _FIRST_PER_SECOND = 16, 64, 40
"""The smallest window; the first one, which is at least so much for each second that the timers leave."""
_UNKNOWN = 1024
"""The window before anything is known of the timers: until the first command is committed."""
_KNOWN_LOOKS, _KNOWN_RATES = 4, 2
"""How many looks it takes to tell how fast work is finished, and how many of them have to count: the first looks of a
rush see only its beginning."""
_MOST_SECONDS = 6.0
"""Work that was begun before C was known may take half of what its timer leaves, and no longer than this."""
_STUCK = 2.0
"""Work that has taken so many times T waits for something else."""
_FORGOTTEN_SECONDS = 30.0
"""After this time, a command whose caller has gone is taken to have begun nothing."""
_PROBES = 16


@dataclass(slots=True)
class _Work:
    """One stream that is unfinished."""

    stream: StreamId
    aggregate: AnyAggregate
    began: float
    version: int = 0
    """That of the stream when it was begun; 0 until that is committed."""
    ends: float = float("inf")
    """When its timer ends it, by the loop's time."""


class UnfinishedWork:
    """The unfinished streams that commands of this process have begun, and how many there may be."""

    def __init__(self, log: Log, clock: Clock) -> None:
        self._log = log
        self._clock = clock
        self._open: dict[StreamId, _Work] = {}
        self._took: list[float] = []
        """Seconds that work took which was finished since the last look."""
        self._rates: deque[float] = deque(maxlen=_RATES)
        """What was finished a second, by look."""
        self._averages: deque[float] = deque(maxlen=_REMEMBERED)
        self._since = self._moved = 0.0
        """When the last look was that counted, and the last that saw something finished."""
        self._looks = 0
        """How many looks there were since there was nothing to do."""
        self._slow_looks = 0
        """How many looks have counted while work was slow; each at which it is not takes one off again."""
        self._within = self._unsure_within = 1.0
        """T: seconds that work may take; and what it may take before it is known how much is finished."""
        self._first = float(_FIRST)
        self._window = float(_UNKNOWN)
        self._known = False
        """Whether it is known how much time the timers leave."""
        self._most = 0
        self._stuck = 0
        """How many of the open ones are stuck."""
        self._heard: list[_Work] = []
        """Work that another replica seemed to have finished, by the last look."""
        self._heard_at = 0.0
        self._refused = 0
        self._refusing = False
        self._busy = asyncio.Event()

    def __len__(self) -> int:
        return len(self._open)

    @property
    def window(self) -> int:
        """How many streams may be unfinished at once."""
        return int(self._window)

    def begin(self, ref: StreamRef) -> StreamId | None:
        """Notes that a command is about to begin a stream; :meth:`never_began` takes it where nothing comes of it.

        None where the stream is unfinished already. Raises Overloaded.
        """
        if (count := len(self._open) - self._stuck) >= self._window:
            self._refused += 1
            raise Overloaded(waiting=count)
        stream = known_stream((ref[0].name, ref[1]))
        if stream in self._open:
            return None
        self._open[stream] = _Work(stream, ref[0], asyncio.get_running_loop().time())
        self._most = max(self._most, len(self._open) - self._stuck)
        self._busy.set()
        return stream

    def never_began(self, stream: StreamId) -> None:
        """Takes back a :meth:`begin`, unless its events are committed."""
        work = self._open.get(stream)
        if work is not None and not work.version:
            del self._open[stream]

    def committed(self, events: Sequence[Recorded], known: Mapping[StreamId, Entry]) -> None:
        """Notes the states of the streams that have new events."""
        now, time, opened = asyncio.get_running_loop().time(), self._clock.now(), self._open
        leaves: float | None = None
        for event in events:
            work, entry = opened.get(event.stream), known.get(event.stream)
            if work is None or entry is None:
                continue
            due: datetime | None = entry.due if entry.due_known else work.aggregate.due(entry.state)
            if due is None:
                del opened[event.stream]
                if work.version and now < work.ends:
                    self._took.append(now - work.began)
            elif not work.version:
                leaves = (due - time).total_seconds()
                work.version, work.ends = entry.version, now + leaves
        if leaves is not None:
            self._allow(leaves)

    def _allow(self, seconds: float) -> None:
        """Takes in how much time a timer leaves."""
        least, most = min(_LARGEST_SHARE * seconds, _SHORT_SECONDS), _LONG_SECONDS
        self._within = max(least, min(_SHARE_OF_TIMER * seconds, most))
        self._unsure_within = min(_LARGEST_SHARE * seconds, _MOST_SECONDS)
        self._first = max(_FIRST, _FIRST_PER_SECOND * seconds)
        if not self._known:
            self._known, self._window = True, self._first
        elif not self._rates:
            self._window = max(self._window, self._first)

    async def watch(self) -> None:
        """Adapts the window for as long as work is unfinished; endlessly."""
        self._since = self._moved = asyncio.get_running_loop().time()  # work may have begun already
        while True:
            if not self._open and not self._refusing:
                self._busy.clear()
                await self._busy.wait()
                self._rates.clear()
                self._averages.clear()
                self._looks = self._slow_looks = 0
                self._since = self._moved = asyncio.get_running_loop().time()
                self._window = max(self._window, self._first)
            await asyncio.sleep(_LOOK_SECONDS)
            try:
                await self._ask()
            except Exception as error:  # it only makes this replica more careful than it need be
                structlog.get_logger().debug("admission.blind", log=self._log.name, why=str(error))
            self._look(asyncio.get_running_loop().time())

    def _look(self, now: float) -> None:
        self._forget(now)
        ages = [now - work.began for work in self._open.values()]
        stuck = _STUCK * self._within
        self._stuck = len([age for age in ages if age > stuck])
        self._looks += 1
        took, self._took = self._took, []
        most, self._most = self._most, len(ages) - self._stuck
        if took:
            self._moved = now
        if counts := bool(took) or now - self._moved > self._within:
            self._rates.append(len(took) / (now - self._since))
            self._averages.append(fmean(self._rates))
            self._since = now
        slow = self._seconds(took, ages) > max(_SLOW_SHARE * self._within, _SLOW_SECONDS)
        self._slow_looks = min(self._slow_looks + counts, _RATES) if slow else max(0, self._slow_looks - 1)
        if slow and self._looks >= _KNOWN_LOOKS and len(self._rates) >= _KNOWN_RATES:
            self._narrow(max(self._averages))
        elif self._rates:
            room = max(self._rates) * self._within if most > self._window / 2 else self._first
            self._window = max(self._window, min(2 * self._window, room))
        self._say()

    def _narrow(self, rate: float) -> None:
        """Lets in only what is finished in time at this rate."""
        if self._slow_looks >= _KNOWN_LOOKS:
            window = rate * self._within
        else:  # the rate may still be what was asked for
            window = min(self._window, rate * self._unsure_within)
        self._window = max(_LEAST, window)

    def _seconds(self, took: Sequence[float], ages: Sequence[float]) -> float:
        """The seconds that work takes: what was finished, and what is to be expected of what has waited for a while."""
        stuck = _STUCK * self._within
        waiting = len([age for age in ages if _LOOK_SECONDS < age <= stuck])
        rate = max(self._rates[-1], fmean(self._rates)) if self._rates else 0.0
        return max(median(took) if took else 0.0, waiting / rate if rate else waiting * self._within)

    def _forget(self, now: float) -> None:
        """Drops what ended unseen: by its timer, or because its caller went before it was begun."""
        for stream, work in list(self._open.items()):
            if now > (work.ends if work.version else work.began + _FORGOTTEN_SECONDS):
                del self._open[stream]

    async def _ask(self) -> None:
        """Asks the log for what other replicas finished: whatever began before that counts as finished, too.

        Work that this replica finished itself is gone by the next look: only what is still here then was theirs.
        """
        theirs = [work.began for work in self._heard if self._open.get(work.stream) is work]
        if theirs:
            upto = max(theirs)
            for work in [work for work in self._open.values() if work.version and work.began <= upto]:
                del self._open[work.stream]
                self._took.append(self._heard_at - upto)
        begun = [work for work in self._open.values() if work.version]
        asked = begun[:: max(1, len(begun) // _PROBES)]
        self._heard, self._heard_at = [], asyncio.get_running_loop().time()
        if asked:
            slices = await self._log.load([ReadRequest(work.stream, work.version) for work in asked])
            self._heard = [work for work, found in zip(asked, slices, strict=True) if found.events]

    def _say(self) -> None:
        refused, self._refused = self._refused, 0
        if bool(refused) is self._refusing:
            return
        self._refusing = bool(refused)
        log = structlog.get_logger()
        if refused:
            log.warning(
                "admission.refusing", log=self._log.name, unfinished=len(self._open), window=self.window
            )
        else:
            log.info("admission.open", log=self._log.name, unfinished=len(self._open))
