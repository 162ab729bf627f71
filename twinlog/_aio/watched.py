"""What health checks watch."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol


class Watched(Protocol):
    """A part of the process, such as a relay or a cursor, that can fail for a while."""

    @property
    def problem(self) -> str | None:
        """Current fault, or None while healthy."""


class Together:
    """Several parts, watched as one."""

    def __init__(self, parts: Collection[Watched]) -> None:
        """``parts`` may still grow."""
        self._parts = parts

    @property
    def problem(self) -> str | None:
        """Current faults, or None while all are healthy."""
        return "; ".join(problem for part in self._parts if (problem := part.problem)) or None
