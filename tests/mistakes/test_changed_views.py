"""A view that is changed in place is refused at the start: what its table holds would stay as it was."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import pytest
from google.protobuf.message import Message
from google.protobuf.wrappers_pb2 import BoolValue, Int64Value, StringValue

from tests.kernel.batches import append, new_event
from tests.mistakes.test_stored import MemoryDeclarations
from twinlog import PostgresViews, Projection, Schema, StreamId, Upcast, View
from twinlog.consume.kept_views import VIEW, KeptViews, Tables
from twinlog.log.declarations import Declarations, StoredOtherwise
from twinlog.log.view_store import Build
from twinlog.model.forms import WrongForm
from twinlog.model.saga_list import SAGA_INSTANCES
from twinlog.postgres.declarations import PostgresDeclarations
from twinlog.postgres.log import PostgresLog
from twinlog.testing import START, MemoryLog, MemoryTwin, MemoryViews
from twinlog.testing.internals import Batch, open_log

_COLUMNS = {"stays": {"stay_id": "text", "nights": "integer"}}


class Stay(NamedTuple):
    """A row."""

    stay_id: str


def stays(*events: type[Message], **other: Any) -> View[Any]:
    return View("stays", lambda event, _message: event.stream.id, events=events or (StringValue,), **other)


def projection(*views: View[Any], name: str = "stay_svc.rooms", **other: Any) -> Projection:
    store = MemoryViews(MemoryLog("stays"))
    return Projection(name, views or (stays(),), store, **{"schema": Schema(), **other})


@dataclass
class System:
    """What is there when a program starts."""

    projections: Sequence[Projection] = field(default_factory=lambda: [projection()])
    checkpoints: Mapping[str, int] = field(default_factory=lambda: {"stay_svc.rooms": 12})
    columns: Mapping[str, Mapping[str, str]] = field(default_factory=lambda: _COLUMNS)
    builds: Sequence[Build] = ()
    stream: MemoryTwin | None = None

    async def start(self, declarations: Declarations) -> None:
        tables = Tables(self.checkpoints, self.builds, self.columns)
        kept = KeptViews(declarations, "stay_svc", await declarations.kept(), tables)
        twin = self.stream or await rooms()
        await kept.check(self.projections, lambda _log: twin)
        await kept.keep()


async def rooms(*messages: Message) -> MemoryTwin:
    """The stream of a log, with these events."""
    twin, log = MemoryTwin("rooms"), MemoryLog("rooms")
    await twin.create(1)
    for version, message in enumerate(messages, 1):
        stream = StreamId("room", "one")
        await append(log, Batch(START, {stream: version - 1}, [new_event(stream, version, message)]))
    if messages:
        await twin.publish(await log.read(0, len(messages)))
    return twin


def build(number: int, version: int, **other: Any) -> Build:
    return Build("stays", number, version, number == 1, number == 1, False, START)._replace(**other)


def wider(type: str, **columns: str) -> Mapping[str, Mapping[str, str]]:
    return {"stays": {"stay_id": "text", "nights": type, **columns}}


async def test_a_view_that_is_changed_in_place_is_refused_and_one_that_is_declared_anew_is_not() -> None:
    both = await rooms(BoolValue(), StringValue())
    trimmed = await rooms(BoolValue(), StringValue())
    assert trimmed.messages is not None
    del trimmed.messages[1]
    known = [projection(), projection(stays(), name="stay_svc.other", source="other")]
    upcast = Schema([Upcast.rename(StringValue, Int64Value, by=lambda old: Int64Value(value=len(old.value)))])
    beside = [projection(stays(), stays(BoolValue, version=2))]
    new: View[Any] = View("bills", lambda event, _message: event.stream.id, events=[BoolValue])
    renamed = projection(name="stays_svc.rooms")
    at_two = {"stay_svc.rooms": 12, "stay_svc.stays@2.rooms": 12}
    refused: dict[str, tuple[System, str]] = {
        "a column more": (System(columns=wider("integer", paid="bigint")), "column paid is new"),
        "a column of another type": (
            System(columns=wider("text")),
            r"was integer and is text \(.*ALTER COLUMN nights TYPE integer USING nights::integer\)",
        ),
        "an event type more": (
            System([projection(stays(StringValue, BoolValue))], stream=both),
            "handles google.protobuf.BoolValue from now on, of which log 'rooms' has events",
        ),
        "the same, of which the last event that was handled is the first": (
            System([projection(stays(StringValue, BoolValue))], {"stay_svc.rooms": 1}, stream=both),
            "handles google.protobuf.BoolValue",
        ),
        "the same, over a stream that was trimmed": (
            System([projection(stays(StringValue, Int64Value))], stream=trimmed),
            "handles google.protobuf.Int64Value",
        ),
        "every event": (System([projection(stays(Message))], stream=both), "handles events of any type"),
        "another routing key": (
            System([projection(routing_key="east")]),
            "key '', and is sent those of 'east'",
        ),
        "another log": (System([projection(source="halls")]), "followed log 'rooms' and follows 'halls'"),
        "a row for each event": (
            System([projection(stays(append_only=True))]),
            "one of each key, and has one of each",
        ),
        "a projection under another name": (
            System([renamed]),
            "SET consumer = 'stays_svc.rooms' WHERE consumer = 'stay_svc.rooms'",
        ),
        "the same, of which only the home's checkpoint is renamed": (
            System(
                [renamed],
                {"stays_svc.rooms": 12, "stay_svc.stays@2.rooms": 3},
                builds=[build(1, 1), build(2, 1)],
            ),
            r"still: UPDATE checkpoints SET consumer = 'stays_svc\.stays@2\.rooms' "
            r"WHERE consumer = 'stay_svc\.stays@2\.rooms'\.",
        ),
        "another view in an old projection": (
            System([projection(stays(), new)], stream=both),
            r"'bills' would begin.*new in projection 'stay_svc\.rooms', which has handled log 'rooms' up to 12",
        ),
        "a next version that is alone": (
            System([projection(stays(version=2))], stream=both),
            "declare the version before beside it",
        ),
        "what another build holds": (
            System(
                columns=wider("integer", paid="bigint"),
                checkpoints={"stay_svc.stays@2.rooms": 3},
                builds=[build(1, 1, dropped=True), build(2, 1)],
            ),
            "column paid is new",
        ),
    }
    allowed: dict[str, System] = {
        "nothing new": System(),
        "nothing handled": System(
            [projection(stays(BoolValue))], {}, wider("text", paid="bigint"), stream=both
        ),
        "made anew in place": System(
            checkpoints={"stay_svc.other": 4}, columns=wider("integer", paid="bigint")
        ),
        "a wider column": System(columns=wider("bigint")),
        "a column less": System(columns={"stays": {"stay_id": "text"}}),
        "an event type of which there is nothing": System(
            [projection(stays(StringValue, Int64Value))], stream=both
        ),
        "one whose first event comes": System(
            [projection(stays(StringValue, BoolValue))],
            {"stay_svc.rooms": 1},
            stream=await rooms(StringValue(), BoolValue()),
        ),
        "what an old type is read as": System([projection(stays(Int64Value), schema=upcast)], stream=both),
        "another log beside": System(known),
        "a next version beside": System(beside, stream=both),
        "the same, once it has a build": System(
            beside, at_two, builds=[build(1, 1), build(2, 2)], stream=both
        ),
        "the same, alone": System(
            [projection(stays(StringValue, BoolValue, version=2))],
            at_two,
            builds=[build(1, 1, dropped=True), build(2, 2)],
            stream=both,
        ),
        "what a home has left that was dropped": System(
            columns=wider("integer", paid="bigint"), builds=[build(1, 1, dropped=True), build(2, 2)]
        ),
        "a renamed checkpoint": System([renamed], {"stays_svc.rooms": 12}),
        "a name that the builds do not have": System(
            [projection(name="stay_svc.other")],
            {"stay_svc.stays@2.rooms": 12},
            builds=[build(1, 1, dropped=True), build(2, 1)],
        ),
        "the kernel's list": System([projection(), projection(SAGA_INSTANCES, name="stay_svc.sagas")]),
    }
    wrong = []
    for what, (system, told) in refused.items():
        declarations = MemoryDeclarations()
        await replace(system, projections=[projection()], columns=_COLUMNS, builds=()).start(declarations)
        before = dict(declarations.all)
        try:
            await system.start(declarations)
            wrong.append(f"{what}: was let pass")
        except StoredOtherwise as error:
            wrong += [] if re.search(told, str(error)) else [f"{what}: {error}"]
        wrong += [f"{what}: was kept"] if declarations.all != before else []
        await system.start(MemoryDeclarations())  # the first start that compares
    for what, system in allowed.items():
        rolled_back = ""
        declarations = MemoryDeclarations()
        await System().start(declarations)
        try:
            await system.start(declarations)
            older = replace(system, projections=[projection()], builds=())
            try:
                await older.start(declarations)
            except StoredOtherwise as error:
                rolled_back = str(error)
            await system.start(declarations)
        except StoredOtherwise as error:
            wrong.append(f"{what}: {error}")
        if ("SET consumer = 'stay_svc.rooms'" in rolled_back) != (what == "a renamed checkpoint"):
            wrong.append(f"{what}, rolled back: {rolled_back or 'was let pass'}")
    assert not wrong


async def test_the_list_of_sagas_changes_with_the_kernel() -> None:
    declarations, table = MemoryDeclarations(), SAGA_INSTANCES.table
    for columns in ({"saga_id": "text"}, {"saga_id": "text", "shown": "text"}, {"saga_id": "bigint"}):
        with_list = [projection(), projection(SAGA_INSTANCES, name="stay_svc.sagas")]
        handled = {"stay_svc.rooms": 12, "stay_svc.sagas": 12}
        await System(with_list, handled, {**_COLUMNS, table: columns}).start(declarations)
    assert [name for _, name in declarations.all] == ["stays"]


async def test_of_a_view_in_several_versions_the_newest_is_kept_where_nothing_was_projected() -> None:
    second = stays(version=2)
    other: View[Any] = View("bills", lambda event, _message: event.stream.id, events=[BoolValue])
    kept = projection(stays(), second, other)
    await kept.checkpoint()
    assert {view.table for view in kept.kept} == {second.table, other.table}


async def test_a_column_that_goes_and_comes_again_is_new() -> None:
    declarations, less = MemoryDeclarations(), {"stays": {"stay_id": "text"}}
    for columns in (_COLUMNS, less):
        await System(columns=columns).start(declarations)
    with pytest.raises(StoredOtherwise, match="column nights is new"):
        await System().start(declarations)


async def test_what_the_refusal_says_ends_it(postgres_url: str, database: str) -> None:
    """In a database as an earlier release left it, too: there the first start keeps what it finds."""
    async with open_log(postgres_url, database, "stays") as log:
        declarations, twin = PostgresDeclarations(log.pool), await rooms(StringValue())

        async def start() -> None:
            tables = Tables({"stay_svc.rooms": 12}, await declarations.builds(), await declarations.columns())
            kept = KeptViews(declarations, "stay_svc", await declarations.kept(), tables)
            await kept.check([projection()], lambda _log: twin)
            await kept.keep()

        await log.pool.execute("CREATE TABLE stays (stay_id text PRIMARY KEY, nights integer)")
        await start()
        await log.pool.execute("CREATE INDEX ON stays (nights)")
        await start()
        for printed in (r"ALTER TABLE stays DROP COLUMN paid", r"INSERT INTO.*?'\{\}'(?=;)"):
            await log.pool.execute("ALTER TABLE stays ADD COLUMN paid numeric(10, 2) NOT NULL DEFAULT 0")
            with pytest.raises(StoredOtherwise, match="column paid is new") as refused:
                await start()
            way_out = re.search(printed, str(refused.value))
            assert way_out, refused.value
            await log.pool.execute(way_out[0])
            await start()
        await start()
        assert (await declarations.kept())[VIEW, "stays"].form["column paid"] == "numeric(10,2)"


def test_a_store_of_views_names_the_part_that_is_wrong() -> None:
    log, right = object.__new__(PostgresLog), ("tests.dead_letters.sql", {"journal": Stay})
    given: list[tuple[Any, Any, Any, str]] = [
        (MemoryLog("stays"), *right, r"log is .*give the log of a service in Postgres"),
        (None, *right, "log is None"),
        (log, "tests.nowhere", right[1], "package is 'tests.nowhere'; give the name of a package"),
        (log, "tests.mistakes", right[1], "with a queries.sql"),
        (log, None, right[1], "package is None"),
        (log, right[0], [Stay], "rows is .*give the NamedTuple of each view"),
        (log, right[0], {"stays": System}, "rows is "),
    ]
    for *parts, told in given:
        with pytest.raises(WrongForm, match=told):
            PostgresViews(*parts)
