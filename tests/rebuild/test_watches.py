"""Watches of rows go on, and are resumed, while another build of their view begins to be read."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.rebuild.conftest import PATIENCE, Stays
from tests.rebuild.program import STAYS, Stay
from tests.waiting import until
from twinlog import Unavailable
from twinlog.log.view_store import consumer_of
from twinlog.postgres import view_builds
from twinlog.rpc import Change, ViewMoment


class Told:
    """What a watcher was told."""

    def __init__(self, watch: AsyncIterator[Change]) -> None:
        self._watch = watch
        self.token = ""
        self.rows: dict[str, list[int]] = defaultdict(list)
        """How often each stay had changed."""

    async def listen(self) -> None:
        """Until it is cancelled."""
        async for change in self._watch:
            self.token = change.resume_token
            for key, row in change.rows.items():
                self.rows[key].append(row.changes)

    def has(self, **changes: int) -> bool:
        """Whether these were told last."""
        return all((self.rows[key] or [0])[-1] == number for key, number in changes.items())

    def in_order(self) -> bool:
        """Whether each row was told forward, and no state twice."""
        return all(seen == sorted(set(seen)) for seen in self.rows.values())


@asynccontextmanager
async def listening(*watches: Told) -> AsyncIterator[None]:
    """The watchers listen inside the block."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(each.listen()) for each in watches]
        yield
        for task in tasks:
            task.cancel()


async def every(moment: ViewMoment) -> Sequence[Stay]:
    return [Stay(*row) for row in (await moment.rows(STAYS, ["ann", "bob", "cid"])).values()]


def watch_all(stays: Stays, token: str = "") -> Told:
    return Told(stays.running.reads.watch_rows(STAYS, {}, token, None if token else every))


async def test_watches_follow_what_is_read_and_tell_no_change_twice_and_none_backward(stays: Stays) -> None:
    await stays.write("ann", "bob")
    one, many = Told(stays.running.reads.watch_row(STAYS, "ann")), watch_all(stays)
    written = 1
    async with listening(one, many):

        async def write(times: int) -> None:
            nonlocal written
            for _ in range(times):
                await stays.write("ann")
                written += 1

        await until(lambda: one.has(ann=1) and many.has(ann=1, bob=1))
        build = await stays.rebuilt()
        for step in (stays.switch, stays.back, stays.switch):
            async with asyncio.TaskGroup() as group:
                group.create_task(write(5))
                group.create_task(step())
            await until(lambda: one.has(ann=written) and many.has(ann=written))
        await stays.drop(1)
        await write(2)
        await stays.switch(await stays.rebuilt())
        await stays.drop(build)
        await write(2)
        await until(lambda: one.has(ann=written) and many.has(ann=written))
    assert one.in_order(), one.rows
    assert many.in_order(), many.rows
    assert many.rows["bob"] == [1]


@pytest.mark.parametrize("number", [1, 2])
async def test_a_build_that_is_dropped_under_a_read_is_not_taken_for_an_empty_one(
    stays: Stays, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(view_builds, "KEPT_SECONDS", 0.0)
    await stays.write("ann", "bob")
    await stays.switch(await stays.rebuilt())
    await (stays.back() if number == 2 else asyncio.sleep(0))
    left = {each.number: each for each in await stays.running.views.builds()}[number]
    consumers = [consumer_of(left, "stays_svc.stays", "stays")]

    async def read(moment: ViewMoment) -> Any:
        assert await moment.build(STAYS, number) == left
        assert await moment.differing(STAYS, left, [], 10) == {}
        return await moment.build(STAYS, number)

    async def read_late(moment: ViewMoment) -> Any:
        if await moment.build(STAYS, number):
            await stays.running.views.drop_build(left, consumers, "stays")
            await moment.differing(STAYS, left, [], 10)
        return True

    assert await stays.running.views.at_once(read) == left
    with pytest.raises(Unavailable, match="dropped meanwhile"):
        await stays.running.views.at_once(read_late)
    assert await stays.running.views.at_once(read_late)


async def test_a_watch_is_resumed_in_another_build(stays: Stays) -> None:
    await stays.write("ann", "bob", "cid")
    before = watch_all(stays)
    async with listening(before):
        await until(lambda: before.has(ann=1, bob=1, cid=1))
    await stays.switch(await stays.rebuilt())
    await stays.write("ann", "bob")
    after = watch_all(stays, before.token)
    async with listening(after):
        await until(lambda: after.has(ann=2, bob=2))
        await stays.write("ann")
        await until(lambda: after.has(ann=3))
    assert after.rows == {"ann": [2, 3], "bob": [2]}
    await stays.back()
    again = watch_all(stays, after.token)
    async with listening(again):
        await stays.write("cid")
        await until(lambda: again.has(cid=2))
    assert again.rows == {"cid": [2]}


async def test_rows_that_differ_are_told_at_the_switch(stays: Stays) -> None:
    await stays.write("ann", "bob")
    pool: Any = stays.running.service.log
    await pool.pool.execute("UPDATE stays SET changes = 0 WHERE stay_id = 'bob'")
    stays.running.views._lookups.clear()
    one, many = Told(stays.running.reads.watch_row(STAYS, "bob")), watch_all(stays)
    async with listening(one, many):
        await until(lambda: one.rows["bob"] == many.rows["bob"] == [0])
        await stays.rebuilt()
        await stays.switch(confirm_differences=True)
        await until(lambda: one.rows["bob"] == many.rows["bob"] == [0, 1])
    assert many.rows["ann"] == [1]


async def test_a_watch_is_resumed_from_a_build_that_was_dropped(stays: Stays) -> None:
    """Also over two of them, and what was different in one of them is told."""
    await stays.write("ann", "bob", "cid")
    pool: Any = stays.running.service.log
    await pool.pool.execute("UPDATE stays SET changes = 0 WHERE stay_id = 'bob'")
    before = watch_all(stays)
    async with listening(before):
        await until(lambda: before.has(ann=1, cid=1))
    await stays.write("ann")
    second = await stays.rebuilt()
    await stays.switch(second, confirm_differences=True)
    await stays.drop(1)
    between = watch_all(stays, before.token)
    async with listening(between):
        await until(lambda: between.has(ann=2, bob=1))
    assert between.rows == {"ann": [2], "bob": [1]}
    await stays.switch(await stays.rebuilt())
    await stays.drop(second)
    await stays.write("cid")
    after, later = watch_all(stays, before.token), watch_all(stays, between.token)
    async with listening(after, later):
        await until(lambda: after.has(ann=2, bob=1, cid=2) and later.has(cid=2))
    assert after.rows == {"ann": [2], "bob": [1], "cid": [2]}
    assert later.rows == {"cid": [2]}
    await stays.running.views.forget_notes(0.0)
    with pytest.raises(Exception, match="watch again without a resume_token"):
        async with asyncio.timeout(PATIENCE):
            await watch_all(stays, before.token).listen()
