"""Rows that two logs change: what some order of their events explains is right, all else is found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, NamedTuple

import pytest
from google.protobuf.wrappers_pb2 import Int64Value, StringValue

from tests.dead_letters.journal import JOURNAL, event
from twinlog import Recorded, Schema, StreamId, View
from twinlog.audit.dead_letters import DeadLetters
from twinlog.audit.history import HistoryAudit
from twinlog.audit.report import Findings
from twinlog.audit.shared_views import SharedRows, SharedViewAudit, any_order
from twinlog.testing import START


class Stay(NamedTuple):
    """A row."""

    stay_id: str
    said: str


def said(row: Stay | None, event: Recorded, message: Any) -> Stay:
    """In the order of the events, so that it tells orders apart."""
    return Stay("s", (row.said if row else "") + str(message.value))


def summed(row: Stay | None, event: Recorded, message: Any) -> Stay:
    """In any order the same."""
    return Stay("s", str(int(row.said if row else 0) + len(str(message.value))))


def view(evolve: Any) -> View[Stay]:
    return View(
        "stays", lambda event, _: event.stream.id, evolve, shared=True, events=[StringValue, Int64Value]
    )


class Table:
    """The rows that are stored."""

    def __init__(self, rows: Mapping[str, Stay]) -> None:
        self.rows = rows

    async def named(self, _connection: Any, keys: Sequence[str]) -> Mapping[str, Stay]:
        return {key: self.rows[key] for key in keys if key in self.rows}

    async def as_stored(self, _connection: Any, rows: Sequence[Stay]) -> Sequence[Stay]:
        return rows

    async def keys(self, _connection: Any) -> Sequence[str]:
        return [*self.rows]

    async def count(self, _connection: Any) -> int:
        return len(self.rows)


def of_log(log: str, text: str, *, minutes: int = 0, key: str = "s") -> list[tuple[Recorded, Any]]:
    """An event for each letter."""
    return [
        (
            event(position, f"{key}:1")._replace(
                log=log, recorded_at=START + timedelta(minutes=minutes, seconds=position)
            ),
            StringValue(value=letter),
        )
        for position, letter in enumerate(text, 1)
    ]


async def audited(
    stored: Mapping[str, Stay],
    evolve: Any = said,
    *,
    behind: bool = False,
    parked: int = 0,
    discarded: int = 0,
) -> tuple[list[str], int]:
    """What is found where rooms say "ab" and, a minute later, payments say "12"; and how many rows were compared."""
    of, table, findings = view(evolve), Table(stored), Findings()
    shared = SharedRows(of, table, "make it again")
    connection: Any = object()
    parts = []
    for minutes, (log, text) in enumerate({"rooms": "ab", "payments": "12"}.items()):
        letters = DeadLetters(f"hotel.{log}", log)
        if parked and log == "rooms":
            letters.parked[parked] = None  # type: ignore[assignment]
        if discarded and log == "rooms":
            letters.discarded[discarded] = None  # type: ignore[assignment]
        part = SharedViewAudit(
            of, table, shared=shared, log=log, dead_letters=letters, database="d", remedy="make it again"
        )
        decoded = [(each, [message]) for each, message in of_log(log, text, minutes=minutes)]
        await part.follow(connection, decoded, 2, findings)
        parts.append(part)
    compared = [await part.compare(connection, 3 if behind else 2, findings) for part in parts]
    return [violation.says for violation in findings.kept], sum(compared)


@pytest.mark.parametrize("order", ["ab12", "12ab", "a1b2", "1ab2", "a12b"])
async def test_an_order_that_could_have_been_is_right(order: str) -> None:
    assert await audited({"s": Stay("s", order)}) == ([], 1)


@pytest.mark.parametrize("order", ["ba12", "ab1", "ab122", "21ab"])
async def test_what_no_order_leads_to_is_found(order: str) -> None:
    [found], compared = await audited({"s": Stay("s", order)})
    assert f"row s of stays, at rooms/2 and payments/2: said is {order}, the events say ab12" in found
    assert compared == 1


async def test_a_row_that_is_missing_and_one_that_nobody_made_are_found() -> None:
    found, _ = await audited({"t": Stay("t", "")})
    assert [each.partition(": ")[2] for each in found] == ["it is missing", "no event knows of it"]


async def test_what_any_order_leads_to_is_compared_at_once() -> None:
    assert await audited({"s": Stay("s", "4")}, summed) == ([], 1)
    [found], _ = await audited({"s": Stay("s", "5")}, summed)
    assert "said is 5, the events say 4" in found


async def test_what_was_set_aside_is_not_expected() -> None:
    assert await audited({"s": Stay("s", "b12")}, parked=1) == ([], 1)
    found, _ = await audited({"s": Stay("s", "ab12")}, parked=1)
    assert len(found) == 1


@pytest.mark.parametrize("text", ["b12", "ab12", "1a2b"])
async def test_what_was_discarded_is_there_where_the_view_was_made_again(text: str) -> None:
    assert await audited({"s": Stay("s", text)}, discarded=1) == ([], 1)
    [found], _ = await audited({"s": Stay("s", f"{text}2")}, discarded=1)
    assert "said is" in found


async def test_nothing_is_judged_while_one_of_the_logs_is_behind_its_checkpoint() -> None:
    assert await audited({"s": Stay("s", "nonsense")}, behind=True) == ([], 0)


def test_every_order_is_tried_and_too_many_are_not() -> None:
    rooms, payments = of_log("rooms", "ab"), of_log("payments", "12")
    rows = any_order(view(said), "s", [rooms, payments])
    assert rows is not None
    assert {row.said for row in rows} == {"ab12", "a1b2", "a12b", "1ab2", "1a2b", "12ab"}
    many = of_log("rooms", "x" * 200)
    assert any_order(view(said), "s", [many, many]) is None
    assert any_order(view(said), "s", [of_log("rooms", "abcdef"), of_log("payments", "123456")]) is None
    folded = any_order(view(summed), "s", [of_log("rooms", "abcdef"), of_log("payments", "123456")])
    assert folded == [Stay("s", "12")]


def test_streams_of_an_aggregate_that_nobody_declares_are_noted_once() -> None:
    """Renamed, its old streams would be folded by nobody, and an audit that compares nothing finds nothing."""
    history, findings = HistoryAudit("rooms", "hotel", [JOURNAL], Schema()), Findings()
    for number in (1, 2):
        [
            *history.take(
                event(number, "a:1")._replace(stream=StreamId("chamber", str(number)), version=1), findings
            )
        ]
    assert [note for note in findings.notes if "streams of 'chamber'" in note] == findings.notes[:1]
