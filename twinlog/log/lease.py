"""Leases: one replica at a time does a piece of work. They save work; correctness never rests on them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol


class Lease(Protocol):
    """The right to do one piece of work, until it expires."""

    async def hold(self, work: Callable[[], Awaitable[None]]) -> None:
        """Runs ``work`` whenever this replica holds the lease, for ever; cancels it when the lease is lost."""
        ...
