"""Leases: one replica at a time does a piece of work. They save effort; correctness never depends on them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Protocol, runtime_checkable


class Lease(Protocol):
    """The right to do one piece of work, until it expires."""

    @property
    def problem(self) -> str | None:
        """Why nobody may be doing the work, or None while healthy."""

    async def hold(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Runs ``work`` whenever this replica holds the lease, endlessly; cancels it when the lease is lost."""


@runtime_checkable
class ToldLease(Protocol):
    """A lease that knows who has it."""

    @property
    def holder(self) -> str:
        """Who has it, as last heard; empty: not known."""

    @property
    def mine(self) -> bool:
        """Whether this replica has it, as last heard."""


class AlwaysHeld:
    """The lease of work that needs none: a single replica, or work that replicas may safely do at once."""

    problem: str | None = None

    async def hold(self, work: Callable[[], Awaitable[None]]) -> None:
        await work()


ALWAYS_HELD: Lease = AlwaysHeld()


def is_here(lease: Lease) -> bool:
    """Whether this replica does the work, as far as is known."""
    return lease.mine if isinstance(lease, ToldLease) else True


def holder_of(lease: Lease) -> str:
    """Who does the work; empty where that is not known."""
    return lease.holder if isinstance(lease, ToldLease) else ""
