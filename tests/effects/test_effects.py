"""Effects over memory: at least once, in order within a key; and whose fault a failure is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from typing import Any

import pytest
from google.protobuf.wrappers_pb2 import Int64Value, StringValue

from tests.dead_letters.journal import OPERATOR, Source, dead_lettering, journal, positions
from tests.effects.provider import Refused, Server, effects
from tests.virtual_time import in_virtual_time
from twinlog import Attempt, Effects, Recorded, Schema, Unavailable, Writer
from twinlog.consume import ConsumerWrapper, Progress, calls
from twinlog.consume.calls import ProviderDown
from twinlog.consume.dead_lettering import DeadLettering
from twinlog.consume.effects import EffectConsumer
from twinlog.log.repair import caused_by
from twinlog.testing import MemoryLog
from twinlog.testing.internals import CheckpointMoved, RandomIds, SystemClock


@asynccontextmanager
async def replica(table: Effects, log: MemoryLog) -> AsyncIterator[DeadLettering]:
    """A process's effects over its own writer."""
    async with Writer(log, schema=Schema(), clock=SystemClock(), ids=RandomIds()) as writer:
        yield dead_lettering(EffectConsumer(table, writer, log, Schema()), log)


async def test_answers_are_commands_in_the_transaction_that_moves_the_checkpoint() -> None:
    source, server, log = Source(), Server(), MemoryLog("own")
    async with replica(effects(server), log) as handler:
        assert await handler.handle(source.add("a:1", "b:1", "a:2"), 0) == 3
    assert (journal(log, "a"), journal(log, "b")) == ([1, 2], [1])
    assert log.checkpoints == {"tests.mail.source": 3}
    caused = [event.metadata for event in log.events]
    assert [metadata.causation_id for metadata in caused] == ["source/1", "source/2", "source/3"]
    assert {metadata.actor for metadata in caused} == {"tests.mail"}
    assert {caused_by(event)[0] for event in log.events} == {*log.checkpoints}  # what a repair goes by


async def test_an_effect_without_an_answer_moves_the_checkpoint_too() -> None:
    source, log, seen = Source(), MemoryLog("own"), list[str]()

    async def note(event: StringValue, attempt: Attempt) -> None:
        seen.append(event.value)

    table = Effects(log="source", actor="tests", name="notes", rules={StringValue: note})
    async with replica(table, log) as handler:
        await handler.handle(source.add("a:1"), 0)
    assert (seen, log.checkpoints) == (["a:1"], {"tests.notes.source": 1})


async def test_a_key_keeps_its_order_while_others_overtake_it_within_the_bound() -> None:
    source, server, log = Source(), Server(), MemoryLog("own")
    async with replica(effects(server, concurrency=3), log) as handler:
        texts = [f"{key}:{number}" for number in range(1, 6) for key in "abcdefgh"]
        await handler.handle(source.add(*texts), 0)
    assert server.most_open == 3
    for key in "abcdefgh":
        assert server.texts(key) == [f"{key}:{number}" for number in range(1, 6)]
        assert journal(log, key) == [1, 2, 3, 4, 5]
    assert len(server.asked) == len(texts)


async def test_the_key_of_an_event_is_the_same_in_every_try_replica_and_life() -> None:
    source, server, log = Source(), Server(), MemoryLog("own")
    keys: dict[str, set[str]] = {}

    async def fails_once(event: StringValue, attempt: Attempt) -> None:
        keys.setdefault(event.value, set()).add(attempt.key)
        if attempt.number == 1:
            raise Refused

    table = effects(server)
    table = Effects("source", "tests", "mail", {StringValue: fails_once}, first_wait=timedelta())
    events = source.add("a:1", "b:1")
    for _ in range(2):
        async with replica(table, log) as handler:
            log.checkpoints.clear()
            await handler.handle(events, 0)
    assert [len(found) for found in keys.values()] == [1, 1]
    assert keys["a:1"] != keys["b:1"]


async def test_a_failing_key_is_set_aside_with_those_behind_it_and_no_other_is_called_twice() -> None:
    source, server, log = Source(), Server(), MemoryLog("own")
    server.refuses = {"a:2"}
    async with replica(effects(server), log) as handler:
        events = source.add("a:1", "b:1", "a:2", "b:2", "a:3", "c:1")
        assert await handler.handle(events, 0) == 6
        assert await handler.handle(source.add("a:4", "b:3"), 6) == 8
        dead = await handler.dead_letters()
        first = dead.first("a")
    assert positions(dead) == {"a": [3, 5, 7]}
    assert first and (first.error_type, first.error, first.attempts) == ("Refused", "a:2", 3)
    assert (journal(log, "a"), journal(log, "b"), journal(log, "c")) == ([1], [1, 2, 3], [1])
    assert sorted(server.asked) == ["a:1", "a:2", "a:2", "a:2", "b:1", "b:2", "b:3", "c:1"]


async def test_a_replay_calls_again_under_the_same_key_and_in_order() -> None:
    source, server, log = Source(), Server(), MemoryLog("own")
    server.refuses = {"a:1"}
    async with replica(effects(server), log) as handler:
        first, second = source.add("a:1", "a:2")
        await handler.handle([first, second], 0)
        with pytest.raises(Exception, match="a:1"):
            await handler.replay(first, OPERATOR)
        server.refuses.clear()
        await handler.replay(first, OPERATOR)
        await handler.replay(second, OPERATOR)
        assert handler.count == 0
    assert (journal(log, "a"), server.texts("a")) == ([1, 2], ["a:1", "a:2"])


@pytest.mark.parametrize("events", [1, 3, 50])
async def test_a_provider_that_is_down_is_asked_again_and_parks_nothing(events: int) -> None:
    source, server, log = Source(), Server(), MemoryLog("own")
    batch = source.add(*[f"{number}:1" for number in range(events)])
    server.down = True
    async with replica(effects(server), log) as handler:
        for _ in range(20):
            before = len(server.asked)
            with pytest.raises(ProviderDown, match="no route to the mail server"):
                await handler.handle(batch, 0)
            assert len(server.asked) - before <= 16
        assert positions(await handler.dead_letters()) == {}
        server.down = False
        assert await handler.handle(batch, 0) == events
    assert all(journal(log, str(number)) == [1] for number in range(events))


async def test_what_fails_for_a_moment_after_others_were_answered_is_tried_again_at_once() -> None:
    answered, failing = asyncio.Event(), ["b:1"]

    class Stumbling(Server):
        async def send(self, text: str, attempt: Attempt) -> None:
            if text in failing:
                await answered.wait()
                failing.remove(text)
                raise Unavailable("for a moment")
            await super().send(text, attempt)
            answered.set()

    source, log = Source(), MemoryLog("own")
    async with replica(effects(Stumbling()), log) as handler:
        assert await handler.handle(source.add("a:1", "b:1"), 0) == 2


@pytest.mark.parametrize(("beside", "parked"), [(Unavailable(), {}), (Refused("b:1"), {"a": [1]})])
async def test_several_errors_in_one_are_an_outage_where_each_is(
    beside: Exception, parked: dict[str, list[int]]
) -> None:
    """As a call that asks two places in a TaskGroup has them."""

    async def ask_two(_event: StringValue, _attempt: Attempt) -> None:
        raise ExceptionGroup("two", [ConnectionError("no route"), ExceptionGroup("more", [beside])])

    rules: dict[Any, Any] = {StringValue: ask_two}
    table = Effects("source", "tests", "mail", rules, first_wait=timedelta(), longest_wait=timedelta())
    source, log = Source(), MemoryLog("own")
    async with replica(table, log) as handler:
        with suppress(ProviderDown):
            await handler.handle(source.add("a:1"), 0)
        assert positions(await handler.dead_letters()) == parked


async def test_while_a_provider_is_known_to_be_down_a_new_event_costs_one_call_a_round() -> None:
    source, server, log = Source(), Server(), MemoryLog("own")
    server.down = True
    async with replica(effects(server), log) as handler:
        [first] = source.add("a:1")
        with pytest.raises(ProviderDown):
            await handler.handle([first], 0)
        with pytest.raises(ProviderDown):
            await handler.handle([first, *source.add("b:1")], 0)
    assert server.asked.count("b:1") == 1


async def test_a_provider_that_goes_down_under_way_parks_nothing_and_repeats_no_answered_call() -> None:
    source, server, log = Source(), Server(), MemoryLog("own")
    batch = source.add(*[f"{number}:1" for number in range(40)])

    async def goes_down() -> None:
        while len(server.sent) < 10:
            await asyncio.sleep(0)
        server.down = True

    async with replica(effects(server, concurrency=4), log) as handler:
        outage = asyncio.create_task(goes_down())
        for _ in range(10):
            with pytest.raises(ProviderDown):
                await handler.handle(batch, 0)
        await outage
        assert positions(await handler.dead_letters()) == {}
        answered = set(server.sent.values())
        server.down = False
        await handler.handle(batch, 0)
    assert all(server.asked.count(text) == 1 for text in answered)
    assert all(journal(log, str(number)) == [1] for number in range(40))


@in_virtual_time
async def test_a_call_that_alone_hangs_is_set_aside_once_others_are_answered_after_it() -> None:
    source, server, log = Source(), Server(), MemoryLog("own")
    server.hangs = {"a:1"}
    async with replica(effects(server, timeout=timedelta(milliseconds=20)), log) as handler:
        events = [*source.add("a:1")]
        with pytest.raises(ProviderDown, match="TimeoutError"):
            await handler.handle(events, 0)
        events += source.add("b:1", "a:2")
        assert await handler.handle(events, 0) == 3
        dead = await handler.dead_letters()
        first = dead.first("a")
    assert positions(dead) == {"a": [1, 3]}
    assert first and first.error_type == "TimeoutError"
    assert journal(log, "b") == [1]


@in_virtual_time
async def test_a_call_that_hangs_beside_answered_ones_does_not_hold_them_up_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source, server, log = Source(), Server(), MemoryLog("own")
    server.hangs = {"a:1"}
    async with replica(effects(server, timeout=timedelta(milliseconds=20)), log) as handler:
        events = source.add("a:1", "b:1")
        with pytest.raises(ProviderDown):
            await handler.handle(events, 0)
        monkeypatch.setattr(calls, "ALONE_SECONDS", 0.0)
        assert await handler.handle(events, 0) == 2
        assert positions(await handler.dead_letters()) == {"a": [1]}
    assert (journal(log, "b"), server.asked.count("b:1")) == ([1], 1)


async def test_an_error_of_our_own_kind_can_be_called_transient() -> None:
    source, server, log = Source(), Server(), MemoryLog("own")
    server.refuses = {"a:1"}
    async with replica(effects(server, transient=(Refused,)), log) as handler:
        with pytest.raises(ProviderDown, match="Refused"):
            await handler.handle(source.add("a:1"), 0)
        assert positions(await handler.dead_letters()) == {}


async def test_a_command_that_its_aggregate_refuses_sets_the_event_aside_after_one_call() -> None:
    source, server, log = Source(), Server(), MemoryLog("own")
    async with replica(effects(server), log) as handler:

        async def nonsense(event: StringValue, attempt: Attempt) -> Any:
            server.asked.append(event.value)
            return "no command"

        broken = Effects("source", "tests", "mail", {StringValue: nonsense}, first_wait=timedelta())
        async with replica(broken, log) as other:
            await other.handle(source.add("a:1"), 0)
            assert positions(await other.dead_letters()) == {"a": [1]}
        assert await handler.checkpoint() == 1
    assert server.asked == ["a:1"]


async def test_an_answer_outlives_an_outage_of_the_store() -> None:
    source, server, log = Source(), Server(), MemoryLog("own")
    outages: list[Exception] = [Unavailable("no store"), Unavailable("no store")]

    class Away(ConsumerWrapper):
        """Loses the commit, not the calls."""

        async def apply(self, events: Sequence[Recorded], progress: Progress) -> int:
            if outages:
                advance = progress.advance
                assert advance
                log.checkpoints["tests.mail.source"] = 99
                try:
                    await super().apply(events, progress)
                except CheckpointMoved as moved:
                    del log.checkpoints["tests.mail.source"]
                    raise outages.pop() from moved
            return await super().apply(events, progress)

    async with Writer(log, schema=Schema(), clock=SystemClock(), ids=RandomIds()) as writer:
        handler = dead_lettering(Away(EffectConsumer(effects(server), writer, log, Schema())), log)
        events = source.add("a:1", "b:1")
        for _ in range(2):
            with pytest.raises(Unavailable):
                await handler.handle(events, 0)
        await handler.handle(events, 0)
    assert (server.asked, journal(log, "a")) == (["a:1", "b:1"], [1])


async def test_of_two_replicas_that_call_one_commits() -> None:
    source, server, log = Source(), Server(), MemoryLog("own")
    server.works.clear()
    events = source.add("a:1", "b:1")
    async with replica(effects(server), log) as one, replica(effects(server), log) as two:
        both = asyncio.gather(one.handle(events, 0), two.handle(events, 0), return_exceptions=True)
        while len(server.asked) < 4:
            await asyncio.sleep(0)
        server.works.set()
        results = await both
        assert sorted(map(str, map(type, results))) == sorted(map(str, [int, CheckpointMoved]))
    assert (journal(log, "a"), journal(log, "b"), len(server.sent)) == ([1], [1], 2)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"name": "Two words"}, "lower case"),
        ({"rules": {}}, "no rule"),
        ({"concurrency": 0}, "concurrency"),
        ({"timeout": timedelta()}, "timeout"),
        ({"routing_key": "x", "rules": {Int64Value: None}}, "has no routing key"),
    ],
)
def test_a_table_that_cannot_work_is_refused_by_name(wrong: dict[str, Any], said: str) -> None:
    async def nothing(_event: StringValue, _attempt: Attempt) -> None:
        pass

    right: dict[str, Any] = {"name": "mail", "rules": {StringValue: nothing}}
    with pytest.raises(ValueError, match=said):
        Effects(log="source", actor="tests", **{**right, **wrong})
