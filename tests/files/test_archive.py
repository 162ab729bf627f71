"""A log whose old events are in files: whoever reads finds them there, and nothing else changes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import fsspec
import pytest

from tests import servers
from tests.chain.history import rewrite_chain, tamper, verified
from tests.kernel.batches import NOW, append, batch, counter, grow
from tests.kernel.counter import COUNTER, Add
from twinlog import Metadata, Recorded, Schema, Writer
from twinlog.cli import main
from twinlog.log.archive import ArchiveUnavailable
from twinlog.log.chain import Head
from twinlog.log.past import Moment
from twinlog.log.ports import ReadRequest, Snapshot, StreamSlice, TimerChange
from twinlog.model.errors import StreamUnreadable
from twinlog.postgres import archiving
from twinlog.postgres.archiving import ArchiveBusy, Archived, ArchiveDiffers, Rule, archive
from twinlog.postgres.identity import NotThatLog, identify
from twinlog.postgres.log import PostgresLog
from twinlog.service.archive import ArchiveOptions, archive_log
from twinlog.testing.internals import RandomIds, SystemClock, open_log

URL = "memory://archive"
LATER = datetime(2100, 1, 1, tzinfo=UTC)
"""Everything is older."""


@dataclass
class Site:
    """A log, and what it held before anything was archived."""

    log: PostgresLog
    before: list[Recorded] = field(default_factory=list)

    async def archive(
        self, *ends: str, range: int = 10, before: datetime = LATER, url: str = URL
    ) -> Archived:
        own = await identify(self.log.pool, "mine", "")
        self.before = self.before or list(await self.log.read(0, 10_000))
        return await archive(self.log, own, url, Rule(before, ends, range), lambda _line: None)

    async def left(self) -> list[int]:
        """The positions that the table has still."""
        rows = await self.log.pool.fetch("SELECT position FROM events ORDER BY position")
        return [row[0] for row in rows]

    async def load(self, id: str, **how: Any) -> StreamSlice:
        return (await self.log.load([ReadRequest(counter(id), **how)]))[0]

    def of(self, id: str) -> list[Recorded]:
        return [event for event in self.before if event.stream == counter(id)]


@pytest.fixture
async def site(postgres_url: str, database: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Site]:
    monkeypatch.setattr(archiving, "_FRAME_BYTES", 1_000)  # three events
    monkeypatch.setattr(archiving, "_STEP", 7)
    async with open_log(postgres_url, database, "counters") as log:
        yield Site(log)
    store = fsspec.filesystem("memory")
    if store.exists("/archive"):
        store.rm("/archive", recursive=True)


async def two_streams(site: Site) -> None:
    """25 events: ``a`` and ``b`` take turns, five at a time."""
    for id in "ababa":
        await grow(site.log, 5, id)


async def test_all_is_read_as_before(site: Site) -> None:
    await two_streams(site)
    assert await site.archive("counter") == Archived(2, 20, 20, site_bytes(), 20)
    assert await site.left() == [21, 22, 23, 24, 25]

    assert await site.log.read(0, 10_000) == site.before
    for after in range(26):
        for limit in (1, 4, 11, 30):
            assert await site.log.read(after, limit) == site.before[after : after + limit]
    for id in "ab":
        assert (await site.load(id)).events == site.of(id)
        assert (await site.load(id, after=3, upto=7)).events == site.of(id)[3:7]
        assert (await site.load(id, after=9)).events == site.of(id)[9:]
    assert await site.log.load([ReadRequest(counter(id)) for id in "bca"]) == [
        StreamSlice(None, site.of(id)) for id in "bca"
    ]
    async with site.log.exclusive() as session:
        assert (await session.load([ReadRequest(counter("b"))]))[0].events == site.of("b")


def site_bytes() -> int:
    store = fsspec.filesystem("memory")
    return sum(store.size(path) for path in store.find("/archive"))


async def test_what_was_proved_stays_proved(site: Site) -> None:
    """The chain goes over events that are in files as over all others."""
    await two_streams(site)
    newest = await site.log.newest_link()
    assert newest
    await site.archive("counter")
    first, found = await verified(site.log, None, Head.of("counters", newest))
    assert (first, list(found.kept)) == (None, [])


async def test_a_file_that_was_forged_with_its_digests_and_its_chain_is_found_by_a_noted_head(
    site: Site,
) -> None:
    await two_streams(site)
    links = await site.log.links(0, 100)
    early, late = Head.of("counters", links[1]), Head.of("counters", links[-1])
    await site.log.pool.execute("CREATE TABLE kept AS TABLE events")
    await site.archive("counter")
    store = fsspec.filesystem("memory")
    store.rm("/archive", recursive=True)  # what is written in its place has all digests right
    await tamper(
        site.log,
        *(f"DELETE FROM {table}" for table in ("archived_ranges", "archived_streams", "events")),
        "INSERT INTO events TABLE kept",
        "UPDATE events SET payload = '\\x0801' WHERE position = 12",
    )
    site.log.archive = PostgresLog(site.log.pool, "counters").archive
    await site.archive("counter")
    assert await site.left() == [21, 22, 23, 24, 25]
    assert (await verified(site.log))[0] == 12

    await rewrite_chain(site.log)
    found = [(await verified(site.log, None, *heads))[0] for heads in ((), (early,), (early, late))]
    assert found == [None, None, 11]


async def test_an_archived_stream_goes_on(site: Site) -> None:
    await two_streams(site)
    await site.archive("counter")
    async with Writer(site.log, schema=Schema(), clock=SystemClock(), ids=RandomIds()) as writer:
        await writer.execute(lambda tx: tx.do(COUNTER, "b", Add(1)))
        await writer.execute(lambda tx: tx.do(COUNTER, "b", Add(1)), assume_empty=[(COUNTER, "b")])
    assert [event.version for event in (await site.load("b")).events] == list(range(1, 13))
    with pytest.raises(AssertionError):
        await append(site.log, batch((counter("b"), 0, 1)))  # as a program that knows nothing of the archive


async def test_what_lives_stays(site: Site) -> None:
    await two_streams(site)
    assert (await site.archive()).removed == 0, "nobody said that counters end"
    await append(site.log, batch(reads={counter("b"): 10}, timers=[TimerChange(counter("b"), 10, NOW)]))
    assert (await site.archive("counter")).removed == 10, "b waits for its timer"
    await append(site.log, batch(reads={counter("b"): 10}, timers=[TimerChange(counter("b"), 10, None)]))
    assert (await site.archive("counter")).removed == 10
    assert await site.log.read(0, 10_000) == site.before


async def test_what_a_snapshot_covers_leaves_the_table(site: Site) -> None:
    await two_streams(site)
    await site.log.save([Snapshot(counter("b"), 7, 17, "schema", b"state")])
    assert (await site.archive()).removed == 7, "of b, what the snapshot stands for"
    slice = await site.load("b", schema="schema")
    assert slice.snapshot and slice.events == site.of("b")[7:]
    assert (await site.load("b", schema="newer")).events == site.of("b")


async def test_the_snapshot_of_a_stream_that_is_all_archived_is_read(site: Site) -> None:
    await two_streams(site)
    kept = Snapshot(counter("b"), 10, 20, "schema", b"state")
    await site.log.save([kept])
    assert (await site.archive("counter")).removed == 20
    assert await site.load("b", schema="schema") == StreamSlice(kept, [])


async def test_only_whole_ranges_that_are_old_go(site: Site) -> None:
    await grow(site.log, 10)
    assert (await site.archive("counter")).upto == 0, "the newest event is what appends go by"
    await append(site.log, batch((counter(), 10, 9)))
    young = NOW + timedelta(seconds=1)
    await append(site.log, replace(batch((counter("young"), 0, 11)), recorded_at=young))
    assert (await site.archive("counter", before=young)).upto == 10
    assert (await site.archive("counter", before=LATER)).upto == 20


async def test_a_frame_that_is_gone_or_changed_is_told(site: Site) -> None:
    await two_streams(site)
    await site.archive("counter")
    site.log.archive = PostgresLog(site.log.pool, "counters").archive
    store = fsspec.filesystem("memory")
    (file, _) = store.find("/archive")
    whole = store.cat_file(file)
    store.pipe_file(file, whole[:700] + bytes([whole[700] ^ 1]) + whole[701:])
    with pytest.raises(
        ArchiveUnavailable, match=r"Events 1 to 10 of log counters.*memory://archive.*damaged"
    ):
        await site.log.read(0, 10)
    store.rm(file)
    site.log.archive = PostgresLog(site.log.pool, "counters").archive  # which has nothing in memory
    with pytest.raises(ArchiveUnavailable, match="there is no such file"):
        await site.log.read(0, 1)
    assert await site.log.read(20, 5) == site.before[20:], "what is not in it is read as ever"
    async with Writer(site.log, schema=Schema(), clock=SystemClock(), ids=RandomIds()) as writer:
        with pytest.raises(StreamUnreadable, match="archive"):
            await writer.execute(lambda tx: tx.do(COUNTER, "b", Add(1)))
        await writer.execute(lambda tx: tx.do(COUNTER, "other", Add(1)))
        store.pipe_file(file, whole)
        await writer.execute(lambda tx: tx.do(COUNTER, "b", Add(1)))


async def test_nothing_leaves_that_is_not_recorded(site: Site) -> None:
    await two_streams(site)
    await site.archive("counter")
    for first, last in ((11, 21), (21, 24), (21, 25)):
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="are not archived"):
            await site.log.pool.fetch("SELECT remove_archived($1, $2, now(), '{counter}')", first, last)
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await site.log.pool.execute("DELETE FROM events WHERE position = 25")


async def test_one_at_a_time(site: Site) -> None:
    await two_streams(site)
    async with site.log.pool.acquire() as connection:
        await connection.execute("SELECT pg_advisory_lock(hashtextextended('twinlog.archive', 0))")
        with pytest.raises(ArchiveBusy):
            await site.archive("counter")
        await connection.execute("SELECT pg_advisory_unlock_all()")


async def test_a_run_that_was_interrupted_is_made_good(site: Site, tmp_path: Path) -> None:
    """Before the range was noted, and between that and the removal."""
    await two_streams(site)
    url = f"file://{tmp_path}"
    await site.archive("nothing ends", url=url)
    files = contents(tmp_path)
    written = {path: path.stat().st_mtime_ns for path in files if "000000000001-" in path.name}
    await site.log.pool.execute("DELETE FROM archived_ranges")
    next(path for path in files if "000000000011" in path.name).write_bytes(b"half of it")
    assert (await site.archive("counter", url=url)).removed == 20
    assert contents(tmp_path) == files, "the same range makes the same file"
    assert [path.stat().st_mtime_ns for path in written] == [*written.values()], "one that is whole stays"
    assert await PostgresLog(site.log.pool, "counters").read(0, 100) == site.before


async def test_a_copy_of_the_database_does_not_write_over_its_files(site: Site, postgres_url: str) -> None:
    """Both have the same identity, as after a restore, and go on apart from there."""
    async with (
        servers.database(postgres_url) as database,
        open_log(postgres_url, database, "counters") as log,
    ):
        copy = Site(log)
        await two_streams(site)
        await grow(copy.log, 5, "a")
        await grow(copy.log, 20, "c")
        own = await identify(site.log.pool, "mine", "")
        rule = Rule(LATER, ("counter",), 5)
        await archive(site.log, own, URL, rule, lambda _line: None)
        with pytest.raises(ArchiveDiffers, match=r"events 1 to 5 of .*event 1 is another one"):
            await archive(copy.log, own, URL, rule, lambda _line: None)
        assert await copy.left() == [*range(1, 26)]
        await archive(copy.log, own, f"{URL}/copy", rule, lambda _line: None)
    fresh = PostgresLog(site.log.pool, "counters")
    assert [event.stream.id for event in await fresh.read(0, 100)] == [*"aaaaabbbbbaaaaabbbbbaaaaa"]


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*.twinlog")}


async def test_programs_from_before_refuse_to_start(site: Site) -> None:
    breaking = "SELECT breaking FROM schema_migrations WHERE package = 'twinlog.sql' AND version = 14"
    await two_streams(site)
    assert not await site.log.pool.fetchval(breaking)
    await site.archive("counter")
    assert await site.log.pool.fetchval(breaking)


async def test_the_past_is_as_it_was(site: Site) -> None:
    """Versions and positions by time, causes, and states as of any moment."""
    for number, id in enumerate("ababa"):
        event = batch((counter(id), number // 2 * 5, 5))
        caused = [each._replace(metadata=Metadata("c", f"other/{number + 1}")) for each in event.events]
        await append(site.log, replace(event, recorded_at=NOW + timedelta(days=number), events=caused))
    times = [NOW + timedelta(days=days) for days in (-1, 0, 1.5, 2, 9)]
    moments = [Moment(position=position) for position in (0, 3, 9, 20, 25)] + [Moment(time=t) for t in times]

    async def past() -> Sequence[Any]:
        log = site.log
        return [
            [await log.version_at(counter(id), moment) for moment in moments for id in "ab"],
            [await log.position_at(time) for time in times],
            [await log.causes_between(after, 22) for after in (0, 7, 21)],
            list(await log.causes_of(3, 23)),
            list(await log.long_streams("counter", 6)),
        ]

    before = await past()
    assert (await site.archive("counter")).removed == 20
    assert await past() == before


async def test_related_events_are_found_in_it(site: Site) -> None:
    await two_streams(site)
    wanted: Sequence[Recorded] = await site.log.related(3, 25, ["correlation"], [])
    await site.archive("counter")
    assert await site.log.related(3, 25, ["correlation"], []) == wanted
    assert await site.log.related(3, 25, ["another"], []) == []


async def test_a_place_is_noted_as_every_process_finds_it(
    site: Site, postgres_url: str, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await two_streams(site)
    before = list(await site.log.read(0, 100))
    await identify(site.log.pool, "mine", "")
    (tmp_path / "elsewhere").mkdir()
    asked = ArchiveOptions("counters", "./past", LATER, postgres_url, database, ("counter",), 10)
    monkeypatch.chdir(tmp_path)
    assert (await archive_log(asked, lambda _line: None)).removed == 20
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert await PostgresLog(site.log.pool, "counters").read(0, 100) == before
    [file, _] = [row[0] for row in await site.log.pool.fetch("SELECT file FROM archived_ranges ORDER BY 1")]
    assert file.startswith(f"file://{tmp_path}/past/counters-")


async def test_a_log_of_another_name_is_not_archived(
    site: Site, postgres_url: str, database: str, tmp_path: Path
) -> None:
    await two_streams(site)
    await identify(site.log.pool, "mine", "", "counters")
    asked = ArchiveOptions("orders", str(tmp_path), LATER, postgres_url, database, ("counter",), 10)
    with pytest.raises(NotThatLog, match="holds log counters, not orders"):
        await archive_log(asked, lambda _line: None)
    assert await site.left() == list(range(1, 26))


def test_what_would_end_with_the_command_is_no_archive(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["archive", "counters", "memory://past"]) == 2
    assert "memory://past is this command's own memory" in " ".join(capsys.readouterr().err.split())
