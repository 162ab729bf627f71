"""What health checks watch."""

from __future__ import annotations

from typing import Protocol


class Watched(Protocol):
    """A part of the process, such as a relay or a cursor, that can fail for a while."""

    @property
    def problem(self) -> str | None:
        """Current fault, or None while healthy."""
        ...
