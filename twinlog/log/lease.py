"""Leases: one replica at a time does a piece of work. They save effort; correctness never depends on them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol


class Lease(Protocol):
    """The right to do one piece of work, until it expires."""

    @property
    def problem(self) -> str | None:
        """Why nobody may be doing the work, or None while healthy."""
        ...

    async def hold(self, work: Callable[[], Awaitable[None]]) -> None:
        """Runs ``work`` whenever this replica holds the lease, endlessly; cancels it when the lease is lost."""
        ...


class AlwaysHeld:
    """The lease of work that needs none: a single replica, or work that replicas may safely do at once."""

    problem: str | None = None

    async def hold(self, work: Callable[[], Awaitable[None]]) -> None:
        await work()


ALWAYS_HELD: Lease = AlwaysHeld()
