"""Whoever reads a log finds its archived events, too; and what is wrong with the archive is told by name."""

from __future__ import annotations

import asyncio
import itertools
import re
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from io import BytesIO
from typing import Any, ClassVar
from unittest.mock import AsyncMock
from uuid import uuid4

import fsspec
import pytest

from tests.chain.history import rewrite_chain, tamper, verified
from tests.chain.test_gaps import append_without
from tests.files.test_archive import LATER, Site, contents, two_streams
from tests.files.test_archive import site as site
from tests.kernel.batches import append, batch, counter, grow
from tests.kernel.counter import COUNTER, Add
from tests.waiting import until
from twinlog import ConfigurationError, Metadata, Recorded, Schema, Unavailable, Writer
from twinlog.log import archive as archive_of_log
from twinlog.log.archive import ArchiveDamaged, ArchiveUnavailable
from twinlog.log.chain import Head
from twinlog.log.log_file import FrameReader, FrameWriter, event_record
from twinlog.log.past import KeptKey
from twinlog.log.ports import Snapshot
from twinlog.log.repair import Difference, Unrepairable
from twinlog.log.scan import Filter
from twinlog.log.twin import TwinState
from twinlog.model.errors import StreamUnreadable
from twinlog.postgres import archiving, connection, repair
from twinlog.postgres.archiving import ArchiveDiffers, Rule, archive
from twinlog.postgres.identity import identify
from twinlog.postgres.log import PostgresLog
from twinlog.postgres.named_queries import load_queries
from twinlog.postgres.urls import database_url
from twinlog.testing.internals import RandomIds, SystemClock, reader_of


def afresh(site: Site) -> None:
    """Forgets what was read of the archive."""
    site.log.archive = PostgresLog(site.log.pool, "counters").archive


# --- who reads ---


async def test_a_rebuild_reads_the_archive(site: Site, postgres_url: str, database: str) -> None:
    await two_streams(site)
    await site.archive("counter")
    async with reader_of(database_url(postgres_url, database), "counters") as reader:
        for after, limit in itertools.product((0, 3, 19, 20, 22, 25), (1, 5, 100)):
            read = await reader.read(after, limit)
            assert [[*event[:7], event.metadata, *event[8:]] for event in read] == [
                [*event] for event in site.before[after : after + limit]
            ]


async def test_the_same_events_fit_a_filter_wherever_they_are(site: Site) -> None:
    await two_streams(site)
    events = await site.log.read(0, 100)
    times, one = sorted(each.recorded_at for each in events), events[7]
    filters = [
        Filter(),
        Filter("counter", frozenset([one.type])),
        Filter(types=frozenset([one.type.rpartition(".")[2], "Other"])),
        Filter(types=frozenset(["Other"])),
        Filter("others"),
        Filter(routing_key=one.routing_key),
        Filter(routing_key="other"),
        Filter(correlation_id=one.metadata.correlation_id),
        Filter(correlation_id="other"),
        Filter(since=times[4], until=times[21]),
        Filter(until=times[0]),
    ]
    for archived in (False, True):
        if archived:
            await site.archive("counter")
            assert await site.left() == [21, 22, 23, 24, 25]
        wrong = [
            (wanted, *range_)
            for wanted in filters
            for range_ in ((0, 25, 100), (0, 25, 3), (0, 22, 4), (18, 23, 100), (3, 9, 2), (25, 25, 1))
            if await site.log.found(wanted, *range_) != _fitting(events, wanted, *range_)
        ]
        assert not wrong, archived
        stream = one.stream
        wrong = [
            (wanted, *range_)
            for wanted in (replace(each, stream=str(stream)) for each in filters)
            for range_ in ((0, 25, 100), (0, 25, 2), (0, 4, 100), (3, 9, 2), (3, 3, 1))
            if await site.log.found_in(stream, wanted, *range_)
            != [
                each
                for each in events
                if each.stream == stream and range_[0] < each.version <= range_[1] and wanted.fits(each)
            ][-range_[2] :]
        ]
        assert not wrong, archived


def _fitting(
    events: Sequence[Recorded], wanted: Filter, after: int, upto: int, most: int
) -> Sequence[Recorded]:
    return [each for each in events if after < each.position <= upto and wanted.fits(each)][-most:]


async def test_snapshots_of_archived_versions_are_kept_and_used(site: Site) -> None:
    log = site.log
    await two_streams(site)
    await log.keep([Snapshot(counter("b"), 3, 8, "s", b"three")])
    await site.archive("counter")
    nearest = await log.nearest(counter("b"), "s", 10)
    assert nearest and nearest.snapshot.version == 3
    await log.keep(
        [Snapshot(counter("b"), 6, 16, "s", b"six"), Snapshot(counter("b"), 7, 16, "s", b"no such place")]
    )
    nearest = await log.nearest(counter("b"), "s", 10)
    assert nearest and nearest.snapshot == Snapshot(counter("b"), 6, 16, "s", b"six")
    kept = await log.kept("", "", KeptKey(), 10)
    assert [(each.version, each.of_this_history) for each in kept] == [(3, True), (6, True)]
    await tamper(log, "UPDATE kept_snapshots SET position = 17 WHERE version = 6")
    assert [each.of_this_history for each in await log.kept("", "", KeptKey(), 10)] == [True, False]


async def test_what_was_remembered_of_causes_stays(site: Site) -> None:
    await two_streams(site)
    await site.log.mark_causes(5, {"other": 2})
    await site.archive("counter")
    await site.log.mark_causes(10, {"other": 7})
    assert await site.log.causal_marks() == [(5, {"other": 2}), (10, {"other": 7})]


async def test_what_a_repair_cuts_may_follow_the_archive(site: Site) -> None:
    """The last event that log and stream share is archived, and so are the ones that a cut has sealed again."""
    await grow(site.log, 5, "a")
    await append_without(site.log, 18)  # 6 to 23, which one link seals
    await site.log.seal(100)
    await site.archive("counter")
    assert await site.left() == [21, 22, 23]
    lost = [event._replace(event_id=uuid4()) for event in site.before[20:]]
    found = Difference(TwinState(1, 23, 0), 21, lost, site.before[19], "")
    made = await repair.carry_out(site.log, found)
    assert (made.restored, [event.position for event in made.given_up]) == (lost, [21, 22, 23])
    assert await site.log.read(0, 100) == [*site.before[:20], *lost]
    assert await site.log.seal(100) == 18
    assert (await verified(site.log))[0] is None
    with pytest.raises(Unrepairable, match="has archived its own, up to 20"):
        await repair.planned(site.log, replace_since(found, 20))


def replace_since(found: Difference, since: int) -> Difference:
    return found._replace(since=since, shared=None)


async def test_effects_of_lost_events_are_listed_from_the_archive(site: Site) -> None:
    caused = batch((counter("c"), 0, 10))
    events = [each._replace(metadata=Metadata("", "other/7")) for each in caused.events]
    await append(site.log, replace(caused, events=events))
    await grow(site.log, 1, "young")
    await site.archive("counter")
    lost = site.before[0]._replace(log="other", position=7)
    assert await repair.effects(site.log.pool, [lost]) == [
        event._replace(log="") for event in site.before[:10]
    ]


# --- what leaves the table ---


async def test_of_a_stream_its_oldest_events_leave_first(site: Site) -> None:
    """A snapshot that comes while rows are taken out does not let the newest go before the older ones."""
    await two_streams(site)
    own = await identify(site.log.pool, "mine", "")
    late = Snapshot(counter("b"), 10, 20, "s", b"")
    pool = site.log.pool
    before = list(await site.log.read(0, 100))
    await archive(site.log, own, "memory://archive", Rule(LATER, (), 10), lambda _line: None)
    assert len(await site.left()) == 25
    for first, last in ((1, 7), (8, 10), (11, 17), (18, 20)):
        if first == 11:
            await site.log.save([late])
        await pool.fetch("SELECT remove_archived($1, $2, $3, '{}')", first, last, LATER)
    assert await site.left() == list(range(1, 26)), "of b, older events are there still"
    await archive(site.log, own, "memory://archive", Rule(LATER, (), 10), lambda _line: None)
    assert [e.position for e in before if e.stream == counter("a")] == await site.left()
    await append(site.log, batch((counter("b"), 10, 1)))


async def test_wherever_a_run_is_killed_the_next_one_ends_it(
    site: Site, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    await two_streams(site)
    fetch = connection.fetch

    class Killed(BaseException):
        pass

    for kill_at in itertools.count(1):
        calls = itertools.count(1)

        async def fetched(*arguments: Any, at: int = kill_at, calls: Any = calls) -> Any:
            if next(calls) == at:
                raise Killed
            return await fetch(*arguments)

        monkeypatch.setattr(archiving, "fetch", fetched)
        try:
            await site.archive("counter", url=f"file://{tmp_path}")
        except Killed:
            assert await PostgresLog(site.log.pool, "counters").read(0, 100) == site.before
            continue
        break
    assert kill_at > 6, "it was killed at each statement, and each time came further"
    assert await site.left() == [21, 22, 23, 24, 25]
    assert len(contents(tmp_path)) == 2
    assert (await verified(site.log))[0] is None


# --- an object store ---


class Object(BytesIO):
    """An object that is being written: it is there once it was closed, also where writing it has failed."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self._path = path

    def write(self, data: Any) -> int:
        if self.tell() + len(data) > Bucket.room:
            raise RuntimeError("500 Internal Error")
        return super().write(data)

    def close(self) -> None:
        if not self.closed:
            Bucket.objects[self._path] = self.getvalue()
        super().close()


class Bucket(fsspec.AbstractFileSystem):  # type: ignore[misc]
    """As an object store is: no folders, an object is there once it is whole, and errors of its own."""

    protocol = "bucket"
    cachable = False
    objects: ClassVar[dict[str, bytes]] = {}
    away = False
    room = 2**40
    short: ClassVar[list[int]] = []
    """Of the next reads, how many bytes they give at most."""
    going_on: ClassVar[threading.Event] = threading.Event()
    """Set: reads come to their end."""
    reads = 0

    def open(self, path: str, mode: str = "rb", **_how: Any) -> Any:
        return Object(path) if mode == "wb" else BytesIO(self.cat_file(path))

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        raise AssertionError("it has no folders: this would make a bucket of any name")

    def ls(self, path: str, detail: bool = True, **_how: Any) -> Any:
        raise AssertionError("an object store may list late: nobody goes by it")

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **_how: Any) -> bytes:
        Bucket.reads += 1
        assert Bucket.going_on.wait(60)
        if Bucket.away:
            raise RuntimeError("503 Slow Down")
        if path not in self.objects:
            raise FileNotFoundError(path)
        found = self.objects[path][start:end]
        return found[: self.short.pop(0)] if self.short else found


@pytest.fixture
async def stored(site: Site, monkeypatch: pytest.MonkeyPatch) -> Site:
    """25 events, 20 of them in a bucket."""
    fsspec.register_implementation("bucket", Bucket, clobber=True)
    monkeypatch.setattr(Bucket, "objects", {})
    monkeypatch.setattr(Bucket, "away", False)
    monkeypatch.setattr(Bucket, "room", 2**40)
    monkeypatch.setattr(Bucket, "short", [])
    Bucket.going_on.set()
    await two_streams(site)
    await site.archive("counter", url="bucket://mine/archive")
    return site


async def test_an_object_store_does(stored: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    assert await stored.left() == [21, 22, 23, 24, 25] and len(Bucket.objects) == 2
    assert await stored.log.read(0, 100) == stored.before
    assert (await stored.load("b")).events == stored.of("b")
    afresh(stored)
    monkeypatch.setattr(Bucket, "away", True)
    with pytest.raises(ArchiveUnavailable, match=r"bucket://mine/archive.*503 Slow Down") as told:
        await stored.log.read(0, 5)
    assert not isinstance(told.value, ArchiveDamaged)
    with pytest.raises(ArchiveUnavailable):
        await verified(stored.log)
    monkeypatch.setattr(Bucket, "away", False)
    assert await stored.log.read(0, 100) == stored.before


async def test_an_object_store_that_never_answers_holds_up_nobody_else(
    stored: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither other streams, nor what the process does in threads; and it is asked again once it may be back."""
    monkeypatch.setattr(archive_of_log, "READ_SECONDS", 0.2)
    monkeypatch.setattr(archive_of_log, "AWAY_SECONDS", 600.0)
    afresh(stored)
    Bucket.going_on.clear()
    Bucket.reads = 0
    async with Writer(stored.log, schema=Schema(), clock=SystemClock(), ids=RandomIds()) as writer:
        for _ in range(10):
            with pytest.raises(StreamUnreadable, match="no answer within"):
                await writer.execute(lambda tx: tx.do(COUNTER, "b", Add(1)))
            await writer.execute(lambda tx: tx.do(COUNTER, "other", Add(1)))
        assert Bucket.reads == 1, "it was not asked again and again"
        monkeypatch.setattr(archive_of_log, "AWAY_SECONDS", 0.0)
        afresh(stored)
        for _ in range(10):
            with pytest.raises(ArchiveUnavailable, match=r"bucket://mine/archive.*no answer within"):
                await stored.log.read(0, 5)
        assert Bucket.reads <= 9, "what never ends is bounded"
        assert await asyncio.to_thread(lambda: 7) == 7
        monkeypatch.setattr(archive_of_log, "READ_SECONDS", 60.0)
        Bucket.going_on.set()
        assert await until_read(stored) == stored.before[:5]


async def until_read(site: Site) -> Sequence[Recorded]:
    found: list[Sequence[Recorded]] = []

    async def read() -> bool:
        try:
            found.append(await site.log.read(0, 5))
        except ArchiveUnavailable:
            return False
        return True

    await until(read)
    return found[-1]


async def test_what_was_cut_short_on_its_way_is_read_again(stored: Site) -> None:
    for short in (0, 10, 100):
        afresh(stored)
        Bucket.short[:] = [short]
        assert await stored.log.read(0, 25) == stored.before
    afresh(stored)
    Bucket.short[:] = [10, 10]
    with pytest.raises(ArchiveDamaged, match="cut off"):
        await stored.log.read(0, 25)
    assert await stored.log.read(0, 25) == stored.before


async def test_an_object_store_that_fails_midway_takes_nothing_from_the_table(
    site: Site, stored: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    await grow(site.log, 12, "c")
    site.before = list(await site.log.read(0, 100))
    for room in (0, 150, 500):
        monkeypatch.setattr(Bucket, "room", room)
        with pytest.raises(
            Unavailable, match=r"bucket://mine/archive.* cannot be written and read back: 500"
        ):
            await site.archive("counter", url="bucket://mine/archive")
        assert await site.log.archived_upto() == 20
        assert await site.left() == [*range(21, 38)]
    monkeypatch.setattr(Bucket, "room", 2**40)
    assert (await site.archive("counter", url="bucket://mine/archive")).ranges == 1
    assert await site.log.read(0, 100) == site.before
    assert (await verified(site.log))[0] is None


async def test_nothing_leaves_the_table_that_does_not_stand_in_the_store(
    site: Site, stored: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither where it gives an earlier run's bytes, nor where a file is gone by the time that its streams have ended,
    nor where a copy on this machine would be read."""
    await grow(site.log, 12, "c")
    site.before = list(await site.log.read(0, 100))
    url = "bucket://mine/archive"
    monkeypatch.setattr(archiving, "_FRAME_BYTES", 5_000)
    with monkeypatch.context() as later:
        later.setattr(Object, "close", lambda self: None)
        with pytest.raises(Unavailable, match="written and read back: there is no such file"):
            await site.archive(url=url)
    with monkeypatch.context() as dies:
        dies.setattr(archiving, "_sync", None)
        with pytest.raises(Unavailable, match="cannot be written and read back: "):
            await site.archive(url=url)  # the file is there, and not noted
    monkeypatch.setattr(archiving, "_FRAME_BYTES", 1_000)
    with monkeypatch.context() as old:
        old.setattr(Object, "close", lambda self: None)
        old.setattr(archiving, "_found", AsyncMock(return_value=None))  # it was not there a moment ago
        with pytest.raises(ArchiveDiffers, match="the store gives other bytes than were written"):
            await site.archive(url=url)
    assert await site.log.archived_upto() == 20

    objects = dict(Bucket.objects)
    assert (await site.archive(url=url)).removed == 0
    assert Bucket.objects == objects, "the earlier run's file is whole"
    left = await site.left()
    [*_, path] = sorted(Bucket.objects)
    file = Bucket.objects.pop(path)
    for damage, why in (
        (None, "there is no such file"),
        (file[:-1], "cut off"),
        (file + file, "its seal does not fit"),
    ):
        if damage:
            Bucket.objects[path] = damage
        with pytest.raises(ArchiveDamaged, match=why):
            await site.archive("counter", url=url)
        assert await site.left() == left
    Bucket.objects[path] = file
    assert (await site.archive("counter", url=url)).removed
    assert await PostgresLog(site.log.pool, "counters").read(0, 100) == site.before
    with pytest.raises(ConfigurationError, match="leave simplecache:: out"):
        await site.archive(url=f"simplecache::{url}")


# --- what is wrong with it ---


def first_frame(data: bytes) -> bytes:
    """Up to the end of the header: the file is cut off where a frame begins."""
    return data[: next(FrameReader(BytesIO(data), "", "").frames()).end]


DAMAGE: dict[str, Callable[[bytes, bytes, bytes], bytes | None]] = {
    "gone": lambda mine, other, foreign: None,
    "empty": lambda mine, other, foreign: b"",
    "cut off in a frame": lambda mine, other, foreign: mine[:-300],
    "cut off between frames": lambda mine, other, foreign: first_frame(mine),
    "changed": lambda mine, other, foreign: mine[:700] + bytes([mine[700] ^ 1]) + mine[701:],
    "the next range": lambda mine, other, foreign: other,
    "of another installation": lambda mine, other, foreign: foreign,
}


async def test_damage_is_named_and_concerns_nobody_else(stored: Site) -> None:
    log, (first, second) = stored.log, sorted(Bucket.objects)
    mine, other = Bucket.objects[first], Bucket.objects[second]
    foreign = _of_another(stored)
    await append(log, batch((counter("new"), 0, 1)))
    places = {}
    for name, damage in DAMAGE.items():
        changed = damage(mine, other, foreign)
        Bucket.objects = {second: other} if changed is None else {first: changed, second: other}
        afresh(stored)
        with pytest.raises(
            ArchiveDamaged, match=r"Events 1 to 10 of log counters.*bucket://mine/arch"
        ) as told:
            await log.read(0, 10)
        assert "Put back a copy" in str(told.value)
        assert await log.read(10, 15) == stored.before[10:], "another file is read as ever"
        places[name], found = await verified(log)
        assert [each for each in found.notes if "bucket://mine" in each]
        assert not [each for each in found.kept if int(each.events[0].split("/")[1]) > 10]
    within = [places.pop("cut off in a frame"), places.pop("changed")]
    assert set(places.values()) == {1}
    frames = await log.pool.fetchval("SELECT frame_firsts FROM archived_ranges WHERE first = 1")
    assert set(within) <= set(frames[1:]), "sound frames before it are read"
    Bucket.objects = {first: mine, second: other}
    afresh(stored)
    assert (await log.read(0, 25)) == stored.before
    assert (await verified(log))[0] is None


def _of_another(site: Site) -> bytes:
    """The same range, as another log has it."""
    writer = FrameWriter(frame_bytes=1_000)
    data = b""
    for event in site.before[:10]:
        data += writer.add(event_record(event._replace(event_id=uuid4())))
    return data + writer.frame()


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ("positions[2] = 3", "it names event 3 for counter/b, and that is of counter/a"),
        ("positions[2] = positions[1]", "it names no event 1 of counter/b, or several"),
        ("positions[2] = 99", "table archived_ranges has no range with them"),
    ],
    ids=["another's", "doubled", "nowhere"],
)
async def test_a_stream_is_never_folded_from_other_events(stored: Site, change: str, why: str) -> None:
    await tamper(
        stored.log, f"UPDATE archived_streams SET {change} WHERE stream_id = 'b' AND first_version = 1"
    )
    with pytest.raises(ArchiveDamaged, match=why):
        await stored.load("b")
    assert (await stored.load("a")).events == stored.of("a")


async def test_table_and_archive_are_both_verified(stored: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a living stream keeps in the table is in a file, too; loads take the one, readers in order the other."""
    log = stored.log
    newest = await log.newest_link()
    assert newest
    head = Head.of("counters", newest)
    columns = ", ".join(repair.EVENT_COLUMNS)
    row = repair.row_of(stored.before[6]._replace(payload=b"changed"))
    places = ", ".join(f"${number}" for number in range(1, 13))
    async with log.pool.acquire() as taken:
        await taken.execute(f"INSERT INTO events ({columns}) VALUES ({places})", *row)
    assert await log.read(0, 25) == stored.before, "who reads in order sees nothing of it"
    first, found = await verified(log, None, head)
    assert (first, [each.says for each in found.kept]) == (
        7,
        ["counters/7: event 7 in table events is not what was linked"],
    )
    await tamper(log, "DELETE FROM events WHERE position = 7")
    changed = [each._replace(payload=b"changed") if each.position == 7 else each for each in stored.before]
    await _rewritten(stored, changed, monkeypatch)
    assert (await verified(log))[0] == 7, "file and table were changed together"
    await rewrite_chain(log)
    assert (await verified(log))[0] is None
    assert (await verified(log, None, head))[0] == 1, "and the chain, which a noted head shows"


async def _rewritten(site: Site, events: Sequence[Recorded], monkeypatch: pytest.MonkeyPatch) -> None:
    """Archives other events instead, with checksums that fit."""
    log = site.log
    await tamper(log, "DELETE FROM archived_ranges", "DELETE FROM archived_streams")
    async with log.pool.acquire() as connection, connection.transaction():
        await connection.execute("SET LOCAL session_replication_role = replica")
        await connection.execute("DELETE FROM events")
        rows = [repair.row_of(event) for event in events]
        await connection.copy_records_to_table("events", records=rows, columns=repair.EVENT_COLUMNS)
    afresh(site)
    Bucket.objects.clear()
    await site.archive("counter", url="bucket://mine/archive")
    assert await site.left() == [21, 22, 23, 24, 25]
    afresh(site)


KNOW_OF_THE_ARCHIVE = {
    # With what is archived beside it, or filled by whoever asks.
    "histories", "histories_to_fold", "read", "related", "found", "found_in", "long_streams", "causes_between",
    "causes_of", "causal_marks", "versions_before", "version_at_time", "position_at_time", "doubled_ids",
    "archived_places", "versions_of_letters",
    # Of events that are never archived: the newest, those of living sagas, those of dead letters, those after its end.
    "live_sagas", "newest", "dead_letters", "repair_give_up", "repair_cut", "import_refusals",
    "last", "head_astray", "first_gap",
    # Of the table alone; the last takes whatever it asks for to be in an archive, if there is one.
    "archive_young", "archive_left", "stored_of",
}  # fmt: skip


def test_no_statement_reads_the_table_without_the_archive() -> None:
    """Whoever adds one says here how it finds archived events; ``event_at`` and ``Archive.filled`` do for most."""
    found = {
        name
        for package in ("twinlog.postgres.sql", "twinlog.audit.sql")
        for name, query in load_queries(package).items()
        if re.search(r"\b(FROM|JOIN) events\b", query)
    }
    assert found == KNOW_OF_THE_ARCHIVE
