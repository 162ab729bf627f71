"""A stream that begins where the archive of its log ends: its relay trims it, and makes it again from there."""

from __future__ import annotations

import pytest

from tests.cursor.consumers import PolicyKind
from tests.cursor.test_cursor import running as following
from tests.files.test_archive import LATER
from tests.kernel.batches import grow
from tests.twin.relaying import mirrored, running
from tests.waiting import until
from twinlog.log.ports import Handled
from twinlog.log.repair import difference
from twinlog.log.twin import TwinMissing
from twinlog.log.wire import to_wire
from twinlog.postgres import archiving
from twinlog.postgres.archiving import Rule, archive
from twinlog.postgres.identity import identify
from twinlog.postgres.named_queries import QUERIES
from twinlog.service.archive import ArchiveOptions, Stream, archive_log
from twinlog.testing import MemoryLog
from twinlog.testing.internals import Cursor, JetStreamTwin, NatsClient, Relay, open_log


async def test_a_stream_is_trimmed_and_made_again_from_there(
    postgres_url: str, database: str, nats: NatsClient, stream: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archiving, "_PAUSE_SECONDS", 0.0)
    async with open_log(postgres_url, database, stream) as log:
        twin = JetStreamTwin(nats, stream)
        events = list(await grow(log, 25))
        relay = Relay(log, twin)

        async def begins(first: int) -> bool:
            try:
                state = await twin.state()
            except TwinMissing:  # until the relay looks again
                return False
            return (state.first, state.last, state.holes) == (first, await log.head(), 0)

        async with running(relay):
            await mirrored(log, twin)
            own = await identify(log.pool, "mine", "")
            rule = Rule(LATER, ["counter"], 10)
            await archive(log, own, "memory://trim", rule, lambda _line: None)
            [[upto]] = await log.pool.fetch(QUERIES["trim"], 24)
            assert upto == 20, "never beyond the archive"
            await until(lambda: begins(21))
            events += await grow(log, 1)
            await until(lambda: begins(21))
            assert (await difference(log, twin)).damaged == "", "nothing to repair"
            own_log = MemoryLog("own")
            own_log.handled[f"tests.{stream}"] = Handled(20, events[19].event_id)  # and its message is gone
            own_log.checkpoints[f"tests.{stream}"] = 20
            async with PolicyKind(stream, own_log).replica() as handler, following(Cursor(twin, handler)):
                await until(lambda: own_log.checkpoints[f"tests.{stream}"] == 26)

            await twin.delete()
            await until(lambda: begins(21))
            assert await twin.message(21) == to_wire(events[20])

            late = MemoryLog("late")
            late.checkpoints[f"tests.{stream}"] = 7
            async with PolicyKind(stream, late).replica() as handler:
                cursor = Cursor(twin, handler)
                async with following(cursor):
                    await until(lambda: "events 8 to 20 are gone" in str(cursor.problem))
                    asked = ArchiveOptions(stream, "memory://trim", LATER, postgres_url, database)
                    await archive_log(asked._replace(stream=Stream.WHOLE), lambda _line: None)
                    await until(lambda: late.checkpoints[f"tests.{stream}"] == 26)
            assert await begins(1)
            assert [await twin.message(n) for n in (1, 15, 26)] == [
                to_wire(events[n - 1]) for n in (1, 15, 26)
            ]
            assert relay.problem is None
