"""A view is built anew beside the old one, compared with it, switched to and back, and dropped."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest

from tests.rebuild.conftest import PATIENCE, Stays, in_use, serving
from tests.rebuild.program import POISON, STAYS, STAYS_2, Stay, main
from tests.waiting import until
from twinlog import Shutdown, Unavailable
from twinlog.log.declarations import StoredOtherwise
from twinlog.postgres import view_builds
from twinlog.v1 import view_service_pb2 as pb


async def reason(call: Any) -> str:
    """Why a call is refused."""
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call
    return str(refused.value.details())


async def test_a_build_is_filled_compared_switched_to_and_back_and_dropped(stays: Stays) -> None:
    await stays.write("ann", "bob", "ann again")
    assert await stays.rebuilt() == 2
    same = await stays.compared()
    assert (same.compared, same.changed, same.missing, same.added) == (2, 0, 0, 0)
    switched = await stays.switch()
    assert (switched.build.build, switched.build.state) == (2, pb.VIEW_BUILD_STATE_LIVE)
    await stays.write("cid")
    assert await stays.guests() == ["ann again", "bob", "cid"]
    assert (await stays.running.views.rows(STAYS, ["ann"]))["ann"].changes == 2
    assert (await stays.back()).build.build == 1
    await stays.write("dan")
    assert await stays.guests() == ["ann again", "bob", "cid", "dan"]
    await stays.drop(2)
    [view] = (await stays.stub.ListViews(pb.ListViewsRequest(), timeout=PATIENCE)).views
    assert [(each.build, each.state) for each in view.builds] == [(1, pb.VIEW_BUILD_STATE_LIVE)]
    assert await stays.rebuilt() == 3, "a number is never used again"


async def test_the_home_can_be_dropped_once_another_build_is_live(stays: Stays) -> None:
    await stays.write("ann")
    assert "is the live one" in await reason(stays.drop(1))
    await stays.switch(await stays.rebuilt())
    await stays.drop(1)
    await stays.write("bob")
    assert await stays.guests() == ["ann", "bob"]
    assert "there is nothing to switch back to" in await reason(stays.back())
    assert "was dropped" in await reason(stays.switch(1))
    await stays.switch(await stays.rebuilt())
    await stays.drop(2)
    assert await stays.guests() == ["ann", "bob"]


async def test_what_is_wrong_in_the_old_rows_is_shown_and_has_to_be_confirmed(stays: Stays) -> None:
    await stays.write("ann", "bob", "cid")
    await stays.running.service.log.pool.execute(  # type: ignore[attr-defined]
        "UPDATE stays SET guest = 'eve' WHERE stay_id = 'ann'; DELETE FROM stays WHERE stay_id = 'bob'; "
        "INSERT INTO stays VALUES ('zoe', 'zoe', 1)"
    )
    build = await stays.rebuilt()
    found = await stays.compared()
    assert (found.changed, found.missing, found.added) == (1, 1, 1)
    assert {each.key: each.difference for each in found.examples} == {
        "ann": "guest: eve → ann",
        "bob": "added",
        "zoe": "missing",
    }
    assert "1 rows changed, 1 rows missing, 1 rows added" in await reason(stays.switch())
    await stays.switch(build, confirm_differences=True)
    assert await stays.guests() == ["ann", "bob", "cid"]


async def test_columns_of_other_types_are_compared_by_what_they_say(stays: Stays) -> None:
    """As where the next version of a view has a number as a text, or a type that Postgres does not compare."""
    await stays.write("ann", "bob")
    build = await stays.rebuilt()
    log: Any = stays.running.service.log
    other = f'"stays@{build}".stays'
    for statement in (
        f"ALTER TABLE {other} ALTER changes TYPE text",
        "ALTER TABLE stays ADD note json DEFAULT '[1, 2]'",
        f"ALTER TABLE {other} ADD note json DEFAULT '[1, 2]'",
    ):
        await log.pool.execute(statement)
    for changes, changed in (("", 0), ("changes = '7'", 1), ("changes = '1', note = '[3]'", 1)):
        if changes:
            await log.pool.execute(f"UPDATE {other} SET {changes} WHERE stay_id = 'bob'")
        found = await stays.compared(build)
        assert (found.compared, found.changed, found.missing, found.added) == (2, changed, 0, 0)


async def test_a_changed_view_is_declared_beside_the_old_one_and_switched_to(
    stays: Stays, monkeypatch: pytest.MonkeyPatch
) -> None:
    await stays.write("ann", "bob")
    async with serving(monkeypatch, [STAYS, STAYS_2]) as newer:
        assert await newer.guests() == ["ann", "bob"]
        build = await newer.rebuilt()
        assert (await newer.ready(build)).version == 2
        found = await newer.compared()
        assert (found.changed, [*found.columns_added], [*found.columns_gone]) == (0, ["loud"], [])
        assert "columns added: loud" in await reason(newer.switch())
        await newer.switch(confirm_differences=True)
        await newer.write("cid")
        assert await newer.guests() == ["ANN", "BOB", "CID"]
        await newer.back()
        assert await newer.guests() == ["ann", "bob", "cid"]


async def test_a_replica_of_older_code_goes_on_with_the_version_that_it_declares(
    stays: Stays, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also one that starts then. Where that version is kept no more it is away, and says why; no table that was
    emptied is taken for a view without rows."""
    monkeypatch.setattr(view_builds, "KEPT_SECONDS", 0.0)
    await stays.write("ann")
    async with serving(monkeypatch, [STAYS, STAYS_2]) as newer:
        await newer.switch(await newer.rebuilt(2), confirm_differences=True)
        await stays.running.service.view_builds.look()
        position = await newer.write("bob")
        assert await newer.guests() == ["ANN", "BOB"]
        async with serving(monkeypatch) as late:
            for older in (stays, late):
                await older.running.reads.after(f"stays:{position}", PATIENCE)
                assert await older.guests() == ["ann", "bob"]
                assert await older.running.views.row(STAYS, "bob") == Stay("bob", "bob", 1)
                assert await older.running.views.at_once(lambda moment: moment.rows(STAYS, ["ann"]))
            await newer.drop(1)
            for older in (stays, late):
                for why in (
                    "was dropped|does not declare",
                    "in version 2, which this program does not declare",
                ):
                    for ask in (
                        older.guests(),
                        older.running.views.row(STAYS, "bob"),
                        older.running.views.at_once(lambda moment: moment.rows(STAYS, ["ann"])),
                    ):
                        with pytest.raises(Unavailable, match=why):
                            await ask
                    await older.running.service.view_builds.look()
        assert await newer.guests() == ["ANN", "BOB"]


async def test_a_table_that_is_changed_in_place_is_refused_at_the_next_start(
    stays: Stays, monkeypatch: pytest.MonkeyPatch
) -> None:
    await stays.write("ann")
    async with serving(monkeypatch):
        pass  # as it was, it starts again
    await stays.running.views.pool.execute("ALTER TABLE stays ADD COLUMN paid bigint NOT NULL DEFAULT 0")
    shutdown = Shutdown(asyncio.create_task(asyncio.sleep(0)))
    with pytest.raises(StoredOtherwise, match=r"'stays' was changed in place.* column paid is new"):
        async with asyncio.timeout(PATIENCE):
            await main(shutdown)


async def test_an_empty_system_begins_with_the_newest_version(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(monkeypatch, [STAYS, STAYS_2]) as stays:
        await stays.write("ann")
        [view] = (await stays.stub.ListViews(pb.ListViewsRequest(), timeout=PATIENCE)).views
        assert [(each.build, each.version) for each in view.builds] == [(1, 2)]
        await until(lambda: bool(stays.running.views.live.current))
        assert await stays.guests() == ["ANN"]


async def test_an_event_that_the_new_version_cannot_handle_is_parked_and_refuses_the_switch(
    stays: Stays, monkeypatch: pytest.MonkeyPatch
) -> None:
    await stays.write("ann", POISON, "bob")
    async with serving(monkeypatch, [STAYS, STAYS_2]) as newer:
        build = await newer.rebuilt()
        shown = await newer.ready(build)
        assert [each.dead_letters for each in shown.progress] == [1]
        assert "set events aside that the live one has not: stays/2" in await reason(
            newer.switch(confirm_differences=True)
        )
        await newer.switch(confirm_differences=True, confirm_dead_letters=True)
        assert await newer.guests() == ["ANN", "BOB"]


async def test_queries_and_watches_go_on_while_it_is_switched_under_writes(stays: Stays) -> None:
    """Each answer is at least as new as the one before, and nothing fails."""
    async with in_use(stays):
        for _ in range(2):
            build = await stays.rebuilt()
            await stays.switch(build)
            await stays.back()
            await stays.switch(build)
            if build > 2:
                await stays.drop(build - 1)
    assert not (await stays.compared(build)).changed


async def test_bad_input_is_answered_clearly(stays: Stays) -> None:
    await stays.write("ann")
    stub = stays.stub
    for call, expected in (
        (
            stub.RebuildView(pb.RebuildViewRequest(view="rooms")),
            "There is no view rooms here; the views are stays",
        ),
        (stub.RebuildView(pb.RebuildViewRequest(view="stays", version=9)), "is not declared in version 9"),
        (stub.RebuildView(pb.RebuildViewRequest(view="stays", share=101)), "must be 1 to 100 percent"),
        (stub.RebuildView(pb.RebuildViewRequest()), "view: is missing"),
        (stub.GetRebuild(pb.GetRebuildRequest(view="stays", build=7)), "has no build 7; its builds are 1"),
        (stub.DropViewBuild(pb.DropViewBuildRequest(view="stays")), "build: is missing"),
        (stays.switch(1), "is the live one"),
        (stays.back(), "there is nothing to switch back to"),
    ):
        assert expected in await reason(call)
    dry = await stub.RebuildView(pb.RebuildViewRequest(view="stays", dry_run=True))
    assert (dry.build.build, dry.build.version) == (0, 1)
    build = await stays.rebuilt()
    assert f"Build {build} of view stays was begun" in await reason(
        stub.RebuildView(pb.RebuildViewRequest(view="stays"))
    )
    await stays.switch(dry_run=True)
    [view] = (await stub.ListViews(pb.ListViewsRequest())).views
    assert [each.state for each in view.builds] == [pb.VIEW_BUILD_STATE_LIVE, pb.VIEW_BUILD_STATE_READY]
