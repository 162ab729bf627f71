"""The order in which events of several logs are told."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol, TypeVar


class Told(Protocol):
    """An event as the row of a timeline has it."""

    @property
    def log(self) -> str: ...

    @property
    def position(self) -> int: ...

    @property
    def recorded_at(self) -> datetime: ...

    @property
    def causation_id(self) -> str:
        """The address of its cause, as log/position, where that is an event."""


E = TypeVar("E", bound=Told)


def causes_first(rows: Sequence[E]) -> list[E]:
    """By time, but never an event before its cause or before an earlier one of its log, whatever clocks say."""
    waiting = sorted(rows, key=lambda row: (row.recorded_at, row.log, row.position))
    addresses = {f"{row.log}/{row.position}" for row in waiting}
    ordered: list[E] = []
    placed: set[str] = set()
    while waiting:
        least = {log: min(r.position for r in waiting if r.log == log) for log in {r.log for r in waiting}}
        row = next(
            (
                row
                for row in waiting
                if row.position == least[row.log]
                and (row.causation_id in placed or row.causation_id not in addresses)
            ),
            waiting[0],
        )
        waiting.remove(row)
        placed.add(f"{row.log}/{row.position}")
        ordered.append(row)
    return ordered
