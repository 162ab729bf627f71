"""Everything that is checked in a run: what Twinlog promises, and what the domain does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta

from twinlog.log import cuts
from twinlog.log.history import Cut, LogHistory
from twinlog.log.ports import Appended, Batch, CheckpointAdvance
from twinlog.memory.log import MemoryLog
from twinlog.model.event import Recorded
from twinlog.model.view import Changes
from twinlog.testing.simulation.commits import Commits
from twinlog.testing.simulation.folds import Folds, Mirrors
from twinlog.testing.simulation.hosted import is_wanted
from twinlog.testing.simulation.invariants import Invariants, Violation, check
from twinlog.testing.simulation.scene import Scene

_SOON = timedelta(seconds=120)
"""A timer that is due within this time is waited for; a later one is for a run of days."""
_CUT_EVERY = 10
"""Commits between two looks at a cut."""
_LOOKED_AT = 300
"""Events of each log before the cut whose causes are looked for: clocks are off by seconds."""


class Promises:
    """Is told of every commit, publication and projection at its moment."""

    def __init__(self, scene: Scene, invariants: Invariants, repeatable: Callable[[str], bool]) -> None:
        """``repeatable``: whether the call with a correlation id may have effects again."""
        self._scene = scene
        self._domain = invariants
        self._commits = Commits(scene, invariants.event, repeatable)
        self._mirrors = Mirrors(scene, self._commits.events)
        self._folds = Folds(scene, self._commits.events)
        self._cuts = Cuts(scene)

    @property
    def forked(self) -> set[str]:
        """Logs that were set back, and are not repaired yet."""
        return self._commits.forked

    def unreadable(self, key: str) -> None:
        """A stream of this partition key cannot be read from now on."""
        self._commits.set_aside.keys.add(key)

    def committed(self, log: MemoryLog, batch: Batch, appended: Appended) -> None:
        """A batch is in a log."""
        self._commits.committed(log, batch, appended)
        self._cuts.committed()

    def published(self, log: str, events: Sequence[Recorded]) -> None:
        self._mirrors.published(log, events)

    def projected(self, changes: Changes, advance: CheckpointAdvance) -> None:
        """A batch is in the views."""
        self._folds.projected(changes, advance)

    def set_back(self, log: str, service: str) -> None:
        """A database was set back, with the views in it."""
        if len(self._scene.logs[log].events) < len(self._commits.events[log]):
            self.forked.add(log)
        self._folds.set_back(service)

    def repaired(self, log: str) -> None:
        same = self._scene.logs[log].events == self._commits.events[log]
        check(same, "forks", f"{log} is not what it was")
        self.forked.discard(log)

    def unfinished(self) -> Iterator[str]:
        """What keeps the world from being at rest."""
        self._cuts.judge()
        yield from self._mirrors.unfinished()
        soon = self._scene.now() + _SOON
        for name, log in self._scene.logs.items():
            if any(timer.due < soon for timer in log.timers.values()):
                yield f"timers wait in {name}: {sorted(log.timers)}"
        yield from (f"{log} is forked" for log in self.forked)
        yield from self._folds.unfinished()
        yield from self._unhandled()
        yield from self._commits.set_aside.unfinished()
        yield from self._domain.unfinished()

    def at_rest(self) -> None:
        """Checks everything that holds when nothing moves any more."""
        self._mirrors.at_rest()
        self._folds.at_rest()
        self._domain.at_rest()

    def _unhandled(self) -> Iterator[str]:
        """Events that call for a command or a call outside, and that have had neither."""
        survey = self._scene.survey
        for name, consumer in survey.policies.items():
            own = self._scene.logs[survey.host_of(name).spec.log]
            for event in self._scene.logs[consumer.source].events[own.checkpoints.get(name, 0) :]:
                if is_wanted(consumer, event) and consumer.called_for([event]):
                    yield f"{name} has not handled {event.address}"
                    break
        for name, effects in survey.effects.items():
            own = self._scene.logs[survey.host_of(name).spec.log]
            for event in self._scene.logs[effects.source].events[own.checkpoints.get(name, 0) :]:
                if effects.calls_for_something(self._scene.decoded(event)):
                    yield f"{name} has not handled {event.address}"
                    break


class Cuts:
    """Cuts at times just gone by, now and then. What is wrong is told at the next commit."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._commits = 0
        self._looks: set[asyncio.Task[None]] = set()
        self._wrong = ""

    def committed(self) -> None:
        """Looks now and then. Raises Violation."""
        self.judge()
        self._commits += 1
        if self._commits % _CUT_EVERY == 0:
            ago = timedelta(seconds=self._commits // _CUT_EVERY % 10 * 0.2)
            look = asyncio.get_running_loop().create_task(self._look(self._scene.now() - ago))
            self._looks.add(look)
            look.add_done_callback(self._looks.discard)

    def judge(self) -> None:
        """Raises Violation where something was wrong."""
        if self._wrong:
            raise Violation("cuts", self._wrong)

    async def _look(self, time: datetime) -> None:
        logs = self._scene.logs
        eras = {name: log.eras for name, log in logs.items()}
        heads = {name: len(log.events) for name, log in logs.items()}
        cut = await cuts.at_time({name: LogHistory(log) for name, log in logs.items()}, time)
        if any(log.eras != eras[name] or len(log.events) < heads[name] for name, log in logs.items()):
            return  # one has lost events meanwhile
        self._wrong = self._wrong or self._without_cause(cut)

    def _without_cause(self, cut: Cut) -> str:
        """An event in a cut whose cause is not; empty: there is none."""
        for name, log in self._scene.logs.items():
            for event in log.events[max(0, cut[name] - _LOOKED_AT) : cut[name]]:
                of, _, position = event.metadata.causation_id.partition("/")
                if of in cut and position.isdigit() and int(position) > cut[of]:
                    return f"{event.address} is in the cut {dict(cut)}, and its cause {of}/{position} is not"
        return ""
