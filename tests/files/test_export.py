"""A log in a file, and back: all of it, by piece after interruptions, and never from a file that is not sound."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import itertools
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest
import zstandard

from stack.topology import ROOT
from tests import servers
from tests.chain.history import tamper, verified
from tests.kernel.batches import NOW, append, batch, counter, grow
from tests.programs import program
from twinlog import ConfigurationError, PostgresViews, Recorded, Unavailable
from twinlog.cli import main
from twinlog.log import log_file
from twinlog.log.chain import Head
from twinlog.log.log_file import (
    FrameReader,
    FrameWriter,
    LogFileDamaged,
    LogFileUnfinished,
    NotALogFile,
    event_record,
)
from twinlog.log.ports import NewReply, Timer, TimerChange
from twinlog.model.errors import WrongSetting
from twinlog.postgres import importing
from twinlog.postgres import log as log_module
from twinlog.postgres.archiving import Rule, archive
from twinlog.postgres.exporting import FileIsWhole, FileOfAnotherLog, export
from twinlog.postgres.identity import ImportUnfinished, NotThatLog, identify, identity
from twinlog.postgres.importing import LogInUse, LogNotEmpty
from twinlog.service import export as service
from twinlog.service.export import Done, FileBusy, FileFails, NoSuchFile, Options, export_log, import_file
from twinlog.service.repair import Options as RepairOptions
from twinlog.service.repair import repair
from twinlog.testing import MemoryLog
from twinlog.testing.internals import CheckpointAdvance, PostgresLog, database_url, open_log
from twinlog.v1.log_file_pb2 import LogFileEnd, LogFileHeader, LogRecord

LOG = "counters"
MANY = 600
"""Events: several frames, as long as they are here."""


@dataclass
class Site:
    """A log, a file for it, and an empty database."""

    postgres_url: str
    source: str
    target: str
    file: Path
    log: PostgresLog

    async def export(self, log: str = LOG, **given: bool) -> Done:
        return await export_log(Options(log, self.file, self.postgres_url, self.source, **given))

    async def imported(self, log: str = LOG, database: str = "") -> Done:
        return await import_file(Options(log, self.file, self.postgres_url, database or self.target))

    @asynccontextmanager
    async def restored(self) -> AsyncIterator[PostgresLog]:
        async with open_log(self.postgres_url, self.target, LOG) as log:
            yield log

    async def has_begun(self) -> bool:
        return await self.brought() > 0

    async def brought(self) -> int:
        """Up to where an import has come."""
        async with self.restored() as log:
            return int(await log.pool.fetchval("SELECT max(position) FROM log_imports") or 0)


@pytest.fixture
async def site(postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Site]:
    monkeypatch.setattr(log_file, "FRAME_BYTES", 20_000)
    async with AsyncExitStack() as stack:
        source = await stack.enter_async_context(servers.database(postgres_url))
        target = await stack.enter_async_context(servers.empty_database(postgres_url))
        log = await stack.enter_async_context(open_log(postgres_url, source, LOG))
        yield Site(postgres_url, source, target, tmp_path / "counters.twinlog", log)


async def filled(log: PostgresLog) -> None:
    """Some megabytes, in no time."""
    await grow(log, MANY)


async def is_empty(site: Site) -> bool:
    """Whether nothing came of an import."""
    connection = await asyncpg.connect(database_url(site.postgres_url, site.target))
    try:
        return await connection.fetchval("SELECT to_regclass('events')") is None
    finally:
        await connection.close()


async def all_of(log: PostgresLog) -> list[Recorded]:
    return list(await log.read(0, 1_000_000))


async def test_a_log_comes_back_as_it_was(site: Site) -> None:
    await grow(site.log, 3)
    events = await all_of(site.log)
    ours = await identify(site.log.pool, "mine", "", LOG)
    stream, due = counter("a"), NOW + timedelta(days=1)
    rest = batch(
        reads={stream: 3},
        replies=[NewReply("r-1", b"print", b"reply", 0)],
        advances=[CheckpointAdvance("svc.other", 0, 7, events[1].event_id), CheckpointAdvance("view", 0, 5)],
        timers=[TimerChange(stream, 3, due)],
    )
    await append(site.log, rest)
    newest = await site.log.newest_link()
    assert newest
    await site.log.begin_era()
    shape = "INSERT INTO saga_tables (saga, version, fingerprint, shape) VALUES ('s', 1, 'f', '[1]')"
    await site.log.pool.execute(shape)

    await site.log.pool.execute("INSERT INTO erased_subjects VALUES ('ada')")

    exported = await site.export()
    done = await site.imported()

    assert (exported.events, done.events, done.resumed, done.digest) == (3, 3, 0, exported.digest)
    async with site.restored() as log:
        assert (await all_of(log), await log.head(), await log.era()) == (events, 3, 1)
        assert await log.reply("r-1") == await site.log.reply("r-1")
        assert await log.links(0, 99) == await site.log.links(0, 99)
        assert (await verified(log, None, Head.of(LOG, newest)))[0] is None, (
            "heads that were noted prove it still"
        )
        assert await log.due(due, 9) == [Timer(stream, 3, due)]
        assert await log.pool.fetchval("SELECT shape FROM saga_tables") == [1]
        erased = "SELECT subject, erased_at FROM erased_subjects"
        assert await log.pool.fetchrow(erased) == await site.log.pool.fetchrow(erased)
        view = PostgresViews(log, "tests.dead_letters.sql", {})
        assert (await view.checkpoint("view"), await view.checkpoint("svc.other")) == (0, 0)
        assert await log.checkpoint("svc.other") == 7, "its effects are events of the log: it goes on"
        assert await log.last_handled("svc.other") == (7, events[1].event_id)
        assert await view.checkpoint("view") == 0, "its rows are not in the file: it begins anew"
        assert len(await grow(log, 1)) == 1
        assert await identity(log.pool) is None, "whose log it is does not travel in a file"
        theirs = await identify(log.pool, "", "staging", LOG)
        assert theirs.installation != ours.installation, (
            "a copy in another namespace is another installation's"
        )
        assert theirs.log_id != ours.log_id, "and another log: their streams are never taken for each other"


async def test_a_file_is_one_moment_of_a_log_that_goes_on(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is written while it is made: events, outcomes, timers and links are of one moment."""
    monkeypatch.setattr(log_module, "_PAGE", 3)
    await grow(site.log, 20)
    done = asyncio.Event()

    async def write() -> None:
        for version in itertools.count(1):
            if done.is_set():
                return
            stream = counter(f"w{version}")
            new = batch(
                (stream, 0, 1),
                replies=[NewReply(f"r-{version}", b"print", b"reply", 1)],
                timers=[TimerChange(stream, 1, NOW)],
            )
            await append(site.log, new)

    async with asyncio.TaskGroup() as group:
        group.create_task(write())
        exported = await site.export()
        done.set()
    assert 20 < exported.events <= await site.log.head()
    await site.imported()
    async with site.restored() as log:
        events = await all_of(log)
        assert events == (await all_of(site.log))[: exported.events]
        assert (await verified(log))[0] is None
        written = len(events) - 20
        assert len(await log.due(NOW, 10_000)) == written
        assert await log.reply(f"r-{written}") and not await log.reply(f"r-{written + 1}")


async def test_so_many_bytes_make_a_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_file, "FRAME_BYTES", 5_000)
    records = [event_record(event) for event in await grow(MemoryLog(LOG), 100)]
    as_usual, larger = FrameWriter(), FrameWriter(frame_bytes=10_000)
    assert [sum(map(bool, map(writer.add, records))) for writer in (as_usual, larger)] == [5, 2]


@pytest.mark.parametrize("data", [b"P", b"PK\3\4 and more"])
def test_what_is_not_in_zstd_is_no_file_of_a_log(data: bytes) -> None:
    with pytest.raises(NotALogFile, match="it is not in zstd"):
        next(FrameReader(BytesIO(data), "some.zip", "").frames())


async def test_outcomes_of_requests_may_stay_behind(site: Site) -> None:
    await append(site.log, batch((counter(), 0, 1), replies=[NewReply("r-1", b"print", b"reply", 1)]))
    await site.export(requests=False)
    await site.imported()
    async with site.restored() as log:
        assert (await log.reply("r-1"), await log.head()) == (None, 1)


async def test_an_empty_log_comes_back_empty(site: Site) -> None:
    await site.export()
    await site.imported()
    async with site.restored() as log:
        assert (await log.head(), await all_of(log)) == (0, [])


@pytest.mark.parametrize("cut", [0, 0.4, 0.9, -1])
async def test_an_export_goes_on_where_it_was_interrupted(site: Site, cut: float) -> None:
    """Wherever the file ends: at its beginning, in the middle of a frame, before its end."""
    await filled(site.log)
    await site.export()
    whole = site.file.read_bytes()
    site.file.write_bytes(whole[: int(cut * len(whole)) if 0 < cut < 1 else int(cut)])
    done = await site.export()
    assert (done.events, done.resumed > 0) == (MANY, cut != 0)
    assert (await site.imported()).events == MANY
    async with site.restored() as log:
        assert await all_of(log) == await all_of(site.log)


async def test_a_flipped_bit_is_noticed_wherever_it_is(site: Site) -> None:
    await filled(site.log)
    await site.export()
    whole = site.file.read_bytes()
    for offset in range(0, len(whole), len(whole) // 40):
        site.file.write_bytes(whole[:offset] + bytes([whole[offset] ^ 4]) + whole[offset + 1 :])
        with pytest.raises((LogFileDamaged, NotALogFile)) as refused:
            await site.imported()
        if isinstance(refused.value, LogFileDamaged):
            assert re.search(
                r"is damaged at byte \d+, after event \d+: .*[Ii]mport another copy", str(refused.value)
            )
    assert await is_empty(site)


async def test_no_byte_of_a_small_file_may_be_another_or_missing(site: Site) -> None:
    """Every bit, and every end."""
    await append(site.log, batch((counter(), 0, 1)))
    await site.export()
    whole = site.file.read_bytes()
    taken = []
    for offset, bit in itertools.product(range(len(whole)), range(8)):
        flipped = whole[:offset] + bytes([whole[offset] ^ 1 << bit]) + whole[offset + 1 :]
        try:
            importing.checked(BytesIO(flipped), "flipped")
        except (LogFileDamaged, LogFileUnfinished, NotALogFile):
            continue
        taken.append((offset, bit))
    for end in range(len(whole)):
        with pytest.raises((LogFileDamaged, LogFileUnfinished, NotALogFile)):
            importing.checked(BytesIO(whole[:end]), "cut off")
    assert not taken


async def test_a_file_that_was_cut_off_is_refused(site: Site) -> None:
    await filled(site.log)
    await site.export()
    whole = site.file.read_bytes()
    ends = [frame.end for frame in FrameReader(BytesIO(whole), "", "").frames()]
    for end in [*ends[:-1], ends[0] + 7, len(whole) - 1]:
        site.file.write_bytes(whole[:end])
        with pytest.raises((LogFileDamaged, LogFileUnfinished)) as refused:
            await site.imported()
        assert re.search(r"after event \d+", str(refused.value))
    assert await is_empty(site)


async def test_files_that_were_put_together_are_refused(site: Site) -> None:
    """Twice the same, two of one log, and a part of one with the rest of another."""
    await filled(site.log)
    await site.export()
    one = site.file.read_bytes()
    site.file.unlink()
    await site.export()
    other = site.file.read_bytes()
    cuts = [[frame.end for frame in FrameReader(BytesIO(each), "", "").frames()] for each in (one, other)]
    assert one != other and len(cuts[0]) > 2
    skippable = b"\x50\x2a\x4d\x18\x04\0\0\0more"  # a frame that zstd passes over
    together = {
        "twice": one + one,
        "two": one + other,
        "parts": one[: cuts[0][1]] + other[cuts[1][1] :],
        "a part, then all": one[: cuts[0][1]] + one,
        "a frame twice": one[: cuts[0][1]] + one[cuts[0][0] :],
        "more behind": one + b"more",
        "passed over behind": one + skippable,
        "passed over before": skippable + one,
        "nothing in between": one[: cuts[0][1]] + zstandard.compress(b"") + one[cuts[0][1] :],
    }
    taken = []
    for name, data in together.items():
        try:
            importing.checked(BytesIO(data), name)
        except (LogFileDamaged, NotALogFile):
            continue
        taken.append(name)
    assert not taken


async def test_an_import_goes_on_where_it_was_killed(site: Site) -> None:
    await filled(site.log)
    await site.export()
    command = [sys.executable, "-m", "twinlog", "import", LOG, str(site.file), "--database", site.target]
    async with site.restored() as log, log.pool.acquire() as connection:
        async with connection.transaction():
            await connection.execute("LOCK TABLE log_head IN EXCLUSIVE MODE")  # which it writes at its end
            async with program(
                *command, "--postgres-url", site.postgres_url, env=os.environ, cwd=ROOT
            ) as killed:
                await killed.until(site.has_begun)
                await killed.ends_at(signal.SIGKILL)
        assert await log.head() == 0
        resumed = await site.brought()
        done = await site.imported()
        assert (done.events, done.resumed) == (MANY, resumed)
        assert await all_of(log) == await all_of(site.log)


async def test_an_import_goes_on_after_each_frame(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_file, "FRAME_BYTES", 1_000)
    await grow(site.log, 24)
    await site.export()
    store, finish = importing._store, importing._finish
    brought = []
    for stored_at_most in itertools.count():
        left = itertools.count()

        async def stored(
            *given: Any, left: Any = left, most: int = stored_at_most, work: Any = store
        ) -> None:
            if next(left) >= most % 2:
                raise Unavailable("killed here")
            await work(*given)

        monkeypatch.setattr(importing, "_store", stored)
        monkeypatch.setattr(importing, "_finish", partial(stored, work=finish))
        try:
            done = await site.imported()
        except Unavailable:
            brought.append(await site.brought())
            continue
        break
    assert done.events == 24
    assert brought == sorted(brought) and {*brought} >= {0, 4, 8, 12, 16, 20}
    async with site.restored() as log:
        assert await all_of(log) == await all_of(site.log)
        assert (await verified(log))[0] is None


async def test_of_several_imports_one_fills_the_log(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether they begin or end at once; the others say so."""
    await filled(site.log)
    await site.export()
    found = await asyncio.gather(*(site.imported() for _ in range(3)), return_exceptions=True)
    assert sorted(type(each).__name__ for each in found) == ["Done", "LogNotEmpty", "LogNotEmpty"]
    async with site.restored() as log:
        assert await all_of(log) == await all_of(site.log)
        await log.pool.execute("UPDATE log_imports SET finished_at = NULL")
        ended = [
            importing._finish(log.pool, "it", LogFileHeader(), LogFileEnd(position=MANY), iter(()))
            for _ in "ab"
        ]
        assert [type(each) for each in await asyncio.gather(*ended, return_exceptions=True)].count(
            LogNotEmpty
        ) == 1


class Full:
    """A file on a disk that has room for so many bytes."""

    def __init__(self, file: Any, room: int) -> None:
        self._file, self._room = file, room

    def write(self, data: bytes) -> int:
        left = max(0, self._room - self._file.tell())
        self._file.write(data[:left])
        if left < len(data):
            raise OSError(errno.ENOSPC, "No space left on device")
        return len(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


async def test_a_full_disk_is_told_and_the_export_goes_on(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_file, "FRAME_BYTES", 3_000)
    await grow(site.log, 200)
    with monkeypatch.context() as disk:

        async def full(log: Any, own: Any, database: str, file: Any, *given: Any, **how: Any) -> Any:
            narrow: Any = Full(file, 5_000)
            return await export(log, own, database, narrow, *given, **how)

        disk.setattr(service, "export", full)
        with pytest.raises(FileFails, match=r"twinlog cannot be read or written: No space left.*it goes on"):
            await site.export()
    done = await site.export()
    assert done.events == 200 and done.resumed
    assert (await site.imported()).events == 200


async def test_what_a_newer_program_wrote_or_an_archive_is_refused(site: Site) -> None:
    await grow(site.log, 2)
    writer = FrameWriter()
    writer.add(LogRecord(header=LogFileHeader(format=1, log=LOG, file_id=b"f" * 16)))
    data = writer.frame()
    writer.add(LogRecord.FromString(b"\xfa\x01\x02hi"))  # field 31
    writer.add(LogRecord(end=LogFileEnd()))
    site.file.write_bytes(data + writer.frame())
    with pytest.raises(NotALogFile, match="records that this program does not know; use a newer one"):
        await site.imported()
    writer = FrameWriter()
    writer.add(LogRecord(header=LogFileHeader(format=1, log=LOG, file_id=b"f" * 16)))
    data = writer.frame()
    writer.add(event_record((await site.log.read(0, 1))[0]))
    writer.add(LogRecord.FromString(b"\xfa\x01\x02hi"))  # beside events
    data += writer.frame()
    writer.add(LogRecord(end=LogFileEnd(position=1)))
    site.file.write_bytes(data + writer.frame())
    with pytest.raises(NotALogFile, match="records that this program does not know; use a newer one"):
        await site.imported()
    for format in (0, 2):
        writer = FrameWriter()
        writer.add(LogRecord(header=LogFileHeader(format=format, log=LOG, file_id=b"f" * 16)))
        site.file.write_bytes(writer.frame())
        with pytest.raises(NotALogFile, match=f"its format is {format}, this program knows 1"):
            await site.imported()
    own = await identify(site.log.pool, "mine", "")
    rule = Rule(NOW + timedelta(days=9_000), ("counter",), 1)
    await archive(site.log, own, f"file://{site.file.parent}", rule, lambda _line: None)
    [range] = site.file.parent.rglob("0*.twinlog")
    site.file.write_bytes(range.read_bytes())
    with pytest.raises(NotALogFile, match="it is a range of the archive, events 1 to 1"):
        await site.imported()
    async with site.restored() as log:
        assert await log.head() == 0


async def test_only_an_empty_log_is_filled(site: Site) -> None:
    await grow(site.log, 2)
    await site.export()
    with pytest.raises(LogNotEmpty, match=r"2 events.*--database NAME"):
        await site.imported(database=site.source)
    await site.imported()
    with pytest.raises(LogNotEmpty):
        await site.imported()


async def test_a_log_that_a_service_has_is_not_filled(site: Site) -> None:
    await site.export()
    async with site.restored() as log:
        await log.pool.execute(
            "INSERT INTO leases VALUES ('relay', 'order_svc@here', now() + interval '1 min')"
        )
    with pytest.raises(LogInUse, match=r"order_svc@here.*stop it"):
        await site.imported()
    async with site.restored() as log:  # it was killed, and the clock set back by an hour
        await log.pool.execute("UPDATE leases SET expires_at = expires_at + interval '1 hour'")
    await site.imported()


async def test_a_file_of_another_log_is_refused(site: Site) -> None:
    await grow(site.log, 2)
    await site.export()
    with pytest.raises(FileOfAnotherLog, match="holds log counters, not log orders"):
        await site.imported("orders")
    with pytest.raises(FileIsWhole, match="up to event 2"):
        await site.export()
    site.file.write_bytes(site.file.read_bytes()[:-1])
    with pytest.raises(FileOfAnotherLog, match="log counters, not log orders"):
        await site.export("orders")
    await identify(site.log.pool, "mine", "")
    with pytest.raises(FileOfAnotherLog, match="another installation"):
        await site.export()


async def test_a_log_of_another_name_is_not_exported(site: Site) -> None:
    await grow(site.log, 2)
    await identify(site.log.pool, "mine", "", LOG)
    with pytest.raises(NotThatLog, match="holds log counters, not orders"):
        await site.export("orders")
    assert not site.file.exists()
    await site.export()


async def test_a_log_that_has_lost_events_is_told(site: Site) -> None:
    """At its end, too, where there is nothing more to be read."""
    await grow(site.log, 30)
    for gone in ("position = 30", "position = 11"):
        await tamper(site.log, f"DELETE FROM events WHERE {gone}")
        async with asyncio.timeout(60):
            with pytest.raises(Unavailable, match=f"has no event {gone.split()[-1]};"):
                await site.export()


async def test_two_exports_do_not_write_one_file(site: Site) -> None:
    await grow(site.log, 2)
    with site.file.open("x+b") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(FileBusy, match=r"Another export is writing .*counters.twinlog"):
            await site.export()
    assert (await site.export()).events == 2


async def test_a_file_of_another_history_is_not_continued(site: Site) -> None:
    await grow(site.log, 2)
    await site.export()
    site.file.write_bytes(site.file.read_bytes()[:-1])
    await site.log.begin_era()
    with pytest.raises(FileOfAnotherLog, match="another history"):
        await site.export()


async def test_a_service_does_not_start_on_half_a_log(site: Site) -> None:
    async with site.restored() as log:
        await log.pool.execute("INSERT INTO log_imports (file_id, position) VALUES (gen_random_uuid(), 7)")
        with pytest.raises(ImportUnfinished, match=r"up to event 7.*twinlog import"):
            await identify(log.pool, "mine", "")


async def test_a_database_that_lets_nobody_in_is_told_and_not_waited_for(site: Site, nats_url: str) -> None:
    """A service waits for its database; somebody who has called a command does not know that it waits."""
    await site.log.append(batch((counter("a"), 0, 1)))
    await site.export()
    asked = RepairOptions(LOG, site.postgres_url, nats_url, site.source)
    async with asyncio.timeout(60):
        for database, work in (
            (site.source, site.export),
            (site.source, partial(repair, asked)),
            (site.target, site.imported),
        ):
            await servers.execute(site.postgres_url, f'ALTER DATABASE "{database}" ALLOW_CONNECTIONS false')
            with pytest.raises(Unavailable, match="not currently accepting connections"):
                await work()


async def test_a_neighbor_that_this_user_may_not_enter_is_nobodys_business(site: Site) -> None:
    url = await servers.new_user(site.postgres_url, servers.unique())
    options = Options(LOG, site.file, url, site.source)
    async with servers.empty_database(site.postgres_url) as neighbor:
        role = urlsplit(url).username
        await servers.execute(
            site.postgres_url,
            f'REVOKE CONNECT ON DATABASE "{neighbor}" FROM public; GRANT pg_read_all_data TO "{role}"',
        )
        assert (await export_log(options)).events == 0
        with pytest.raises(WrongSetting, match="permission denied for database"):
            await export_log(options._replace(database=""))


async def test_what_is_no_file_of_a_log_is_refused(site: Site) -> None:
    with pytest.raises(NoSuchFile, match="No such file"):
        await site.imported()
    for data in (b"", b"PK\3\4 and more", zstandard.compress(b"something else")):
        site.file.write_bytes(data)
        with pytest.raises((NotALogFile, LogFileDamaged)):
            await site.imported()
        if data:
            with pytest.raises(NotALogFile, match="no file of a log"):
                await site.export()
            assert site.file.read_bytes() == data, "it may be precious to somebody"


async def test_without_the_extra_the_command_names_it(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "zstandard", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'twinlog\[archive\]'"):
        await site.export()


def test_a_url_is_no_file(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("export", "import"):
        with pytest.raises(SystemExit):
            main(
                [command, "orders", "s3://backups/orders.twinlog", "--postgres-url", "postgresql://127.0.0.1"]
            )
        assert "s3://backups/orders.twinlog is a URL: give a path" in capsys.readouterr().err, command
