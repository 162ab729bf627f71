"""Whatever is interrupted while a view is built anew, compared, switched or dropped comes right afterwards."""

from __future__ import annotations

import asyncio

import asyncpg
import grpc
import pytest

from tests.rebuild.conftest import PATIENCE, Stays, in_use, serving
from tests.rebuild.program import SPEC, STAYS, STAYS_2
from tests.rebuild.test_crashes import asked, grow, process
from tests.waiting import until
from twinlog.dev import EmbeddedPostgres
from twinlog.testing.internals import database_url, named
from twinlog.v1 import view_service_pb2 as pb

EVENTS = 2_000


@pytest.mark.parametrize(
    ("method", "request_"),
    [
        ("CompareView", pb.CompareViewRequest(view="stays")),
        ("SwitchView", pb.SwitchViewRequest(view="stays")),
        ("DropViewBuild", pb.DropViewBuildRequest(view="stays", build=2)),
    ],
    ids=["compare", "switch", "drop"],
)
async def test_a_process_killed_in_the_middle_leaves_what_was_or_what_was_asked_for(
    method: str, request_: object, postgres_url: str, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two replicas, the one that projects and was asked; the other one is in use throughout."""
    await grow(postgres_url, namespace, EVENTS)
    async with process() as killed, serving(monkeypatch) as stays, in_use(stays):
        await asked(killed.address, "RebuildView", pb.RebuildViewRequest(view="stays", share=100))
        await until(lambda: _is_ready(killed.address))
        asking = asyncio.create_task(asked(killed.address, method, request_))
        await asyncio.sleep(0.005)
        await killed.kill()
        asking.cancel()
        await asyncio.wait([asking])
        builds = (await stays.stub.ListViews(pb.ListViewsRequest(), timeout=PATIENCE)).views[0].builds
        assert sum(each.state == pb.VIEW_BUILD_STATE_LIVE for each in builds) == 1
        if len(builds) == 1:  # it was dropped
            await stays.rebuilt()
        elif builds[1].state == pb.VIEW_BUILD_STATE_LIVE:  # it was switched to
            await stays.ready(1)
            await stays.back()
        await stays.ready()
        await stays.switch()
        assert len(await stays.guests()) == EVENTS // 2 + 1


async def _is_ready(address: str) -> bool:
    found = await asked(address, "GetRebuild", pb.GetRebuildRequest(view="stays"))
    return bool(found.build.state == pb.VIEW_BUILD_STATE_READY)


async def test_a_build_goes_on_when_postgres_is_back(
    own_postgres: EmbeddedPostgres, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POSTGRES_URL", own_postgres.url)
    await grow(own_postgres.url, namespace, EVENTS)
    async with serving(monkeypatch) as stays:
        await stays.stub.RebuildView(pb.RebuildViewRequest(view="stays", share=10), timeout=PATIENCE)
        await until(lambda: _has_begun(database_url(own_postgres.url, named(namespace, SPEC.database))))
        await own_postgres.kill()
        await own_postgres.start()
        await stays.ready(2)
        same = await stays.compared()
        assert (same.compared, same.changed, same.missing, same.added) == (EVENTS // 2, 0, 0, 0)


async def _has_begun(url: str) -> bool:
    connection = await asyncpg.connect(url)
    try:
        return bool(
            await connection.fetchval("SELECT max(position) FROM checkpoints WHERE consumer LIKE '%@2%'")
        )
    finally:
        await connection.close()


async def test_a_build_of_a_version_that_is_declared_no_more_waits_or_is_dropped(
    stays: Stays, monkeypatch: pytest.MonkeyPatch
) -> None:
    await stays.write("ann")
    async with serving(monkeypatch, [STAYS, STAYS_2]) as newer:
        await newer.rebuilt(2)
    shown = (await stays.stub.GetRebuild(pb.GetRebuildRequest(view="stays", build=2), timeout=PATIENCE)).build
    assert shown.state == pb.VIEW_BUILD_STATE_ORPHANED
    with pytest.raises(grpc.aio.AioRpcError):
        await stays.switch(2)
    await stays.write("bob")
    async with serving(monkeypatch, [STAYS, STAYS_2]) as again:
        await again.ready(2)
        await again.switch(2, confirm_differences=True)
        assert await again.guests() == ["ANN", "BOB"]
        await again.back()
    await stays.drop(2)
    left = await stays.running.views.checkpoints()
    assert not [consumer for consumer in left if "@" in consumer]
    await stays.switch(await stays.rebuilt())
    assert await stays.guests() == ["ann", "bob"]
