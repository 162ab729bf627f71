"""A log that is restored to before something else than an append: a repair, an archive. Its repair brings all back."""

from __future__ import annotations

from pathlib import Path

from tests.audit.world import _keep, _put_back
from tests.files.test_archive import LATER
from tests.kernel.batches import grow
from tests.repair.site import Site, copied, wrong_with
from tests.twin.relaying import running
from tests.waiting import until
from twinlog.postgres.archiving import Rule, archive
from twinlog.postgres.identity import identify
from twinlog.service.relink import MENDED
from twinlog.testing.internals import Relay


async def copied_from_where_it_begins(site: Site) -> None:
    """As :func:`copied`, of a stream that may be trimmed."""
    relay, head = Relay(site.log, site.twin), await site.log.head()
    async with running(relay):
        await until(lambda: relay.position == head)


async def agree(site: Site) -> None:
    """Returns once log, chain and stream are found to be whole."""
    await copied_from_where_it_begins(site)
    assert not await wrong_with(site)
    _, said = await site.repair(database=await site.database())
    assert said.endswith("nothing to repair."), said


async def restored(site: Site) -> None:
    """Restores what was kept, and follows what is printed."""
    await _put_back(site.log.pool)
    code, said = await site.repair(database=await site.database())
    assert (code, "lost events" in said) == (MENDED, True), said
    await agree(site)


async def ids(site: Site) -> list[object]:
    return [event.event_id for event in await site.log.read(0, 1000)]


async def test_before_another_repair(site: Site) -> None:
    """What the log had instead comes back at other positions than the repair gave it, and is known again."""
    await identify(site.log.pool, site.log.name, "")
    await grow(site.log, 20)
    await copied(site)
    await site.cut(12)
    await grow(site.log, 3, "b")
    await grow(site.log, 2)
    await _keep(site.postgres_url, await site.database())
    assert (await site.repair())[0] == MENDED
    await copied(site)
    await site.consume((await grow(site.log, 5, "c"))[-1])
    await copied(site)
    before = await ids(site)
    await restored(site)
    assert await ids(site) == before


async def test_before_events_were_given_up(site: Site) -> None:
    """They were let go of while nobody had them, and a backup has them after all: they follow."""
    await identify(site.log.pool, site.log.name, "")
    events = await grow(site.log, 20)
    await copied(site)
    await site.consume(events[-1])
    await _keep(site.postgres_url, await site.database())
    await site.cut(12)
    await site.twin.delete()
    await copied(site)
    assert (await site.repair(give_up=True))[0] == MENDED
    await grow(site.log, 3, "b")
    await copied(site)
    before = await ids(site)
    await restored(site)
    found = await ids(site)
    assert found[: len(before)] == before
    assert {event.event_id for event in events} <= {*found}


async def test_before_an_archive_of_which_the_stream_was_trimmed(site: Site, tmp_path: Path) -> None:
    for stream in ("a", "b", "c"):
        await grow(site.log, 10, stream)
    own = await identify(site.log.pool, site.log.name, "")
    await copied(site)
    await _keep(site.postgres_url, await site.database())
    await archive(site.log, own, str(tmp_path), Rule(LATER, ["counter"], 10), lambda _line: None)
    await grow(site.log, 10, "d")
    await site.log.pool.execute("INSERT INTO trimmed_stream (position) VALUES (15)")
    await copied_from_where_it_begins(site)
    await site.damage.purge(keep=25)
    before = await ids(site)

    await site.cut(36)  # a failover that lost the last events, of a log with an archive
    await grow(site.log, 2, "e")
    assert (await site.repair())[0] == MENDED
    await agree(site)
    assert (await ids(site))[:40] == before

    await restored(site)
    assert (await ids(site))[:40] == before
    assert (await site.twin.state()).first == 1
