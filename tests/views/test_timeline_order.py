"""The order of a timeline: causes before effects and each log in its own order, whatever the clocks said."""

from __future__ import annotations

from datetime import timedelta

from google.protobuf.json_format import MessageToDict
from hypothesis import given as for_all
from hypothesis import strategies as st

from projector.reads import timeline_message
from projector.views.timeline import TimelineRow
from shop.orders.v1.events_pb2 import OrderCancelled
from tests.controls import ORDER_ID
from twinlog.rpc import causes_first
from twinlog.testing import START


def row(log: str, position: int, cause: str = "rpc/CreateOrder", at: float = 0) -> TimelineRow:
    moment = START + timedelta(seconds=at)
    return TimelineRow(log, position, ORDER_ID, ORDER_ID, "type", b"", moment, cause, "", "")


def addresses(rows: list[TimelineRow]) -> list[str]:
    return [f"{row.log}/{row.position}" for row in rows]


def test_by_time_where_nothing_else_decides() -> None:
    rows = [row("orders", 4, at=2), row("customers", 9, "rpc/X", at=1)]
    assert addresses(causes_first(rows)) == ["customers/9", "orders/4"]


def test_a_cause_comes_first_even_when_its_clock_is_ahead() -> None:
    rows = [
        row("customers", 2, "orders/1", at=-5),
        row("orders", 1, at=5),
        row("orders", 8, "customers/2", at=0),
    ]
    assert addresses(causes_first(rows)) == ["orders/1", "customers/2", "orders/8"]


def test_each_log_keeps_its_own_order_even_when_its_clock_went_back() -> None:
    rows = [row("orders", 2, at=1), row("orders", 1, at=3)]
    assert addresses(causes_first(rows)) == ["orders/1", "orders/2"]


def test_a_cause_that_is_not_in_the_timeline_holds_up_nothing() -> None:
    assert addresses(causes_first([row("customers", 2, "orders/77")])) == ["customers/2"]


def test_nothing_is_lost_where_causes_make_no_sense() -> None:
    circle = [row("orders", 1, "customers/1"), row("customers", 1, "orders/1")]
    assert sorted(addresses(causes_first(circle))) == ["customers/1", "orders/1"]


@st.composite
def chains(draw: st.DrawFn) -> list[TimelineRow]:
    """Events of three logs, each caused by an earlier one, under clocks that may be wrong by seconds."""
    heads = {"orders": 0, "customers": 0, "sagas": 0}
    rows: list[TimelineRow] = []
    for _ in range(draw(st.integers(1, 10))):
        log = draw(st.sampled_from(sorted(heads)))
        heads[log] += draw(st.integers(1, 3))
        cause = draw(st.sampled_from(addresses(rows))) if rows else "rpc/CreateOrder"
        rows.append(row(log, heads[log], cause, draw(st.integers(-5, 5))))
    return draw(st.permutations(rows))


@for_all(chains())
def test_causes_precede_effects_and_logs_stay_in_order(rows: list[TimelineRow]) -> None:
    ordered = causes_first(rows)
    assert sorted(addresses(ordered)) == sorted(addresses(rows))
    place = {address: number for number, address in enumerate(addresses(ordered))}
    for each in ordered:
        if each.causation_id in place:
            assert place[each.causation_id] < place[f"{each.log}/{each.position}"]
    for log in {each.log for each in ordered}:
        positions = [each.position for each in ordered if each.log == log]
        assert positions == sorted(positions)


def test_an_entry_shows_its_payload_and_nothing_where_the_type_is_unknown() -> None:
    known = row("orders", 1)._replace(
        type=OrderCancelled.DESCRIPTOR.full_name, payload=OrderCancelled(order_id="o").SerializeToString()
    )
    entries = [timeline_message(one) for one in (known, row("orders", 2))]
    assert [MessageToDict(entry.payload) for entry in entries] == [{"order_id": "o"}, {}]
    assert [entry.payload_json for entry in entries] == ['{"order_id": "o"}', ""]
