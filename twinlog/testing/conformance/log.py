"""What every log does."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from twinlog.log.ports import (
    Appended,
    Batch,
    CheckpointAdvance,
    Conflict,
    Log,
    NewReply,
    ReadRequest,
    Snapshot,
    StoredReply,
    StreamSlice,
    Timer,
    TimerChange,
)
from twinlog.log.texts import Unstorable
from twinlog.testing.conformance.batches import (
    METADATA,
    NOW,
    A,
    B,
    C,
    append,
    batch,
    conflict,
    counter,
    grow,
    new_event,
)
from twinlog.testing.conformance.chain import ChainOfLog


def reply(request_id: str, events: int = 1) -> NewReply:
    return NewReply(request_id, b"fingerprint", b"reply", events)


def stored(request_id: str, position: int = 1) -> StoredReply:
    return StoredReply(request_id, b"fingerprint", b"reply", position)


class _Append:
    async def test_positions_run_on_over_batches_and_streams(self, log: Log) -> None:
        assert await log.append(batch((A, 0, 2), (B, 0, 1))) == Appended(1)
        assert await log.append(batch((B, 1, 1), (A, 2, 2))) == Appended(4)

        events = await log.read(0, 100)
        assert [event.position for event in events] == [1, 2, 3, 4, 5, 6]
        assert [(event.stream, event.version) for event in events] == [
            (A, 1),
            (A, 2),
            (B, 1),
            (B, 2),
            (A, 3),
            (A, 4),
        ]

    async def test_an_event_is_read_as_it_was_written(self, log: Log) -> None:
        event = new_event(A, 1)._replace(payload=bytes(range(256)))
        await append(log, Batch(NOW, {A: 0}, [event]))

        (read,) = await log.read(0, 1)

        assert read == (log.name, 1, *event, NOW)
        assert read.metadata == METADATA

    async def test_a_batch_without_events_gives_the_next_position(self, log: Log) -> None:
        await grow(log, 2)
        assert await log.append(batch(advances=[CheckpointAdvance("c", 0, 5)])) == Appended(3)
        assert await log.head() == 2

    async def test_concurrent_appends_take_turns(self, log: Log) -> None:
        results = await asyncio.gather(*(log.append(batch((counter(str(n)), 0, 3))) for n in range(40)))

        assert sorted(result.first for result in results if isinstance(result, Appended)) == list(
            range(1, 121, 3)
        )
        for result, n in zip(results, range(40), strict=True):
            assert isinstance(result, Appended)
            events = await log.read(result.first - 1, 3)
            assert {event.stream for event in events} == {counter(str(n))}

    async def test_of_those_who_expect_the_same_version_one_wins(self, log: Log) -> None:
        results = await asyncio.gather(*(log.append(batch((A, 0, 1))) for _ in range(20)))

        assert [result for result in results if isinstance(result, Appended)] == [Appended(1)]
        assert [conflict(r).streams for r in results if not isinstance(r, Appended)] == [(A,)] * 19
        assert await log.head() == 1


class _Texts:
    @pytest.mark.parametrize("odd", ["a\0b", "\ud800"])
    async def test_a_text_that_no_log_keeps_is_refused(self, log: Log, odd: str) -> None:
        event, stream = new_event(A, 1), counter(odd)
        refused = [
            batch((stream, 0, 1)),
            batch((A, 0, 1), reads={stream: 0}),
            batch((A, 0, 1), replies=[reply(odd)]),
            *(
                Batch(NOW, {A: 0}, [changed])
                for changed in (
                    event._replace(partition_key=odd),
                    event._replace(routing_key=odd),
                    event._replace(metadata=METADATA._replace(actor=odd)),
                    event._replace(metadata=METADATA._replace(extra={"tenant": odd})),
                )
            ),
        ]
        for each in refused:
            with pytest.raises(Unstorable):
                await log.append(each)
        with pytest.raises(Unstorable):
            await log.load([ReadRequest(stream)])
        assert await log.append(batch((A, 0, 1))) == Appended(1)


class _Conflict:
    async def test_a_stream_that_has_grown(self, log: Log) -> None:
        await append(log, batch((A, 0, 3), (B, 0, 1)))

        assert conflict(await log.append(batch((A, 1, 1), (B, 1, 1)))) == Conflict((A,))

    async def test_a_stream_that_was_only_read(self, log: Log) -> None:
        await append(log, batch((A, 0, 1)))

        assert conflict(await log.append(batch((B, 0, 1), reads={A: 0}))) == Conflict((A,))

    async def test_a_stream_that_is_not_as_far(self, log: Log) -> None:
        """As after the database was set back under a running process: versions have no gaps either."""
        await append(log, batch((A, 0, 1)))

        assert conflict(await log.append(batch((A, 3, 1)))) == Conflict((A,))
        assert conflict(await log.append(batch(reads={B: 1}))) == Conflict((B,))

    async def test_a_request_that_was_answered(self, log: Log) -> None:
        await grow(log, 4)
        await append(log, batch((B, 0, 3), replies=[reply("first", 2), reply("second", 3)]))

        result = conflict(await log.append(batch((C, 0, 1), replies=[reply("new"), reply("first")])))

        assert result == Conflict(replies=(stored("first", 6),))

    async def test_a_checkpoint_that_was_moved(self, log: Log) -> None:
        await append(
            log, batch(advances=[CheckpointAdvance("moved", 0, 7), CheckpointAdvance("other", 0, 1)])
        )

        result = await log.append(
            batch((A, 0, 1), advances=[CheckpointAdvance("moved", 6, 8), CheckpointAdvance("other", 1, 2)])
        )

        assert conflict(result) == Conflict(checkpoints={"moved": 7})

    async def test_a_checkpoint_that_was_never_set(self, log: Log) -> None:
        result = await log.append(batch(advances=[CheckpointAdvance("new", 3, 8)]))

        assert conflict(result) == Conflict(checkpoints={"new": 0})

    async def test_all_of_them_are_told_at_once(self, log: Log) -> None:
        await append(
            log, batch((A, 0, 1), (B, 0, 1), replies=[reply("r")], advances=[CheckpointAdvance("m", 0, 1)])
        )

        result = conflict(
            await log.append(
                batch(
                    (A, 0, 1),
                    (C, 0, 1),
                    reads={B: 0},
                    replies=[reply("s"), reply("r")],
                    advances=[CheckpointAdvance("m", 0, 1)],
                )
            )
        )

        assert set(result.streams) == {A, B}
        assert result.replies == (stored("r"),)
        assert result.checkpoints == {"m": 1}

    @pytest.mark.parametrize("way", ["stream", "reply", "checkpoint"])
    async def test_nothing_is_committed(self, log: Log, way: str) -> None:
        await append(log, batch((A, 0, 1), replies=[reply("r")], advances=[CheckpointAdvance("m", 0, 1)]))
        late = batch(
            (A, 0 if way == "stream" else 1, 1),
            (B, 0, 1),
            replies=[reply("new"), reply("r" if way == "reply" else "s")],
            advances=[
                CheckpointAdvance("n", 0, 9),
                CheckpointAdvance("m", 0 if way == "checkpoint" else 1, 9),
            ],
            timers=[TimerChange(B, 1, NOW)],
        )

        conflict(await log.append(late))

        assert await log.head() == 1
        assert len(await log.read(0, 10)) == 1
        assert await log.reply("new") is None
        assert (await log.checkpoint("n"), await log.checkpoint("m")) == (0, 1)
        assert await log.due(NOW, 10) == []
        assert await log.append(batch((C, 0, 1))) == Appended(2)


class _Read:
    async def test_an_empty_log(self, log: Log) -> None:
        assert await log.head() == 0
        assert await log.read(0, 10) == []

    async def test_pages_follow_each_other(self, log: Log) -> None:
        await grow(log, 25)
        pages = [await log.read(after, 10) for after in (0, 10, 20, 25)]
        assert [event.position for page in pages for event in page] == list(range(1, 26))
        assert [len(page) for page in pages] == [10, 10, 5, 0]


class _Load:
    async def test_histories_come_in_the_order_they_are_wanted_in(self, log: Log) -> None:
        await append(log, batch((A, 0, 2), (B, 0, 1)), batch((A, 2, 1)))

        histories = await log.load([ReadRequest(C), ReadRequest(B), ReadRequest(A)])

        assert [history.snapshot for history in histories] == [None] * 3
        assert [[event.version for event in history.events] for history in histories] == [[], [1], [1, 2, 3]]
        assert histories[2].events == [event for event in await log.read(0, 10) if event.stream == A]

    async def test_only_what_comes_after(self, log: Log) -> None:
        await append(log, batch((A, 0, 5), (B, 0, 5)))

        histories = await log.load([ReadRequest(A, 3), ReadRequest(B, 5)])

        assert [[event.version for event in history.events] for history in histories] == [[4, 5], []]

    async def test_a_snapshot_stands_in_for_older_events(self, log: Log) -> None:
        await grow(log, 5)
        snapshot = Snapshot(A, 3, 3, "schema", b"state")
        await log.save([snapshot])

        ((kept, events),) = await log.load([ReadRequest(A, schema="schema")])

        assert kept == snapshot
        assert [event.version for event in events] == [4, 5]

    @pytest.mark.parametrize("want", [ReadRequest(A), ReadRequest(A, schema="newer schema")])
    async def test_a_snapshot_of_another_schema_is_ignored(self, log: Log, want: ReadRequest) -> None:
        await grow(log, 5)
        await log.save([Snapshot(A, 3, 3, "schema", b"state")])

        assert await log.load([want]) == [StreamSlice(None, await log.read(0, 5))]

    async def test_a_snapshot_is_ignored_by_whoever_knows_more(self, log: Log) -> None:
        await grow(log, 5)
        await log.save([Snapshot(A, 3, 3, "schema", b"state")])

        ((kept, events),) = await log.load([ReadRequest(A, after=4, schema="schema")])

        assert kept is None
        assert [event.version for event in events] == [5]


class _Snapshots:
    async def kept(self, log: Log, schema: str) -> Snapshot | None:
        return (await log.load([ReadRequest(A, schema=schema)]))[0].snapshot

    async def test_a_newer_one_replaces_an_older_one_and_never_the_other_way(self, log: Log) -> None:
        await grow(log, 9)
        old, new = Snapshot(A, 3, 3, "s", b"old"), Snapshot(A, 6, 6, "s", b"new")

        await log.save([old])
        await log.save([new])
        await log.save([old])

        assert await self.kept(log, "s") == new

    async def test_one_of_another_schema_is_replaced_whatever_its_version(self, log: Log) -> None:
        await grow(log, 9)
        stale, fresh = Snapshot(A, 6, 6, "stale", b""), Snapshot(A, 3, 3, "fresh", b"")

        await log.save([stale])
        await log.save([fresh])

        assert await self.kept(log, "stale") is None
        assert await self.kept(log, "fresh") == fresh


class _Replies:
    async def test_an_outcome_is_kept_with_the_position_of_its_effects(self, log: Log) -> None:
        await grow(log, 10)
        await append(log, batch((B, 0, 3), replies=[reply("none", 0), reply("two", 2)]))

        assert await log.reply("none") == stored("none", 10)
        assert await log.reply("two") == stored("two", 12)
        assert await log.reply("unknown") is None


class _Checkpoints:
    async def test_they_move_with_the_events(self, log: Log) -> None:
        assert await log.checkpoint("c") == 0
        await append(
            log,
            batch((A, 0, 1), advances=[CheckpointAdvance("c", 0, 3)]),
            batch(advances=[CheckpointAdvance("c", 3, 8)]),
        )
        assert await log.checkpoint("c") == 8

    async def test_of_two_replicas_one_moves_it(self, log: Log) -> None:
        advances = [
            batch((counter(str(n)), 0, 1), advances=[CheckpointAdvance("c", 0, 5)]) for n in range(10)
        ]

        results = await asyncio.gather(*(log.append(advance) for advance in advances))

        assert sum(isinstance(result, Appended) for result in results) == 1
        assert [conflict(r).checkpoints for r in results if not isinstance(r, Appended)] == [{"c": 5}] * 9
        assert await log.head() == 1


class _Timers:
    async def test_those_that_are_due_come_oldest_first(self, log: Log) -> None:
        due = [NOW + timedelta(seconds=seconds) for seconds in (2, 0, 1)]
        changes = [TimerChange(stream, 1, when) for stream, when in zip((A, B, C), due, strict=True)]
        await append(log, batch(timers=changes))

        assert await log.due(NOW + timedelta(seconds=1), 10) == [Timer(B, 1, due[1]), Timer(C, 1, due[2])]
        assert [timer.stream for timer in await log.due(NOW + timedelta(days=1), 2)] == [B, C]
        assert await log.due(NOW - timedelta(microseconds=1), 10) == []
        paged: list[Timer] = []
        after = None
        while page := await log.due(NOW + timedelta(days=1), 1, after):
            paged += page
            after = page[-1]
        assert paged == await log.due(NOW + timedelta(days=1), 10)

    async def test_a_stream_has_one_that_is_set_anew_and_cleared(self, log: Log) -> None:
        later = NOW + timedelta(seconds=5)
        await append(log, batch(timers=[TimerChange(A, 1, NOW), TimerChange(B, 1, NOW)]))

        await append(log, batch(timers=[TimerChange(A, 2, later), TimerChange(B, 2, None)]))
        assert await log.due(later, 10) == [Timer(A, 2, later)]

        await append(log, batch(timers=[TimerChange(A, 3, None), TimerChange(C, 1, None)]))
        assert await log.due(later, 10) == []


class _Exclusive:
    async def test_others_wait_until_the_block_ends(self, log: Log) -> None:
        async with log.exclusive() as session:
            other = asyncio.create_task(log.append(batch((A, 0, 1))))
            assert await session.load([ReadRequest(A)]) == [StreamSlice(None, [])]
            assert await session.append(batch((A, 0, 2))) == Appended(1)
            assert not other.done()

        assert conflict(await other) == Conflict((A,))
        assert await log.head() == 2

    async def test_conflicts_are_told_inside_too(self, log: Log) -> None:
        await append(log, batch((A, 0, 1), replies=[reply("r")]))

        async with log.exclusive() as session:
            result = await session.append(batch((A, 0, 1), replies=[reply("r")]))

        assert conflict(result) == Conflict((A,), (stored("r"),))
        assert await log.append(batch((A, 1, 1))) == Appended(2)


@pytest.mark.asyncio
class LogConformance(
    _Append,
    _Texts,
    _Conflict,
    _Read,
    _Load,
    _Snapshots,
    _Replies,
    _Checkpoints,
    _Timers,
    _Exclusive,
    ChainOfLog,
):
    """The suite of an adapter of the log: derive a test class, with a fixture ``log`` that gives an empty one."""
