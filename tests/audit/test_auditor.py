"""The auditor finds every planted fault, names it, and says nothing of a shop that only works."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from auditor import open_auditor
from auditor.books import DEADLINES
from auditor.screen import WIDTH, Screen
from shop.orders.v1.saga_mode_pb2 import SAGA_MODE_ORCHESTRATION
from tests.audit import faults
from tests.audit.faults import FAULTS, Fault
from tests.audit.world import DATABASE_OF, World
from tests.twin.messages import newer, older
from twinlog.dead_letters import DEAD_LETTERS
from twinlog.event import Recorded, StreamId, to_wire
from twinlog.v1.dead_letters_pb2 import EventParked

pytestmark = pytest.mark.asyncio(loop_scope="package")


async def test_a_clean_shop_has_no_violation_and_everything_was_compared(shop: World) -> None:
    report = await shop.audit()
    assert report.violations == []
    assert report.clean
    assert report.settled
    figures = report.figures
    assert figures.events == {log: len(await shop.events(log)) for log in DATABASE_OF}
    assert figures.checked["events"] == figures.checked["twin messages"] == sum(figures.events.values())
    assert all(
        figures.checked[what] for what in ("view rows", "snapshots", "checkpoints", "cases", "requests")
    )
    assert set(figures.orders) == {"approved", "rejected", "cancelled"}
    assert figures.customers == 9
    lags = [*figures.twin_lag.values(), *figures.view_lag.values(), *figures.consumer_lag.values()]
    assert lags == [0] * 14


async def test_work_in_flight_is_no_violation(made: World) -> None:
    assert [report.violations for report in made.during if not report.clean] == []
    assert any(not report.settled for report in made.during), "no audit saw the load"


async def test_what_a_parked_event_holds_up_is_in_flight(shop: World) -> None:
    check, (order_id, customer_id) = await faults.a_cancelled_order_holds_credit(shop)
    assert check in (await shop.audit()).counts
    cancelled = (await shop.events("orders"))[-1]
    assert cancelled.stream.id == order_id
    consumer = "customer_svc.orders"
    parked = EventParked(
        consumer=consumer,
        log="orders",
        position=cancelled.position,
        key=customer_id,
        event=to_wire(cancelled),
        error_type="Broken",
        error="out of order",
        attempts=6,
    )
    await shop.append("customers", StreamId(DEAD_LETTERS.name, consumer), parked, key=customer_id)
    await shop.catch_up()

    report = await shop.audit()
    assert check not in report.counts
    assert report.figures.parked == {consumer: 1}
    assert not report.settled


@pytest.mark.parametrize("plant", FAULTS, ids=lambda plant: plant.__name__)
async def test_a_planted_fault_is_found_and_named(shop: World, plant: Fault) -> None:
    check, names = await plant(shop)
    report = await shop.audit()
    assert check in report.counts, f"found only {dict(report.counts)}"
    of_check = [violation for violation in report.violations if violation.check == check]
    named = [v for v in of_check if set(names) <= {*v.ids, *v.events}]
    assert named, of_check
    assert all(violation.remedy and violation.says for violation in report.violations)


@pytest.mark.parametrize("write", [older, newer])
async def test_a_message_that_another_version_wrote_is_no_violation(
    shop: World, write: Callable[[Recorded], bytes]
) -> None:
    *before, last = await shop.events("orders")
    twin = shop.twin("orders")
    await twin.delete()
    await twin.create(1)
    await twin.publish(before)
    await shop.nats.jetstream().publish(last.subject, write(last))
    assert (await shop.audit()).violations == []


@pytest.mark.parametrize("plant", [faults.an_order_row_was_edited, faults.a_timeline_row_was_edited])
async def test_a_fault_in_a_view_is_nothing_else(shop: World, plant: Fault) -> None:
    check, _ = await plant(shop)
    assert dict((await shop.audit()).counts) == {check: 1}


async def test_a_later_round_reads_what_is_new_and_still_knows_the_rest(shop: World) -> None:
    async with open_auditor(shop.postgres_url, shop.nats_url) as auditor:
        first = await auditor.round()
        assert first.clean
        again = await auditor.round()
        assert again.clean
        assert again.figures.checked["events"] == first.figures.checked["events"]
        check, names = await faults.a_cancelled_order_holds_credit(shop)
        for _ in range(2):
            report = await auditor.round()
            assert check in report.counts
            assert any(set(names) <= set(v.ids) for v in report.violations if v.check == check)
        assert report.figures.checked["events"] == first.figures.checked["events"] + 1


async def test_an_order_on_its_way_is_in_flight(shop: World) -> None:
    await shop.sql("shop_orders", "DELETE FROM timers")
    order_id = await faults._order(shop, faults.FUTURE, SAGA_MODE_ORCHESTRATION)
    await faults._set_timer(shop, order_id, faults.FUTURE)
    report = await shop.audit()
    assert report.clean, report.violations
    assert "1 PENDING orders" in report.in_flight
    assert "stream orders lags 1 events" in report.in_flight
    assert "saga_orchestrator.orders lags" in "".join(report.in_flight)


async def test_no_deadline_is_missed_where_nobody_is_at_work(shop: World) -> None:
    await faults.an_order_is_pending_past_its_deadline(shop)
    assert DEADLINES in (await shop.audit()).counts
    assert DEADLINES not in (await shop.audit(at_rest=True)).counts


async def test_many_violations_are_counted_and_few_are_kept(shop: World) -> None:
    await shop.sql("shop_views", "UPDATE timeline SET actor = 'x' WHERE log = 'orders'")
    report = await shop.audit()
    orders = report.figures.events["orders"]
    assert sum(report.counts.values()) == orders > len(report.violations)
    assert f"… and {orders - 50} more of: view row equals fold" in Screen(colour=False).report(report)


async def test_a_report_fits_the_screen(shop: World) -> None:
    await faults.a_cancelled_order_holds_credit(shop)
    lines = list(Screen(colour=False).report(await shop.audit()))
    assert not [line for line in lines if len(line) > WIDTH and not line.startswith("  mend ")]
    assert any(line.startswith("✗ ended order holds nothing: order ") for line in lines)
    assert "\x1b" not in "".join(lines)
