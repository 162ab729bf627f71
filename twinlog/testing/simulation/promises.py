"""Everything that is checked in a run: what Twinlog promises, and what the domain does."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta

from twinlog.log.ports import Appended, Batch, CheckpointAdvance
from twinlog.memory.log import MemoryLog
from twinlog.model.event import Recorded
from twinlog.model.view import Changes
from twinlog.testing.simulation.commits import Commits
from twinlog.testing.simulation.cuts import Cuts
from twinlog.testing.simulation.folds import Folds
from twinlog.testing.simulation.hosted import is_wanted
from twinlog.testing.simulation.invariants import Invariants
from twinlog.testing.simulation.mirrors import Mirrors
from twinlog.testing.simulation.scene import Scene
from twinlog.testing.simulation.violation import check

_SOON = timedelta(seconds=120)
"""A timer that is due within this time is waited for; a later one is for a run of days."""


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
