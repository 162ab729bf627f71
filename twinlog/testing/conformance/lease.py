"""What every lease does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from twinlog.log.lease import Lease
from twinlog.testing.waiting import until

LeaseOf = Callable[[str], Lease]
"""From the name of a replica, its lease on the one piece of work that the test is about."""


class _Replica:
    """Does the work while it has the lease."""

    def __init__(self, lease: Lease) -> None:
        self.lease = lease
        self.works = 0
        """How often it is at work now: once, or not at all."""

    async def work(self) -> None:
        self.works += 1
        try:
            await asyncio.Event().wait()
        finally:
            self.works -= 1


@asynccontextmanager
async def _running(lease: Lease) -> AsyncIterator[_Replica]:
    replica = _Replica(lease)
    task = asyncio.create_task(lease.hold(replica.work))
    try:
        yield replica
        assert not task.done(), "hold() ends only when it is cancelled"
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert not replica.works


@pytest.mark.asyncio
class LeaseConformance:
    """The suite of an adapter of the lease: derive a test class, with a fixture ``lease`` that gives a
    :data:`LeaseOf` one piece of work that nobody does yet."""

    async def test_who_is_alone_works_and_is_healthy(self, lease: LeaseOf) -> None:
        async with _running(lease("one")) as replica:
            await until(lambda: replica.works == 1)
            assert replica.lease.problem is None

    async def test_of_several_one_works(self, lease: LeaseOf) -> None:
        async with _running(lease("one")) as one, _running(lease("two")) as two:
            await until(lambda: one.works + two.works > 0)
            for _ in range(20):
                assert one.works + two.works == 1
                await asyncio.sleep(0.01)

    async def test_who_ends_leaves_the_work_to_another(self, lease: LeaseOf) -> None:
        async with _running(lease("one")) as one:
            await until(lambda: one.works == 1)
            waiting = _running(lease("two"))
            two = await waiting.__aenter__()
        try:
            await until(lambda: two.works == 1)
        finally:
            await waiting.__aexit__(None, None, None)

    async def test_the_work_is_taken_up_again(self, lease: LeaseOf) -> None:
        for name in ("one", "two", "one"):
            async with _running(lease(name)) as replica:
                await until(lambda replica=replica: replica.works == 1)  # type: ignore[misc]
