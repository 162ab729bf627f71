"""Every way out that is printed, followed to the letter on real servers: afterwards log, stream and consumers agree."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest
from nats.js.api import DiscardPolicy

from tests.files.test_archive import LATER
from tests.kernel.batches import METADATA, append, batch, counter, grow
from tests.repair.site import Site, copied, wrong_with
from tests.twin.relaying import mirrored, running
from tests.waiting import until
from twinlog import Recorded
from twinlog.log.repair import GivenUp, Unrepairable
from twinlog.postgres import repair as postgres
from twinlog.postgres.archiving import Rule, archive
from twinlog.postgres.identity import NotThatLog, identify
from twinlog.service.relink import LEFT, MENDED, NOTHING
from twinlog.service.repair import Options, repair
from twinlog.testing.internals import (
    Batch,
    JetStreamTwin,
    NatsClient,
    Pool,
    RandomIds,
    Relay,
    open_log,
)


async def test_a_sound_log_is_left_alone(site: Site) -> None:
    await grow(site.log, 20)
    await copied(site)
    assert await site.repair(dry_run=True) == (NOTHING, (await site.repair())[1])
    assert "nothing to repair" in (await site.repair())[1]
    assert await site.log.era() == 0


async def test_a_consumer_that_goes_on_while_it_is_looked_at_is_not_beyond_its_log(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a log that is sound and busy; set back, it would do again what it has done."""
    await grow(site.log, 3)
    await copied(site)
    original, moved = postgres.followers, 0

    async def busy(pool: Pool, log: str) -> Sequence[postgres.FollowerState]:
        nonlocal moved
        newest = (await grow(site.log, 2))[-1]
        await copied(site)
        await site.consume(newest)
        moved += 1
        return await original(pool, log)

    monkeypatch.setattr(postgres, "followers", busy)
    code, said = await site.repair(give_up=True)
    assert moved
    assert (code, said.endswith("nothing to repair.")) == (NOTHING, True), said


@pytest.mark.parametrize("own", [0, 3, 30])
async def test_a_stream_ahead(site: Site, own: int) -> None:
    events = await grow(site.log, 20)
    await copied(site)
    await site.consume(events[-1])
    await site.cut(12)
    if own:
        await grow(site.log, own, "b")
    relay = Relay(site.log, site.twin)
    async with running(relay):
        await until(lambda: relay.problem is not None)
        assert f"`twinlog repair {site.log.name}` puts it back" in str(relay.problem)
        code, said = await site.repair(dry_run=True)
        assert (code, "lost events" in said) == (MENDED, True)
        assert await site.log.head() == 12 + own
        code, said = await site.repair()
        assert code == MENDED
        await until(lambda: relay.problem is None)
        await mirrored(site.log, site.twin)
    ids = [event.event_id for event in await site.log.read(0, 100)]
    assert ids[:20] == [event.event_id for event in events]
    assert len(ids) == 20 + own
    assert (await site.repair())[1].endswith("nothing to repair.")


async def ahead_with_holes(site: Site, holes: Iterable[int], own: int) -> Sequence[Recorded]:
    """The log loses what it has after event 12 of 20, and begins so many ``own`` events; the stream loses ``holes``."""
    events = await grow(site.log, 20)
    await copied(site)
    for hole in holes:
        await site.damage.remove(hole)
    await site.cut(12)
    await grow(site.log, own, "b")
    return events


@pytest.mark.parametrize("own", [0, 3])
async def test_a_stream_ahead_that_lacks_messages_before(site: Site, own: int) -> None:
    """Nobody delivers it as it is, and it has the only copy of what the log lost."""
    events = await ahead_with_holes(site, (3, 4, 9), own)
    relay = Relay(site.log, site.twin)
    async with running(relay):
        await until(lambda: relay.problem is not None)
        assert f"`twinlog repair {site.log.name}` puts it back" in str(relay.problem)
        code, said = await site.repair()
        assert (code, f"lost events {site.log.name}/13 to 20" in said) == (MENDED, True), said
        await until(lambda: relay.problem is None)
        await mirrored(site.log, site.twin)
    ids = [event.event_id for event in await site.log.read(0, 100)]
    assert (ids[:20], len(ids)) == ([event.event_id for event in events], 20 + own)
    assert (await site.repair())[1].endswith("nothing to repair.")


@pytest.mark.parametrize("holes", [[20], [13], [12], [15, 16]])
@pytest.mark.parametrize("own", [0, 2])
async def test_a_stream_ahead_that_lacks_some_of_what_the_log_lost(
    site: Site, own: int, holes: list[int]
) -> None:
    """It is left as it is until somebody lets go of what is in neither: the rest is nowhere else."""
    await ahead_with_holes(site, holes, own)
    relay = Relay(site.log, site.twin)
    async with running(relay):
        await until(lambda: relay.problem is not None)
        assert f"`twinlog repair {site.log.name} --dry-run` says what was lost" in str(relay.problem)
        code, said = await site.repair()
        first = min(13, *holes)
        some = f"it has {21 - first - len(holes)} of {first} to 20"
        assert (code, some in said) == (LEFT, True), said
        assert (await site.twin.state()).last == 20
        code, said = await site.repair(give_up=True)
        assert (code, f"Given up: events {first} to 20." in said) == (MENDED, True), said
        await until(lambda: relay.problem is None)
        await mirrored(site.log, site.twin)
    assert not await wrong_with(site)
    assert (await site.repair())[1].endswith("nothing to repair.")


async def test_another_log_of_the_same_name_is_named(site: Site) -> None:
    """Two services whose log has one name began at once, in two databases: neither is refused at its start."""
    for log in (site.log, site.other):
        await identify(log.pool, "shared", "", site.log.name)
    await grow(site.log, 3)
    await copied(site)
    own, other = [str(await log.pool.fetchval("SELECT current_database()")) for log in (site.log, site.other)]
    for asked, names in (("", other), (own, other), (other, own)):
        _, said = await site.repair(dry_run=True, database=asked)
        assert said.startswith(
            f"Database {names} holds another log {site.log.name} of this installation, too"
        )


async def test_a_dry_run_brings_no_tables_up_to_date_and_says_where_that_is_needed(site: Site) -> None:
    await grow(site.log, 9)
    await copied(site)
    await site.cut(5)
    other = str(await site.other.pool.fetchval("SELECT current_database()"))
    lacks = "the tables of database {} lack function move_checkpoint, which a repair applies first"
    forget = "DELETE FROM schema_functions WHERE name = 'move_checkpoint'"
    is_there = "SELECT EXISTS (SELECT FROM schema_functions WHERE name = 'move_checkpoint')"
    await site.other.pool.execute(forget)
    code, said = await site.repair(dry_run=True)
    assert (code, lacks.format(other) in said) == (MENDED, True)
    assert "lost events" in said
    await site.log.pool.execute(forget)
    own = await site.database()
    for database in ("", own):
        with pytest.raises(Unrepairable, match=lacks.format(own)):
            await site.repair(dry_run=True, database=database)
    assert [await log.pool.fetchval(is_there) for log in (site.log, site.other)] == [False, False]
    code, _ = await site.repair()
    assert code == MENDED
    assert [await log.pool.fetchval(is_there) for log in (site.log, site.other)] == [True, True]


async def test_all_that_was_lost_is_listed_where_it_is_asked_for_and_erasures_are_named(site: Site) -> None:
    await grow(site.log, 30)
    await copied(site)
    await site.cut(5)
    asked = Options(site.log.name, site.postgres_url, site.nats_url, dry_run=True)

    async def says(of: Options) -> list[str]:
        said: list[str] = []
        assert await repair(of, said.append) == MENDED
        return said

    few = await says(asked._replace(keys="not_there"))
    assert "  and 5 more, which --all lists" in few
    assert not [line for line in few if "erased" in line]
    every = await says(asked._replace(all=True, keys=await site.database()))
    assert not [line for line in every if " more" in line]
    assert sum(line.startswith(f"  {site.log.name}/") for line in every) == 25
    assert [line for line in every if line.endswith("UTC have their keys again: erase them again.")]


async def test_a_stream_that_was_trimmed_beyond_what_a_restored_log_has(site: Site) -> None:
    events = await grow(site.log, 20)
    await copied(site)
    await site.consume(events[-1])
    await site.damage.purge(keep=5)
    await site.cut(12)
    database = await site.database()
    code, said = await site.repair(database=database)
    assert (code, "lost its events from 13 on" in said, "it has 5 of 13 to 20" in said) == (LEFT, True, True)
    code, said = await site.repair(give_up=True, database=database)
    assert (code, "It goes back to 12;" in said) == (MENDED, True), said
    await copied(site)
    assert (await site.repair())[1].endswith("nothing to repair.")


def files_removed(folder: Path) -> int:
    files = [path for path in folder.rglob("*") if path.is_file()]
    for path in files:
        path.unlink()
    return len(files)


async def test_the_archive_of_a_neighbor_that_is_gone_hinders_nothing(site: Site, tmp_path: Path) -> None:
    await grow(site.other, 20, "ended")
    own = await identify(site.other.pool, "other", "")
    rule = Rule(LATER, ["counter"], 10)
    await archive(site.other, own, str(tmp_path), rule, lambda _line: None)
    assert files_removed(tmp_path)
    await grow(site.log, 20)
    await copied(site)
    await site.cut(12)
    code, said = await site.repair()
    assert (code, "because of them is not known. Events 1 to 10 of" in said) == (MENDED, True), said
    assert await site.log.last() == 20


@pytest.mark.parametrize("lost", [0, 3])
async def test_a_stream_with_a_message_of_somebody_else(site: Site, lost: int) -> None:
    events = await grow(site.log, 20)
    await copied(site)
    await site.damage.put("7.Other.-", b"someone else's")
    if lost:
        await site.cut(20 - lost)
    await grow(site.log, 5, "b")
    relay = Relay(site.log, site.twin)
    async with running(relay):
        await until(lambda: relay.problem is not None)
        assert f"`twinlog repair {site.log.name}`" in str(relay.problem)
        assert (await site.repair())[0] == MENDED
        await mirrored(site.log, site.twin)
        await until(lambda: relay.problem is None)
    assert [e.event_id for e in (await site.log.read(0, 20))] == [e.event_id for e in events]
    assert await site.log.head() == 25


async def test_a_stream_with_messages_of_somebody_else_between_its_events(site: Site) -> None:
    """Its last message is an event, so its end shows nothing of them."""
    relay = Relay(site.log, site.twin)
    await grow(site.log, 20)
    async with running(relay):
        await mirrored(site.log, site.twin)
        events = await grow(site.log, 5, "b")
        await site.damage.put("7.Other.-", b"someone else's")
        relay.offer(events)
        await until(lambda: f"`twinlog repair {site.log.name}`" in str(relay.problem))
        assert (await site.repair())[0] == MENDED
        await mirrored(site.log, site.twin)
        await until(lambda: relay.problem is None)
    assert await site.log.head() == 25


async def test_a_stream_that_was_deleted_although_it_held_the_only_copy(site: Site) -> None:
    events = await grow(site.log, 20)
    await copied(site)
    await site.consume(events[-1])
    await site.cut(12)
    await site.twin.delete()
    await copied(site)
    code, said = await site.repair()
    assert (code, "has handled event 20" in said) == (LEFT, True)
    assert (await site.repair(give_up=True, dry_run=True))[0] == MENDED
    assert await site.other.checkpoint(f"other.{site.log.name}") == 20
    assert (await site.repair(give_up=True))[0] == MENDED
    assert await site.other.checkpoint(f"other.{site.log.name}") <= 12
    # Release 0.1 would move on from there, and leave what it finds noted of an event that is gone.
    assert await site.other.last_handled(f"other.{site.log.name}") is None
    assert [span for span, _ in await site.log.given_up()] == [GivenUp(13, 20)]
    assert (await site.log.head(), await wrong_with(site)) == (20, [])
    await copied(site)
    assert "nothing to repair" in (await site.repair())[1]


async def test_consumers_go_back_to_what_was_there_before_what_is_gone(site: Site) -> None:
    """The log has other events in its place, and no consumer stands at one that both had."""
    start, ids = batch().recorded_at, RandomIds()

    async def add(name: str, count: int, minutes: int) -> None:
        write = batch((counter(name), 0, count))
        at = start + timedelta(minutes=minutes)
        events = [e._replace(event_id=id_at(at, ids)) for e in write.events]
        await append(site.log, replace(write, events=events, recorded_at=at))

    await add("a", 12, 0)
    await add("b", 8, 1)
    await copied(site)
    await site.consume((await site.log.read(19, 1))[0])
    await site.cut(12)
    await site.twin.delete()
    await add("c", 5, 2)
    await copied(site)
    code, said = await site.repair(give_up=True)
    assert (code, "It goes back to 12;" in said) == (MENDED, True), said
    assert [span for span, _ in await site.log.given_up()] == [GivenUp(13, 20)]
    assert (await site.log.head(), await wrong_with(site)) == (20, [])
    await copied(site)
    assert "nothing to repair" in (await site.repair())[1]


def id_at(at: datetime, ids: RandomIds) -> UUID:
    """An id that was made at a time."""
    return UUID(int=int(at.timestamp() * 1_000) << 80 | ids.uuid7().int & (1 << 80) - 1)


async def test_a_database_that_was_made_anew_is_known_by_the_name_of_its_log(site: Site) -> None:
    events = await grow(site.log, 20)
    await copied(site)
    await site.cut(0)
    with pytest.raises(Unrepairable, match="its database is not known"):
        await site.repair()
    await site.log.pool.execute(
        "INSERT INTO log_identity (installation, log) VALUES ('shop', $1)", site.log.name
    )
    assert (await site.repair(dry_run=True))[0] == MENDED
    code, said = await site.repair()
    assert (code, f"lost events {site.log.name}/1 to 20" in said) == (MENDED, True), said
    assert [event.event_id for event in await site.log.read(0, 100)] == [event.event_id for event in events]
    await copied(site)
    assert "nothing to repair" in (await site.repair())[1]


async def test_a_log_of_another_name_is_left_alone(site: Site) -> None:
    await grow(site.log, 20)
    await copied(site)
    await site.log.pool.execute(
        "INSERT INTO log_identity (installation, log) VALUES ('shop', $1)", site.log.name
    )
    database = await site.log.pool.fetchval("SELECT current_database()")
    asked = Options("odrers", site.postgres_url, site.nats_url)
    with pytest.raises(Unrepairable, match=rf"{database} \(log {site.log.name}\)"):
        await repair(asked, print)
    with pytest.raises(NotThatLog, match=f"holds log {site.log.name}, not odrers"):
        await repair(asked._replace(database=database), print)
    assert "nothing to repair" in (await site.repair(database=database))[1]


async def test_a_database_that_was_restored_beside_the_broken_one_has_to_be_named(site: Site) -> None:
    """The broken one agrees with the stream, and only it says its name."""
    write = batch((counter("a"), 0, 20))
    await append(site.log, write)
    await append(site.other, replace(write, events=write.events[:12]))
    await copied(site)
    await site.log.pool.execute(
        "INSERT INTO log_identity (installation, log) VALUES ('shop', $1)", site.log.name
    )
    with pytest.raises(Unrepairable, match="say which it is with --database"):
        await site.repair(dry_run=True)
    restored = str(await site.other.pool.fetchval("SELECT current_database()"))
    code, said = await site.repair(dry_run=True, database=restored)
    assert (code, f"lost events {site.log.name}/13 to 20" in said) == (MENDED, True), said


async def test_a_trimmed_stream_does_not_bring_back_what_it_has_lost(site: Site) -> None:
    await grow(site.log, 20)
    await copied(site)
    await site.cut(12)
    await site.damage.purge(keep=5)
    site_options = Options(site.log.name, site.postgres_url, site.nats_url)
    with pytest.raises(Unrepairable, match="its database is not known"):
        await repair(site_options, print)
    database = await site.log.pool.fetchval("SELECT current_database()")
    said: list[str] = []
    asked = site_options._replace(database=database)
    assert await repair(asked, said.append) == LEFT
    assert "the stream has lost some too" in said[0]
    assert await repair(asked._replace(give_up=True), said.append) == MENDED
    await copied(site)
    assert await site.log.head() == 12


async def test_a_stream_of_another_log(site: Site) -> None:
    await grow(site.log, 20)
    await copied(site)
    database = await site.other.pool.fetchval("SELECT current_database()")
    await grow(site.other, 30, "b")
    asked = Options(site.log.name, site.postgres_url, site.nats_url, database)
    with pytest.raises(Unrepairable, match="nothing in common"):
        await repair(asked, print)
    await site.twin.delete()  # nobody needs it, so it is deleted, and made anew
    async with open_log(site.postgres_url, database, site.log.name) as own, running(Relay(own, site.twin)):
        await mirrored(own, site.twin)


async def test_a_stream_at_its_limit_is_waited_for_visibly(site: Site, nats: NatsClient) -> None:
    await grow(site.log, 5)
    await copied(site)
    twin = Counted(site.twin)
    relay = Relay(site.log, twin)  # type: ignore[arg-type]
    async with running(relay):
        relay.offer(await grow(site.log, 2))
        await mirrored(site.log, site.twin)
        config = (await nats.jsm().stream_info(site.log.name)).config
        config.max_msgs, config.discard = 7, DiscardPolicy.NEW
        await nats.jsm().update_stream(config)
        await grow(site.log, 40)
        await until(lambda: "maximum messages" in str(relay.problem))
        assert f"`nats stream edit {site.log.name} --max-msgs=-1 " in str(relay.problem)
        tried = twin.tried
        await until(lambda: twin.tried >= tried + 3)
        await until(
            lambda: twin.longest_pause > 0.2
        )  # pauses grow; in a loop without them none would be as long
        config.max_msgs, config.max_msg_size = -1, 10
        await nats.jsm().update_stream(config)
        await until(lambda: "message size" in str(relay.problem))
        assert "--max-msg-size=-1 " in str(relay.problem)
        config.max_msg_size = -1
        await nats.jsm().update_stream(config)
        await mirrored(site.log, site.twin)
        await until(lambda: relay.problem is None)


async def test_a_sealed_stream_is_named_and_made_again_as_told(site: Site, nats: NatsClient) -> None:
    await grow(site.log, 5)
    await copied(site)
    config = (await nats.jsm().stream_info(site.log.name)).config
    config.sealed = True
    await nats.jsm().update_stream(config)
    relay = Relay(site.log, site.twin)
    async with running(relay):
        await grow(site.log, 3)
        relay.offer([])  # has it look at the log
        await until(lambda: "it is sealed" in str(relay.problem))
        assert f"nats stream rm {site.log.name}" in str(relay.problem)
        assert (await site.repair())[0] == NOTHING
        await site.twin.delete()
        await mirrored(site.log, site.twin)
        await until(lambda: relay.problem is None)


class Counted:
    """A twin that notes how often it is published to."""

    def __init__(self, twin: JetStreamTwin) -> None:
        self._twin = twin
        self._last = 0.0
        self.tried = 0
        self.longest_pause = 0.0

    def __getattr__(self, name: str) -> object:
        return getattr(self._twin, name)

    async def publish(self, events: list[Recorded]) -> None:
        now = asyncio.get_running_loop().time()
        self.longest_pause = max(self.longest_pause, now - self._last if self._last else 0.0)
        self.tried, self._last = self.tried + 1, now
        await self._twin.publish(events)


def tenants(write: Batch) -> Batch:
    """The batch, with events of a tenant."""
    told = METADATA._replace(extra={"tenant": "a"})
    return replace(write, events=[event._replace(metadata=told) for event in write.events])


async def test_events_come_back_with_all_that_was_said_of_them(site: Site) -> None:
    await append(site.log, tenants(batch((counter("a"), 0, 3))))
    before = await site.log.read(0, 3)
    await copied(site)
    await site.cut(1)
    await append(site.log, tenants(batch((counter("b"), 0, 1))))
    moved = (await site.log.read(1, 1))[0]
    assert (await site.repair())[0] == MENDED
    assert await site.log.read(0, 9) == [*before, moved._replace(position=4)]
    async with site.log.pool.acquire() as connection:
        rows = await connection.fetch("SELECT DISTINCT metadata ? 'extra', extra ->> 'tenant' FROM events")
    assert [tuple(row) for row in rows] == [(False, "a")]


async def set_aside(site: Site) -> None:
    """Three dead letters of a projection."""
    notes = batch((counter("views.orders"), 0, 3))
    by_itself = METADATA._replace(actor="views.orders")
    await append(
        site.log, replace(notes, events=[note._replace(metadata=by_itself) for note in notes.events])
    )


async def test_notes_of_dead_letters_are_listed_and_made_again(site: Site) -> None:
    await set_aside(site)
    await copied(site)
    await site.cut(1)
    code, said = await site.repair(dry_run=True)
    assert code == MENDED
    assert "lost these notes of dead letters; they are made again" in said
    assert f"{site.log.name}/2 " in said
    assert said.endswith("Nothing was changed: this was a dry run.")
    assert (await site.repair())[0] == MENDED
    await copied(site)
    assert await site.log.head() == 1


async def test_what_is_gone_beside_notes_of_dead_letters_is_given_up_only_where_that_is_asked_for(
    site: Site,
) -> None:
    await grow(site.log, 5)
    await set_aside(site)
    await copied(site)
    await site.damage.remove(5)
    await site.cut(4)
    code, said = await site.repair()
    assert (code, "it has 3 of 5 to 8 (1 of its messages are gone)" in said) == (LEFT, True), said
    assert (await site.twin.state()).last == 8
    code, said = await site.repair(give_up=True)
    assert (code, "Given up: events 5 to 8." in said) == (MENDED, True), said
    await copied(site)
    assert (await site.repair())[1].endswith("nothing to repair.")


async def test_a_stream_without_its_last_messages_does_not_prove_that_its_log_has_them(site: Site) -> None:
    await grow(site.log, 5)
    await copied(site)
    await site.damage.remove(5)
    assert "Its log has all of its events." in (await site.repair(dry_run=True))[1]
    await site.cut(4)
    said = (await site.repair(dry_run=True))[1]
    assert "1 of its messages are gone." in said
    assert "Its log has all of its events." not in said
