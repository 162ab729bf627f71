"""What consumers set aside while streams cannot be read: events of those streams only, in their order."""

from __future__ import annotations

from bisect import insort
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from twinlog.testing.simulation.violation import check
from twinlog.v1.dead_letters_pb2 import EventDiscarded, EventParked, EventReplayed


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
