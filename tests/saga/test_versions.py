"""A table edited under its version is refused at start, and so is the lack of one that instances still need."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from saga_orchestrator.credit_saga import CREDIT_SAGA
from tests.kernel.batches import append, new_event
from tests.saga.tables import kind, makes, message, step, table
from twinlog import Backoff, Begin, Parallel, Reply, Saga, Schema, Step, StreamId, saga_aggregate
from twinlog.log.declarations import StoredOtherwise
from twinlog.log.saga_tables import (
    KeptTable,
    LiveInstance,
    SagaTableChanged,
    SagaTables,
    SagaVersionNeeded,
    check_saga_tables,
)
from twinlog.model.saga_fingerprint import differences, fingerprint_of, shape_of
from twinlog.postgres.declarations import PostgresSagaTables
from twinlog.testing.internals import Batch, PostgresLog, open_log

NOW = datetime(2030, 1, 1, tzinfo=UTC)
ONE = table([step(0), step(1)])


class MemoryTables:
    """Tables and live instances in memory."""

    def __init__(self) -> None:
        self.kept: dict[int, KeptTable] = {}
        self.live: list[LiveInstance] = []

    async def keep(self, saga: str, tables: Mapping[int, KeptTable]) -> Mapping[int, KeptTable]:
        self.kept = {**tables, **self.kept}
        self.kept |= {version: self.kept[version]._replace(retired=False) for version in tables}
        return dict(self.kept)

    async def retire(self, saga: str, versions: Sequence[int]) -> None:
        self.kept |= {version: self.kept[version]._replace(retired=True) for version in versions}

    async def live_instances(self, aggregate: str) -> Sequence[LiveInstance]:
        return self.live


class PostgresTables(PostgresSagaTables):
    """Tables in a database whose log has the live instances."""

    def __init__(self, log: PostgresLog) -> None:
        super().__init__(log.pool)
        self.log = log

    async def began(self, id: str, saga: Saga, *, completed: bool = False) -> None:
        sagas, stream = saga_aggregate(saga), StreamId("table_saga", id)
        events = list(sagas.decide(sagas.initial, Begin(message("Trigger"), NOW)))
        if completed:
            for number in range(len(saga.steps)):
                reply = Reply(message("Done", number), NOW)
                events += sagas.decide(sagas.fold(events), reply)
        recorded = [new_event(stream, version, event) for version, event in enumerate(events, 1)]
        await append(self.log, Batch(NOW, {stream: 0}, recorded))


@pytest.fixture
async def postgres(postgres_url: str, database: str) -> AsyncIterator[PostgresTables]:
    async with open_log(postgres_url, database, "sagas") as log:
        yield PostgresTables(log)


async def start(tables: SagaTables, *versions: Saga, schema: Schema | None = None) -> None:
    keep = await check_saga_tables(tables, [saga_aggregate(*versions)], schema or Schema())
    await keep()


def edited(*steps: Step, **more: Any) -> Saga:
    return table(steps, **more)


EDITS = {
    "a step inserted": (edited(step(0), step(2), step(1)), 'step "step 2" is new'),
    "a step at the end": (edited(step(0), step(1), step(2)), 'step "step 2" is new'),
    "a step removed": (edited(step(0)), 'step "step 1" is gone'),
    "steps in another order": (
        edited(step(1), step(0)),
        'the order was "step 0", "step 1" and is "step 1", "step 0"',
    ),
    "steps put in parallel": (edited(Parallel(step(0), step(1))), "in parallel with: no → step 0"),
    "another answer": (edited(step(0), replace(step(1), done=kind("Done", 3))), "Done1 → .*Done3"),
    "no compensation": (edited(step(0), step(1, undo=False)), "undone: .* → no"),
    "a condition": (edited(step(0), step(1, when=bool)), "is conditional: no → True"),
    "a point of no return": (
        edited(step(0), step(1, undo=False, no_return=True)),
        "is the point of no return: no → True",
    ),
    "a closing command": (
        table([step(0), step(1)], closes=True),
        "on_compensated was nothing and is .*Closed",
    ),
}


@pytest.mark.parametrize("edit", EDITS)
async def test_an_edited_table_is_refused_and_told_how(edit: str) -> None:
    changed, told = EDITS[edit]
    tables = MemoryTables()
    await start(tables, ONE)
    with pytest.raises(SagaTableChanged, match=told) as refused:
        await start(tables, changed)
    assert "Saga table, version 1" in str(refused.value)
    assert "version 2" in str(refused.value)
    await start(tables, ONE, replace(changed, version=2))


@pytest.mark.parametrize(
    "shape", ["[]", "5", "null", '"text"', "{}", '{"steps": {"a": 1}}', '{"steps": [{}]}']
)
async def test_a_table_that_somebody_garbled_is_told_with_its_way_out(
    shape: str, postgres: PostgresTables
) -> None:
    changed, _ = EDITS["a step at the end"]
    await start(postgres, ONE)
    await postgres.log.pool.execute("UPDATE saga_tables SET shape = $1::text::jsonb", shape)
    await start(postgres, ONE)  # by its fingerprint it is the same
    with pytest.raises(StoredOtherwise, match="table saga_tables") as refused:
        await start(postgres, changed)
    told = str(refused.value)
    await postgres.log.pool.execute(told[told.index("DELETE FROM") :])
    await start(postgres, ONE)
    with pytest.raises(SagaTableChanged):
        await start(postgres, changed)


def test_what_no_instance_rests_on_may_change_in_place() -> None:
    tuned = table(
        [replace(step(0), deadline=timedelta(days=1), retries=3, send=makes("Send", 3)), step(1)],
        backoff=Backoff(attention_after=9),
    )
    assert not differences(shape_of(ONE), shape_of(tuned))
    assert fingerprint_of(ONE) == fingerprint_of(tuned)


async def test_steps_may_begin_to_pick_their_answers_under_their_version() -> None:
    """What a table that shares answers between steps is told to do."""
    tables = MemoryTables()
    await start(tables, ONE)
    await start(tables, edited(replace(step(0), matches=lambda _: True), step(1)))
    await start(tables, ONE)


async def test_a_message_type_that_an_upcaster_renames_is_no_change_of_the_table() -> None:
    tables, renamed = MemoryTables(), edited(step(0), replace(step(1), done=kind("Done", 3)))
    await start(tables, ONE)
    with pytest.raises(SagaTableChanged):
        await start(tables, renamed)
    new = kind("Done", 3)
    await start(tables, renamed, schema=Schema({kind("Done", 1): (lambda _old: [new()], [new])}))


def test_the_shops_table_is_as_it_was_released() -> None:
    assert fingerprint_of(CREDIT_SAGA) == "640971d94ff02141"


async def test_a_version_with_live_instances_is_not_let_go() -> None:
    tables, two = MemoryTables(), replace(ONE, version=2)
    await start(tables, ONE)
    tables.live = [LiveInstance(f"id-{number}", 1) for number in range(7)]
    with pytest.raises(SagaVersionNeeded, match=r"version 1, is gone; 7 instances .*: id-0, .*id-4 …"):
        await start(tables, two)
    await start(tables, ONE, two)
    tables.live = [LiveInstance("id-8", 2)]
    await start(tables, two)
    assert [version for version, kept in tables.kept.items() if kept.retired] == [1]
    await start(tables, ONE, two)
    assert not [version for version, kept in tables.kept.items() if kept.retired]


async def test_a_program_that_is_rolled_back_starts_beside_instances_of_the_newer_one() -> None:
    tables, two = MemoryTables(), replace(ONE, version=2)
    await start(tables, ONE, two)
    tables.live = [LiveInstance("older", 1), LiveInstance("newer", 2)]
    await start(tables, ONE)
    assert not [version for version, kept in tables.kept.items() if kept.retired]
    await start(tables, ONE, two)
    with pytest.raises(SagaVersionNeeded, match=r"version 1, is gone; 1 instances .*: older"):
        await start(tables, replace(ONE, version=3))


async def test_a_log_of_before_there_were_fingerprints_is_looked_through_once() -> None:
    tables = MemoryTables()
    tables.live = [LiveInstance("old", 1)]
    with pytest.raises(SagaVersionNeeded, match="old"):
        await start(tables, replace(ONE, version=2))
    assert not tables.kept, "a start that is refused keeps nothing"
    await start(tables, ONE, replace(ONE, version=2))


async def test_postgres_keeps_the_tables_and_finds_the_live_instances(postgres: PostgresTables) -> None:
    two = table([step(0), step(2)], version=2)
    await start(postgres, ONE)
    await postgres.began("open", ONE)
    await postgres.began("over", ONE, completed=True)
    assert await postgres.live_instances("table_saga") == [LiveInstance("open", 1)]
    with pytest.raises(SagaTableChanged, match=r"step 1.* is gone"):
        await start(postgres, replace(two, version=1))
    with pytest.raises(SagaVersionNeeded, match="1 instances are not over: open"):
        await start(postgres, two)
    await start(postgres, ONE, two)
    kept = await postgres.keep("table", {})
    assert {version: (table.retired, table.shape) for version, table in kept.items()} == {
        1: (False, shape_of(ONE)),
        2: (False, shape_of(two)),
    }


async def test_postgres_lets_a_version_go_that_no_instance_needs(postgres: PostgresTables) -> None:
    await postgres.began("over", ONE, completed=True)
    await start(postgres, ONE)
    await start(postgres, replace(ONE, version=2))
    assert (await postgres.keep("table", {}))[1].retired
    await start(postgres, ONE)
    assert not (await postgres.keep("table", {}))[1].retired
