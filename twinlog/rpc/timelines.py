"""The order in which events of several logs are told."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol, TypeVar

from twinlog.model import causal_order


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
    return causal_order.causes_first(
        rows, lambda row: causal_order.Place(row.recorded_at, row.log, row.position, row.causation_id)
    )
