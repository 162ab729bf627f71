"""Views that fail on an event, in memory and in Postgres."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, NamedTuple

import pytest
from google.protobuf.wrappers_pb2 import StringValue

from tests.dead_letters.journal import (
    CONSUMER,
    OPERATOR,
    Broken,
    Row,
    Source,
    dead_lettering,
    event,
    positions,
)
from twinlog import PostgresViews, Projection, Schema, StreamId, View, ViewStore
from twinlog.consume.dead_lettering import DeadLettering
from twinlog.consume.dead_letters import DeadLetterId, Discard, NotParked
from twinlog.log.ports import Conflict
from twinlog.postgres.view_writer import OtherColumns, OtherTables
from twinlog.testing import START, MemoryViews
from twinlog.testing.internals import (
    DEAD_LETTERS,
    AnyView,
    Batch,
    CheckpointAdvance,
    CheckpointMoved,
    open_log,
)

STREAM = StreamId(DEAD_LETTERS.name, CONSUMER)


@pytest.fixture(params=["memory", "postgres"])
async def store(request: pytest.FixtureRequest, postgres_url: str, database: str) -> AsyncIterator[ViewStore]:
    """Empty views of each kind."""
    if request.param == "memory":
        yield MemoryViews()
        return
    async with open_log(postgres_url, database, "views", "tests.dead_letters.sql") as log:
        yield PostgresViews(log, "tests.dead_letters.sql", {"journal": Row})


def projecting(source: Source, store: ViewStore, shared: str = "") -> DeadLettering:
    return dead_lettering(Projection(CONSUMER, [source.view(shared)], store, schema=Schema()), store.log)


async def written(source: Source, store: ViewStore, key: str) -> str:
    rows = await store.rows(source.view(), [key])
    return rows[key].written if key in rows else ""


async def test_the_other_keys_flow_and_the_key_keeps_its_order(store: ViewStore) -> None:
    source = Source()
    source.poison = {"a:2"}
    projection = projecting(source, store)
    assert await projection.handle(source.add("a:1", "b:1", "a:2", "b:2", "a:3"), 0) == 5
    assert await projection.handle(source.add("a:4", "b:3"), 5) == 7
    assert positions(await projection.dead_letters()) == {"a": [3, 5, 6]}
    assert await written(source, store, "a") == "1"
    assert await written(source, store, "b") == "1 2 3"
    assert await projection.checkpoint() == 7


async def test_what_is_prepared_ahead_of_time_is_handled_in_its_turn(store: ViewStore) -> None:
    source = Source()
    source.poison = {"a:2"}
    projection = Projection(CONSUMER, [source.view()], store, schema=Schema())
    handler = dead_lettering(projection, store.log)
    first, following = source.add("a:1", "a:2", "b:3"), source.add("b:4", "c:5")
    projection.prepare(following)
    assert await handler.handle(first, 0) == 3
    projection.prepare(following)
    assert await handler.handle(following, 3) == 5
    assert [await written(source, store, key) for key in "abc"] == ["1", "3 4", "5"]


async def test_a_replayed_event_is_folded_once_onto_the_row_as_it_is_then(store: ViewStore) -> None:
    source = Source()
    source.poison = {"a:1"}
    projection = projecting(source, store, shared="all")
    [first] = source.add("a:1")
    await projection.handle([first], 0)
    await projection.handle(source.add("b:5"), 1)
    with pytest.raises(Broken):
        await projection.replay(first, OPERATOR)
    source.poison.clear()
    await projection.replay(first, OPERATOR)
    with pytest.raises(NotParked):
        await projection.replay(first, OPERATOR)
    await projection.handle(source.add("a:2"), 2)
    assert await written(source, store, "all") == "5 1 2"
    assert projection.count == 0


async def test_looking_for_dead_letters_forgets_no_row_and_a_row_that_begins_is_not_looked_for(
    store: ViewStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_for: list[str] = []
    rows = store.rows

    async def counted(view: AnyView, keys: Sequence[str]) -> Mapping[str, Any]:
        looked_for.extend(keys)
        return await rows(view, keys)

    monkeypatch.setattr(store, "rows", counted)
    source = Source()
    projection = projecting(source, store)
    await projection.handle(source.add("a:1"), 0)
    assert looked_for == ["a"]
    await projection.dead_letters()
    await projection.handle(source.add("a:2"), 1)
    assert looked_for == ["a"]

    view = replace(source.view(), created_by=StringValue)
    begins = dead_lettering(Projection("tests.begins", [view], store, schema=Schema()), store.log)
    await begins.handle(source.events, 0)
    assert looked_for == ["a"]


async def test_a_replica_with_rows_from_before_a_replay_stores_none_of_them(store: ViewStore) -> None:
    source = Source()
    source.poison = {"a:1"}
    one, two = projecting(source, store, "all"), projecting(source, store, "all")
    first, _ = events = source.add("a:1", "b:1")
    await one.handle(events, 0)
    source.poison.clear()
    await two.replay(first, OPERATOR)
    await one.handle(source.add("b:2", "a:2"), 2)
    assert await written(source, store, "all") == "1 1 2 2"
    assert positions(await one.dead_letters()) == {}


async def test_a_replay_that_races_with_new_events_loses_neither(store: ViewStore) -> None:
    source = Source()
    source.poison = {"a:1"}
    one, two = projecting(source, store, "all"), projecting(source, store, "all")
    [first] = source.add("a:1")
    at = await one.handle([first], 0)
    source.poison.clear()

    async def follow() -> None:
        nonlocal at
        for number in range(2, 12):
            at = await one.handle(source.add(f"b:{number}"), at)

    await asyncio.gather(follow(), two.replay(first, OPERATOR))
    said = (await written(source, store, "all")).split()
    assert sorted(map(int, said)) == list(range(1, 12))


async def test_a_zombie_stores_and_parks_nothing(store: ViewStore) -> None:
    source = Source()
    source.poison = {"a:1"}
    one, zombie = projecting(source, store), projecting(source, store)
    events = source.add("a:1", "b:1")
    await one.handle(events, 0)
    with pytest.raises(CheckpointMoved):
        await zombie.handle(events, 0)
    assert positions(await zombie.dead_letters()) == {"a": [1]}
    assert await written(source, store, "b") == "1"


async def test_after_a_restart_the_parked_key_is_still_parked(store: ViewStore) -> None:
    source = Source()
    source.poison = {"a:1"}
    await projecting(source, store).handle(source.add("a:1"), 0)
    restarted = projecting(source, store)
    at = await restarted.checkpoint()
    await restarted.handle(source.add("a:2"), at)
    assert positions(await restarted.dead_letters()) == {"a": [1, 2]}
    assert await written(source, store, "a") == ""


async def test_a_discarded_event_leaves_the_row_alone_and_frees_its_key(store: ViewStore) -> None:
    source = Source()
    source.poison = {"a:1"}
    projection = projecting(source, store)
    await projection.handle(source.add("a:1"), 0)
    await projection.note(Discard(DeadLetterId(CONSUMER, "source", 1, "a"), "a typo"), OPERATOR)
    await projection.handle(source.add("a:2"), 1)
    assert await written(source, store, "a") == "2"


async def test_what_cannot_be_decoded_is_parked(store: ViewStore) -> None:
    source = Source()
    projection = projecting(source, store)
    await projection.handle([event(1, "a:1")._replace(type="tests.v1.Unheard"), event(2, "b:1")], 0)
    first = (await projection.dead_letters()).first("a")
    assert first and (first.error_type, first.attempts) == ("UnknownEventType", 1)


async def test_a_conflict_stores_nothing_at_all(store: ViewStore) -> None:
    source = Source()
    changes = {source.view(): {"a": Row("a", "1", START)}}
    stale = Batch(START, {STREAM: 7})
    refused = await store.commit(changes, CheckpointAdvance(CONSUMER, 0, 5), stale)
    assert isinstance(refused, Conflict)
    assert list(refused.streams) == [STREAM]
    assert await store.checkpoint(CONSUMER) == 0
    assert await written(source, store, "a") == ""


async def test_no_event_is_parked_where_the_table_is_another_programs(
    postgres_url: str, database: str
) -> None:
    source = Source()
    async with open_log(postgres_url, database, "views", "tests.dead_letters.sql") as log:
        projection = projecting(source, PostgresViews(log, "tests.dead_letters.sql", {"journal": Row}))
        assert await projection.handle(source.add("a:1"), 0) == 1
        await log.pool.execute("ALTER TABLE journal ADD COLUMN of_a_newer_program text")
        source.add("a:2")
        for _ in range(2):
            with pytest.raises(OtherTables, match="journal"):
                await projection.handle(source.events[1:], 1)
            await log.pool.expire_connections()  # a new one knows the table as it is now
        await log.pool.execute("ALTER TABLE journal DROP COLUMN of_a_newer_program")
        assert positions(await projection.dead_letters()) == {}
        assert await projection.handle(source.events[1:], 1) == 2


async def test_rows_whose_columns_would_change_places_are_refused(postgres_url: str, database: str) -> None:
    class Turned(NamedTuple):
        """The columns of the table, the first two the other way round."""

        written: str
        key: str
        updated_at: datetime

    source = Source()
    async with open_log(postgres_url, database, "views", "tests.dead_letters.sql") as log:
        projection = projecting(source, PostgresViews(log, "tests.dead_letters.sql", {"journal": Turned}))
        said = r"of journal have the fields written, key, .* the table the columns key, written.*one order"
        with pytest.raises(OtherColumns, match=said):
            await projection.handle(source.add("a:1"), 0)
        assert not await log.pool.fetch("SELECT FROM journal")


async def test_no_event_is_parked_where_the_table_lacks_a_column(postgres_url: str, database: str) -> None:
    class Wider(NamedTuple):
        key: str
        written: str
        updated_at: datetime
        due: str

    class Widened(Source):
        def view(self, _shared: str = "") -> View[Any]:
            return View("journal", lambda _event, _message: "a", rules={StringValue: lambda *_: row})

    row, source = Wider("a", "1", START, ""), Widened()
    async with open_log(postgres_url, database, "views", "tests.dead_letters.sql") as log:
        projection = projecting(source, PostgresViews(log, "tests.dead_letters.sql", {"journal": Wider}))
        with pytest.raises(
            OtherColumns, match=r"fields key, .* due, the table the columns .* updated_at; give"
        ):
            await projection.handle(source.add("a:1"), 0)
        assert positions(await projection.dead_letters()) == {}
