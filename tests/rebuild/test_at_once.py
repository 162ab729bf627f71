"""Several who rebuild, switch and drop at once, and replicas that have not yet heard of it."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Mapping
from typing import Any

import asyncpg
import grpc.aio
import pytest

from tests.rebuild.conftest import PATIENCE, Stays, serving
from tests.rebuild.program import POISON, SPEC, STAYS, STAYS_2, Stay
from tests.waiting import until
from twinlog import Unavailable
from twinlog.log.view_builds import BuildGone, RebuildUnderWay, SetAsideMeanwhile
from twinlog.log.view_store import Build, consumer_of
from twinlog.postgres import view_builds
from twinlog.testing.internals import CheckpointAdvance, database_url, named
from twinlog.v1 import view_service_pb2 as pb

HOME = "stays_svc.stays"


async def build_of(stays: Stays, number: int) -> Build:
    return {each.number: each for each in await stays.running.views.builds()}[number]


def consumers(one: Build, other: Build) -> Mapping[str, str]:
    return {consumer_of(one, HOME, "stays"): consumer_of(other, HOME, "stays")}


@pytest.fixture
async def slow(stays: Stays, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Stays]:
    """Another replica, which hears nothing of builds, and looks for itself only when it is told to."""
    monkeypatch.setattr(view_builds, "KEPT_SECONDS", 0.0)
    await stays.write("ann")
    async with serving(monkeypatch) as other:
        builds = other.running.service.view_builds
        look = builds.look

        async def never() -> None:
            """It is held up."""

        async with builds._looking:  # one that has begun is over
            monkeypatch.setattr(builds, "look", never)
        monkeypatch.setattr(builds, "look_late", look, raising=False)
        yield other


async def look(stays: Stays) -> None:
    await stays.running.service.view_builds.look_late()  # type: ignore[attr-defined]


async def read(stays: Stays) -> Any:
    """What a query answers that comes long after the last look."""
    stays.running.views.live.seen_at = -math.inf
    return await stays.running.views.row(STAYS, "ann")


async def test_a_replica_that_has_not_heard_of_it_never_takes_a_dropped_home_for_an_empty_view(
    stays: Stays, slow: Stays
) -> None:
    await stays.switch(await stays.rebuilt())
    assert await read(slow) == Stay("ann", "ann", 1)
    await stays.drop(1)
    for ask in (
        read(slow),
        slow.running.views.query("guests"),
        slow.running.views.at_once(lambda moment: moment.rows(STAYS, ["ann"])),
    ):
        slow.running.views.live.seen_at = -math.inf
        with pytest.raises(Unavailable, match="build 1 of view stays was dropped"):
            await ask
    await look(slow)
    assert await slow.running.views.row(STAYS, "ann") == Stay("ann", "ann", 1)


async def test_nor_does_it_take_the_home_for_a_build_that_was_dropped(stays: Stays, slow: Stays) -> None:
    await stays.switch(await stays.rebuilt())
    await look(slow)
    await stays.back()
    await stays.drop(2)
    with pytest.raises(Unavailable, match="build 2 of view stays was dropped"):
        await read(slow)
    await look(slow)
    assert await read(slow) == Stay("ann", "ann", 1)


async def test_a_build_that_queries_have_just_left_is_kept_for_a_while(
    stays: Stays, monkeypatch: pytest.MonkeyPatch
) -> None:
    await stays.write("ann")
    await stays.switch(await stays.rebuilt())
    await stays.back()
    left = await build_of(stays, 2)
    monkeypatch.setattr(view_builds, "KEPT_SECONDS", 3_600.0)
    assert 0 < await stays.running.views.drop_build(left, [], "stays") <= 3_600
    monkeypatch.setattr(view_builds, "KEPT_SECONDS", 0.5)
    set_back = "UPDATE view_builds SET live_until = live_until + interval '1 hour' WHERE build = 2"
    await stays.running.views.pool.execute(set_back)  # the server's clock, by an hour
    began = asyncio.get_running_loop().time()
    await stays.drop(2)
    assert asyncio.get_running_loop().time() - began < PATIENCE


async def test_who_fills_a_build_that_was_dropped_writes_nothing_into_the_home(stays: Stays) -> None:
    await stays.write("ann")
    build = await stays.running.views.begin_build(STAYS, 1)
    filler = stays.running.views.at(build.place)
    consumer = f"{consumer_of(build, HOME, 'stays')}.late"
    await filler.commit({STAYS: {"x": Stay("x", "x", 1)}}, CheckpointAdvance(consumer, 0, 1, None))
    await stays.running.views.drop_build(build, [consumer], "stays")
    await stays.running.views.pool.expire_connections()  # a new session knows nothing of what its names meant
    with pytest.raises(Unavailable, match="stays@2 was dropped"):
        await filler.commit({STAYS: {"ann": Stay("ann", "eve", 9)}}, CheckpointAdvance(consumer, 0, 1, None))
    assert await stays.guests() == ["ann"]
    assert consumer not in await stays.running.views.checkpoints()


async def test_of_several_who_rebuild_and_switch_at_once_one_is_served(stays: Stays) -> None:
    await stays.write("ann")
    calls = [stays.stub.RebuildView(pb.RebuildViewRequest(view="stays"), timeout=PATIENCE) for _ in range(4)]
    answers = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(each) for each in answers].count(pb.RebuildViewResponse) == 1, answers
    with pytest.raises(RebuildUnderWay):
        await stays.running.views.begin_build(STAYS, 1)
    await stays.ready(2)
    answers = await asyncio.gather(*(stays.switch(2) for _ in range(4)), return_exceptions=True)
    assert any(isinstance(each, pb.SwitchViewResponse) for each in answers)
    refused = [each.code() for each in answers if isinstance(each, grpc.aio.AioRpcError)]
    assert set(refused) <= {grpc.StatusCode.FAILED_PRECONDITION}
    assert [build.number for build in await stays.running.views.builds() if build.live] == [2]


async def test_a_switch_rests_on_the_build_that_was_live_when_it_was_looked_at(stays: Stays) -> None:
    await stays.write("ann")
    await stays.switch(await stays.rebuilt())
    third = await build_of(stays, await stays.rebuilt())
    home = await build_of(stays, 1)
    with pytest.raises(BuildGone):
        await stays.running.views.switch(third, home, consumers(home, third), {})
    assert (await build_of(stays, 2)).live


async def test_what_is_set_aside_just_before_the_switch_refuses_it(
    stays: Stays, monkeypatch: pytest.MonkeyPatch
) -> None:
    await stays.write("ann")
    async with serving(monkeypatch, [STAYS, STAYS_2]) as newer:
        build = await build_of(newer, await newer.rebuilt())
        home, views = await build_of(newer, 1), newer.running.views
        pairs = consumers(home, build)
        looked_at = (await newer.running.service.view_builds.lacking(pairs.items())).versions
        await newer.write(POISON)
        await until(lambda: _has_set_aside(newer, build))
        with pytest.raises(SetAsideMeanwhile):
            await views.switch(build, home, pairs, looked_at)
        with pytest.raises(grpc.aio.AioRpcError, match=r"set events aside .*: stays/2"):
            await newer.switch(confirm_differences=True)
        await newer.switch(confirm_differences=True, confirm_dead_letters=True)
        await newer.back()
        with pytest.raises(grpc.aio.AioRpcError, match=r"set events aside .*: stays/2"):
            await newer.back()  # to the build that lacks it
        request = pb.SwitchViewBackRequest(view="stays", confirm_dead_letters=True)
        await newer.stub.SwitchViewBack(request, timeout=PATIENCE)
        assert await newer.guests() == ["ANN"]


async def test_a_replica_does_not_change_over_to_what_has_set_aside_what_it_has_shown(
    stays: Stays, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(view_builds, "KEPT_SECONDS", 0.0)
    await stays.write("ann")
    async with serving(monkeypatch, [STAYS, STAYS_2]) as newer:
        builds, views = newer.running.service.view_builds, newer.running.views
        build, home = await build_of(newer, await newer.rebuilt()), await build_of(newer, 1)
        lacking = await builds.lacking(consumers(home, build).items())
        async with builds._looking:  # it is held up
            await views.switch(build, home, consumers(home, build), lacking.versions)
            await newer.write(POISON)
            await until(lambda: _has_set_aside(newer, build))
        await builds.look()
        assert await newer.guests() == ["ann", POISON]
        await newer.drop(1)
        assert await newer.guests() == ["ANN"], "there is no other one to read"


async def _has_set_aside(stays: Stays, build: Build) -> bool:
    pair = consumers(await build_of(stays, 1), build)
    return bool((await stays.running.service.view_builds.lacking(pair.items())).events)


async def test_nothing_is_built_beside_a_program_of_release_0_1_and_none_starts_beside_a_build(
    stays: Stays, postgres_url: str, namespace: str
) -> None:
    await stays.write("ann")
    released = await asyncpg.connect(database_url(postgres_url, named(namespace, SPEC.database)))
    try:
        await released.fetch(_LEASE_OF_0_1, "stays_svc.stays", "it", 5.0)
        with pytest.raises(grpc.aio.AioRpcError, match=r"release 0\.1 .*pid \d+.*Stop it") as refused:
            await stays.rebuilt()
        assert refused.value.code() == grpc.StatusCode.FAILED_PRECONDITION
    finally:
        await released.close()
    assert not await _ruled_out(stays)
    await stays.rebuilt()
    assert await _ruled_out(stays)
    await stays.drop(2)
    assert not await _ruled_out(stays)


async def _ruled_out(stays: Stays) -> bool:
    """Whether programs refuse to start that do not know the migration."""
    pool = stays.running.views.pool
    return bool(
        await pool.fetchval("SELECT breaking FROM schema_migrations WHERE name = '010_view_builds.sql'")
    )


_LEASE_OF_0_1 = """INSERT INTO leases AS held (name, holder, expires_at) VALUES ($1, $2, clock_timestamp() + make_interval(secs => $3))
ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, expires_at = excluded.expires_at
 WHERE held.holder = excluded.holder OR held.expires_at < clock_timestamp()
RETURNING true"""  # noqa: E501 - as it was
