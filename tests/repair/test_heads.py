"""Table log_head and the rows of events, changed by hand: no append goes astray, and what is printed mends it."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import pytest

from tests.kernel.batches import grow
from tests.kernel.counter import COUNTER, Add
from tests.repair.copying import service
from tests.repair.site import Site, wrong_with
from tests.twin.relaying import mirrored
from tests.waiting import until
from twinlog import Writer
from twinlog.log.twin import LogForked
from twinlog.postgres.repair import place_head
from twinlog.service.relink import LEFT, MENDED


class Damage(NamedTuple):
    """Something that is done to a log of 12 events, all of them in its stream."""

    name: str
    statement: str
    """With $1: the last position."""
    appendable: bool = False
    """Whether appends go on: what is gone concerns neither the end of the log nor their streams."""
    lost: bool = False
    """Whether the stream loses its last events, too."""


_LINK = "(links, hash) = (SELECT number, hash FROM chain ORDER BY number DESC OFFSET 3 LIMIT 1)"
DAMAGES = (
    Damage("set back", "UPDATE log_head SET position = $1 - 3"),
    Damage("set back to nothing", "UPDATE log_head SET position = 0 * $1::bigint"),
    Damage("set ahead", "UPDATE log_head SET position = $1 + 3"),
    Damage("gone", "DELETE FROM log_head WHERE $1 > 0"),
    Damage("restored from before", f"UPDATE log_head SET position = $1 - 3, linked = $1 - 3, {_LINK}"),
    Damage("its links restored from before", f"UPDATE log_head SET linked = $1 * 1, {_LINK}"),
    Damage("the last events are gone", "DELETE FROM events WHERE position > $1 - 3"),
    Damage("events in the middle are gone", "DELETE FROM events WHERE position IN ($1 - 9, $1 - 8)", True),
    Damage("the only copies are gone", "DELETE FROM events WHERE position > $1 - 3", lost=True),
)


async def add(writer: Writer, id: str = "w") -> None:
    await writer.execute(lambda tx: tx.do(COUNTER, id, Add(1)).value)


async def begun(site: Site) -> int:
    async with service(site.log, site.twin) as (writer, _, _):
        await grow(site.log, 6, f"old-{await site.log.head()}")
        for _ in range(6):
            await add(writer)
        await mirrored(site.log, site.twin)
    return await site.log.head()


async def damaged(site: Site, damage: Damage, last: int) -> None:
    if damage.lost:
        await site.twin.delete()
    async with site.log.pool.acquire() as connection, connection.transaction():
        await connection.execute("SET LOCAL session_replication_role = replica")
        await connection.execute(damage.statement, last)


async def refused(writer: Writer) -> str:
    try:
        await add(writer)
    except LogForked as error:
        return str(error)
    except Exception as error:
        return f"another error: {type(error).__name__} {error}"
    return "appended"


async def followed(site: Site, damage: Damage, restarted: bool) -> list[str]:
    """What is wrong with what is told, and after the printed way out."""
    last, ask = await begun(site), partial(site.repair, database=await site.database())
    wrong: list[str] = []
    if restarted:
        await damaged(site, damage, last)
    async with service(site.log, site.twin) as (writer, _, lineage):
        if not restarted:
            await add(writer)
            last += 1
            await mirrored(site.log, site.twin)
            await damaged(site, damage, last)
        if not damage.appendable:
            said = await refused(writer)
            told = (
                f"`twinlog repair {site.log.name} "  # with its database, which may not be found by its stream
            )
            if told not in said:
                wrong.append(f"an append: {said}")
            await until(lambda: told in str(lineage.problem))
            await site.log.seal(100)
        before = await state(site)
        if damage.lost:
            code, said = await ask()
            if code != LEFT or "neither" not in said:
                wrong.append(f"what is lost: {code} {said}")
        code, said = await ask(dry_run=True, give_up=damage.lost)
        if code != MENDED or not said.endswith("this was a dry run.") or await state(site) != before:
            wrong.append(f"a dry run: {code} {said}")
        code, said = await ask(give_up=damage.lost)
        if code != MENDED:
            wrong.append(f"a repair: {code} {said}")
        await until(lambda: lineage.problem is None)
        await add(writer)
        await mirrored(site.log, site.twin)
    if not (said := (await ask())[1]).endswith("nothing to repair."):
        wrong.append(f"afterwards: {said}")
    return wrong + await wrong_with(site)


async def test_a_wrong_head_is_told_without_any_command(site: Site) -> None:
    last = await begun(site)
    async with service(site.log, site.twin) as (_, relay, lineage):
        for damage in DAMAGES[:6]:
            await until(lambda: relay.problem is None and lineage.problem is None)
            await damaged(site, damage, last)
            way_out = f"`twinlog repair {site.log.name} "
            await until(lambda: way_out in str(relay.problem) and way_out in str(lineage.problem))  # noqa: B023
            await place_head(site.log.pool)


async def test_events_that_are_gone_from_log_and_stream_are_told_and_left(site: Site) -> None:
    last = await begun(site)
    await site.twin.delete()
    async with site.log.pool.acquire() as connection:
        await connection.execute("CREATE TABLE aside AS SELECT * FROM events WHERE position IN (3, 4)")
    await damaged(site, Damage("", "DELETE FROM events WHERE position IN (3, 4) AND $1 > 0"), last)
    ask = partial(site.repair, database=await site.database())
    async with service(site.log, site.twin) as (_, relay, _):
        await until(lambda: f"`twinlog repair {site.log.name} --dry-run`" in str(relay.problem))
        for give_up in (False, True):
            code, said = await ask(give_up=give_up)
            assert (code, "has no events 3 to 4" in said) == (LEFT, True), said
        async with site.log.pool.acquire() as connection:
            await connection.execute("INSERT INTO events SELECT * FROM aside")
        await until(lambda: relay.problem is None)
        await mirrored(site.log, site.twin)
    assert await wrong_with(site) == []


async def state(site: Site) -> object:
    async with site.log.pool.acquire() as connection:
        return await connection.fetch("SELECT position, linked, links FROM log_head"), await site.log.last()


@pytest.mark.parametrize("restarted", [False, True])
async def test_what_is_printed_mends_a_log_that_was_changed_by_hand(site: Site, restarted: bool) -> None:
    found = {damage.name: await followed(site, damage, restarted) for damage in DAMAGES}
    assert found == {damage.name: [] for damage in DAMAGES}
