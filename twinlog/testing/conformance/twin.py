"""What every twin does."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress

import pytest
from google.protobuf.wrappers_pb2 import StringValue

from twinlog.log.twin import Counting, Peeking, Twin, TwinMissing, TwinState, WrongLastSequence
from twinlog.log.wire import to_wire
from twinlog.testing.conformance.batches import recorded
from twinlog.testing.conformance.damage import Damage, take
from twinlog.testing.conformance.loss import Loss
from twinlog.testing.conformance.messages import MUSIC, PLAY, Borrowed, Returned


async def contents(twin: Twin) -> Sequence[bytes | None]:
    state = await twin.state()
    return [await twin.message(sequence) for sequence in range(state.first, state.last + 1)]


class _Stream:
    async def test_there_is_none_before_it_is_created(self, twin: Twin) -> None:
        for attempt in (
            twin.state(),
            twin.publish(recorded(twin.name, 1)),
            twin.publish(recorded(twin.name, 3)),
        ):
            with pytest.raises(TwinMissing, match=twin.name):
                await attempt
        with pytest.raises(TwinMissing):
            async with twin.deliver(0):
                pass

    @pytest.mark.parametrize("first", [1, 42])
    async def test_it_begins_where_it_is_told_to(self, twin: Twin, first: int) -> None:
        await twin.create(first)
        assert await twin.state() == TwinState(first, first - 1, 0)

        await twin.publish(recorded(twin.name, 2, after=first - 1))
        assert await twin.state() == TwinState(first, first + 1, 0)

    async def test_creating_it_again_changes_nothing(self, twin: Twin) -> None:
        await twin.create(1)
        await twin.publish(recorded(twin.name, 2))

        await twin.create(1)
        await twin.create(7)

        assert await twin.state() == TwinState(1, 2, 0)

    async def test_deleting_it_twice_is_the_same_as_once(self, twin: Twin) -> None:
        await twin.create(1)
        await twin.delete()
        await twin.delete()
        with pytest.raises(TwinMissing):
            await twin.state()

    async def test_what_is_gone_shows(self, twin: Twin, damage: Damage) -> None:
        await twin.create(1)
        await twin.publish(recorded(twin.name, 10))

        await damage.remove(4)
        await damage.remove(10)
        assert await twin.state() == TwinState(1, 10, 2)
        assert await twin.message(4) is None

        await damage.purge(keep=3)
        assert await twin.state() == TwinState(7, 10, 1)

        await damage.purge()
        assert await twin.state() == TwinState(11, 10, 0)


class _Publish:
    @pytest.mark.parametrize("count", [1, 2, 500, 1234])
    async def test_an_event_gets_its_position_as_sequence(self, twin: Twin, count: int) -> None:
        events = recorded(twin.name, count + 1)
        await twin.create(1)

        await twin.publish(events[:count])
        await twin.publish(events[count:])

        assert await twin.state() == TwinState(1, count + 1, 0)
        async with twin.deliver(0) as delivery:
            assert await take(delivery, count + 1) == events
        assert await twin.message(count) == to_wire(events[count - 1])

    @pytest.mark.parametrize("after", [0, 1, 3, 4])
    @pytest.mark.parametrize("count", [1, 2, 500])
    async def test_what_does_not_follow_is_refused_whole(self, twin: Twin, after: int, count: int) -> None:
        await twin.create(1)
        await twin.publish(recorded(twin.name, 2))
        before = await contents(twin)

        with pytest.raises(WrongLastSequence):
            await twin.publish(recorded(twin.name, count, after=after))

        assert await contents(twin) == before
        await twin.publish(recorded(twin.name, count, after=2))
        assert (await twin.state()).last == 2 + count

    async def test_of_several_at_once_one_succeeds(self, damage: Damage) -> None:
        twins = [damage.twin() for _ in range(8)]
        await twins[0].create(1)
        events = recorded(twins[0].name, 50)

        results = await asyncio.gather(*(twin.publish(events) for twin in twins), return_exceptions=True)

        assert results.count(None) == 1
        assert sum(isinstance(result, WrongLastSequence) for result in results) == 7
        assert await contents(twins[0]) == [to_wire(event) for event in events]

    async def test_rivals_that_both_go_on_from_their_own_events_store_each_event_once(
        self, damage: Damage
    ) -> None:
        one, two = damage.twin(), damage.twin()
        await one.create(1)
        events = recorded(one.name, 40)
        await one.publish(events[:10])
        await two.publish(events[10:20])
        with suppress(WrongLastSequence):
            await one.publish(events[10:30])
        with suppress(WrongLastSequence):
            await two.publish(events[20:40])
        for twin in (one, two):
            last = (await twin.state()).last
            if last < 40:
                await twin.publish(events[last:])
        assert await contents(one) == [to_wire(event) for event in events]


class _Delivery:
    async def test_it_starts_after_a_position(self, twin: Twin) -> None:
        events = recorded(twin.name, 1500)
        await twin.create(1)
        await twin.publish(events)

        for after in (0, 1, 777, 1499):
            async with twin.deliver(after) as delivery:
                assert await take(delivery, 1500 - after, limit=200) == events[after:]

    async def test_more_than_any_buffer_holds_comes_whole(self, twin: Twin) -> None:
        await twin.create(1)
        async with twin.deliver(0) as delivery:
            for start in range(0, 6000, 500):
                await twin.publish(recorded(twin.name, 500, after=start))
            assert await take(delivery, 6000) == recorded(twin.name, 6000)

    async def test_new_events_are_pushed(self, twin: Twin) -> None:
        await twin.create(1)
        async with twin.deliver(0) as delivery:
            for position in range(5):
                (event,) = recorded(twin.name, 1, after=position)
                waiting = asyncio.create_task(take(delivery, 1))
                await twin.publish([event])
                assert await waiting == [event]

    async def test_only_the_wanted_types_come(self, twin: Twin) -> None:
        numbers = recorded(twin.name, 40)
        texts = recorded(twin.name, 40, message=StringValue(value="x"))
        events = [texts[n] if n % 3 else numbers[n] for n in range(40)]
        await twin.create(1)
        await twin.publish(events)

        async with twin.deliver(4, ["Int64Value"]) as delivery:
            assert await take(delivery, 12) == [event for event in numbers[4:] if event in events]
        async with twin.deliver(4, ["Int64Value", "StringValue"]) as delivery:
            assert await take(delivery, 36) == events[4:]

    async def test_only_the_wanted_tag_comes(self, twin: Twin) -> None:
        play = recorded(twin.name, 40, message=Borrowed(shelf=PLAY))
        borrowed = recorded(twin.name, 40, message=Borrowed(shelf=MUSIC))
        returned = recorded(twin.name, 40, message=Returned(shelf=MUSIC))
        untagged = recorded(twin.name, 40)
        events = [(play, borrowed, untagged, returned)[n % 4][n] for n in range(40)]
        await twin.create(1)
        await twin.publish(events)

        wanted, routing_key = events[1::2], "SHELF_MUSIC"
        async with twin.deliver(0, routing_key=routing_key) as delivery:
            assert await take(delivery, 20) == wanted
        async with twin.deliver(4, ["Borrowed", "Returned"], routing_key) as delivery:
            assert await take(delivery, 18) == wanted[2:]
        async with twin.deliver(4, ["Returned"], routing_key) as delivery:
            assert await take(delivery, 9) == events[7::4]

    async def test_however_many_of_the_tag_are_of_other_types(self, twin: Twin) -> None:
        others = recorded(twin.name, 5_000, message=Borrowed(shelf=MUSIC))
        (wanted,) = recorded(twin.name, 1, 5_000, message=Returned(shelf=MUSIC))
        await twin.create(1)
        await twin.publish([*others, wanted])

        async with twin.deliver(0, ["Returned"], "SHELF_MUSIC") as delivery:
            assert await take(delivery, 1) == [wanted]

    async def test_several_follow_at_once(self, damage: Damage) -> None:
        twin, other = damage.twin(), damage.twin()
        events = recorded(twin.name, 20)
        await twin.create(1)
        async with twin.deliver(0) as one, other.deliver(0) as two:
            await twin.publish(events)
            assert await take(one, 20) == await take(two, 20) == events

    async def test_a_stream_that_is_not_as_far_yet_is_waited_for(self, twin: Twin) -> None:
        """As while the relay copies a wiped stream anew: old events do not come a second time."""
        events = recorded(twin.name, 120)
        await twin.create(1)
        await twin.publish(events[:20])

        async with twin.deliver(100) as delivery, twin.deliver(100, ["Int64Value"]) as filtered:
            await twin.publish(events[20:])
            assert await take(delivery, 20) == events[100:]
            assert await take(filtered, 20) == events[100:]


class _Counting:
    async def test_it_counts_what_a_delivery_would_bring(self, twin: Twin) -> None:
        assert isinstance(twin, Counting)
        await twin.create(1)
        play = recorded(twin.name, 5, message=Borrowed(shelf=PLAY))
        music = recorded(twin.name, 4, 5, message=Returned(shelf=MUSIC))
        await twin.publish([*play, *music])
        wanted: Sequence[tuple[int, Sequence[str], str]] = [
            (0, (), ""),
            (2, ["Borrowed"], ""),
            (6, ["Borrowed", "Returned"], ""),
            (7, (), "SHELF_MUSIC"),
            (0, ["Borrowed"], "SHELF_MUSIC"),
            (9, (), ""),
        ]
        assert [await twin.ahead(*each) for each in wanted] == [9, 3, 3, 2, 0, 0]
        assert isinstance(twin, Peeking)
        found = [await twin.next_ahead(*each) for each in wanted]
        assert [event and event.position for event in found] == [1, 3, 7, 8, None, None]

    async def test_there_is_nothing_to_count_before_it_is_created(self, twin: Twin) -> None:
        assert isinstance(twin, Counting)
        with pytest.raises(TwinMissing):
            await twin.ahead(0)
        assert isinstance(twin, Peeking)
        with pytest.raises(TwinMissing):
            await twin.next_ahead(0)


class _Poke:
    async def test_it_wakes_whoever_waits(self, damage: Damage) -> None:
        one, two = damage.twin(), damage.twin()
        await two.notified(0)
        waiting = asyncio.create_task(two.notified(60))
        async with asyncio.timeout(30):
            while not waiting.done():
                await one.notify()
                await asyncio.wait([waiting], timeout=0.1)

    async def test_waiting_ends_without_one(self, twin: Twin) -> None:
        async with asyncio.timeout(30):
            await twin.notified(0.01)


@pytest.mark.asyncio
class TwinConformance(_Stream, _Publish, _Delivery, _Counting, Loss, _Poke):
    """The suite of an adapter of the twin: derive a test class with two fixtures.

    ``damage`` gives a :class:`Damage` of a stream that is not there yet, ``twin`` the stream: ``damage.twin()``.
    """
