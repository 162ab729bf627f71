"""What holds for every commit to a log."""

from __future__ import annotations

from bisect import insort
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Any

from twinlog.consume.dead_letters import DEAD_LETTERS
from twinlog.log.ports import Appended, Batch, CheckpointAdvance
from twinlog.memory.log import MemoryLog
from twinlog.model.event import Recorded
from twinlog.testing.simulation.call import shortened
from twinlog.testing.simulation.faults import NEWER
from twinlog.testing.simulation.invariants import check
from twinlog.testing.simulation.scene import Scene
from twinlog.v1.dead_letters_pb2 import EventDiscarded, EventParked, EventReplayed

CLOCKS_AGREE_SECONDS = 3.0
"""Half of the longest round trip, in which a store told the time."""
LATEST_COMMIT_SECONDS = 20.0
"""From a decision to its commit: longer than all faults together."""


class Commits:
    """Checks the batches that are committed, and tells of their events."""

    def __init__(
        self, scene: Scene, told: Callable[[Recorded, Any], None], repeatable: Callable[[str], bool]
    ) -> None:
        """``told`` of every event. ``repeatable``: whether the call with a correlation id may have effects again."""
        self.events: dict[str, list[Recorded]] = {name: [] for name in scene.logs}
        """What each log has to hold."""
        self.forked: set[str] = set()
        """Logs that were set back, and are not repaired yet."""
        self.set_aside = SetAside()
        self._scene = scene
        self._told = told
        self._repeatable = repeatable
        survey = scene.survey
        self._acting = {
            (each.actor, name) for name, each in survey.consumers.items() if name not in survey.projections
        }
        """Who acts, and as which consumer."""
        self._actors = {actor for actor, _ in self._acting}
        self._versions: dict[tuple[str, Any], int] = defaultdict(int)
        self._caused: dict[tuple[str, str, str, str], int] = {}
        self._batches = 0

    def committed(self, log: MemoryLog, batch: Batch, appended: Appended) -> None:
        """A batch is in a log."""
        if batch.events:
            check(log.name not in self.forked, "forks", f"{log.name} took {len(batch.events)} events, forked")
        events = log.events[appended.first - 1 :]
        self.events[log.name] += events
        check(
            len(events) == len(batch.events), "positions", f"{log.name} has other events than were appended"
        )
        now_or_just_before(self._scene, batch.recorded_at, f"a batch of {log.name}")
        self._batches += 1
        requested = {event.metadata.correlation_id for event in events if _is_requested(event)}
        again = {id for id in requested if self._scene.requested.get(id) and not self._repeatable(id)}
        covered = {advance.consumer: advance for advance in batch.advances}
        letters = [
            (event, self._scene.decoded(event)) for event in events if event.stream.type == DEAD_LETTERS.name
        ]
        replayed = {
            (letter.consumer, letter.log, letter.position)
            for _, letter in letters
            if isinstance(letter, EventReplayed)
        }
        for event, letter in letters:
            if not isinstance(letter, EventReplayed):
                self.set_aside.took(shown(event), letter)
        for position, event in enumerate(events, appended.first):
            self._numbers(log.name, event, position)
            if event.stream.type != DEAD_LETTERS.name and event.type != NEWER:
                self._cause(event, covered, again, replayed)
                self._told(event, self._scene.decoded(event))
        for event, letter in letters:
            if isinstance(letter, EventReplayed):
                self.set_aside.took(shown(event), letter)

    def _numbers(self, log: str, event: Recorded, position: int) -> None:
        check(event.position == position, "positions", f"{event.address} is at {position}")
        version = self._versions[log, event.stream] + 1
        check(
            event.version == version, "versions", f"{shown(event)} is version {event.version} not {version}"
        )
        self._versions[log, event.stream] = version

    def _cause(
        self,
        event: Recorded,
        advances: Mapping[str, CheckpointAdvance],
        again: set[str],
        replayed: set[tuple[str, str, int]],
    ) -> None:
        """An event of a policy commits with its consumer's checkpoint, or with its replay, in order and once."""
        cause, actor = event.metadata.causation_id, event.metadata.actor
        log, _, position = cause.partition("/")
        if log == "rpc":
            effects = self._scene.requested[event.metadata.correlation_id]
            once = event.metadata.correlation_id not in again
            check(once, "requests", f"{shown(event)}, and the same request led to {[*map(shown, effects)]}")
            effects.append(event)
        elif log in self.events and actor in self._actors:
            consumers = [
                name
                for name, advance in advances.items()
                if (actor, name) in self._acting
                and self._scene.survey.consumers[name].source == log
                and advance.after < int(position) <= advance.upto
            ]
            consumers += [name for name, source, at in replayed if (source, at) == (log, int(position))]
            check(
                bool(consumers),
                "checkpoint",
                f"{shown(event)}, caused by {cause}, came without its checkpoint",
            )
            key = self.events[log][int(position) - 1].partition_key
            for name in consumers:
                self.set_aside.has_effect(shown(event), name, key, int(position))
            effect = (actor, cause, str(event.stream), event.type)
            first = self._caused.setdefault(effect, self._batches)
            check(first == self._batches, "exactly once", f"{shown(event)}: {cause} had this effect before")


def now_or_just_before(scene: Scene, time: datetime, what: str) -> None:
    """A process took the time, by the stores' clock, and had its commit some time later."""
    ago = (scene.now() - time).total_seconds()
    check(-CLOCKS_AGREE_SECONDS < ago < LATEST_COMMIT_SECONDS, "one clock", f"{what} is of {ago:.1f} s ago")


def shown(event: Recorded) -> str:
    """An event in a few words."""
    what = f"{event.type.rpartition('.')[2]} of {event.stream.type} {shortened(event.stream.id)}"
    return f"{event.address} {what}"


def _is_requested(event: Recorded) -> bool:
    return event.metadata.causation_id.startswith("rpc/")


class SetAside:
    """Follows the dead letters of all consumers."""

    def __init__(self) -> None:
        self.keys: set[str] = set()
        """The partition keys that have, or had, a stream that cannot be read."""
        self._waiting: dict[tuple[str, str], list[int]] = defaultdict(list)
        """By consumer and key: the positions that were set aside."""

    def took(self, shown: str, message: Any) -> None:
        """An event of a consumer's dead letters is committed; ``shown`` in messages."""
        match message:
            case EventParked():
                check(message.key in self.keys, "parked", f"{shown}: {message}")
                insort(self._waiting[message.consumer, message.key], message.position)
            case EventReplayed() | EventDiscarded():
                self._waiting[message.consumer, message.key].remove(message.position)

    def has_effect(self, shown: str, consumer: str, key: str, position: int) -> None:
        """An event of a key has an effect through a consumer."""
        before = [at for at in self._waiting.get((consumer, key), ()) if at < position]
        check(not before, "order", f"{shown}, by {position}, which overtakes {before} in {consumer}")

    def unfinished(self) -> Iterator[str]:
        """Consumers that have not replayed everything."""
        for (consumer, key), positions in self._waiting.items():
            if positions:
                yield f"{consumer} has set aside {positions} of {key}"
