"""The auditor finds every planted fault, names it, and says nothing of a shop that only works."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from uuid import UUID
from zlib import crc32

import pytest
from google.protobuf.message import Message

import customer_svc.policies
from customer_svc.domain import CUSTOMER
from proof.auditor import Report, open_auditor, renderer
from proof.auditor.ledger import ANSWERED, DEADLINES
from proof.auditor.shop import LOGS
from shop.customers.v1.events_pb2 import CustomerCreated
from shop.orders.v1.events_pb2 import OrderApproved, OrderCreated
from shop.orders.v1.order_pb2 import REJECTION_REASON_ABORTED
from shop.orders.v1.saga_mode_pb2 import SAGA_MODE_CHOREOGRAPHY, SAGA_MODE_ORCHESTRATION
from tests.audit import faults
from tests.audit.faults import FAULTS, Fault
from tests.audit.world import DATABASE_OF, World
from tests.controls import new_id
from tests.twin.messages import newer, older
from tests.waiting import in_service
from twinlog import Metadata, Recorded, Schema
from twinlog.audit import dead_letters, history, twins, views
from twinlog.consume.dead_letters import DeadLetterId, Discard, Failure
from twinlog.log.time_travel import TimeTravel
from twinlog.testing import ManualClock
from twinlog.testing.internals import StateCodec
from twinlog.v1.saga_pb2 import SagaStarted

BROKEN = Failure("Broken", "out of order", 6)
OPERATOR = Metadata(actor="an operator")

pytestmark = pytest.mark.asyncio(loop_scope="package")


def letter(consumer: str, event: Recorded) -> DeadLetterId:
    return DeadLetterId(consumer, event.log, event.position, event.partition_key)


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
    assert set(figures.domain["orders"]) == {"approved", "rejected", "cancelled"}
    assert figures.domain["besides"]["customers"] == 9
    assert [shop.operated.skipped_in_vain in note for note in report.notes] == [True]
    lags = [*figures.twin_lag.values(), *figures.view_lag.values(), *figures.consumer_lag.values()]
    assert lags == [0] * 14


async def test_work_in_flight_is_no_violation(made: World) -> None:
    assert [report.violations for report in made.during if not report.clean] == []
    assert any(not report.settled for report in made.during), "no audit saw the load"


async def test_what_a_parked_event_holds_up_is_in_flight(shop: World) -> None:
    check, (order_id, _) = await faults.a_cancelled_order_holds_credit(shop)
    assert check in (await shop.audit()).counts
    cancelled = (await shop.events("orders"))[-1]
    assert cancelled.stream.id == order_id
    consumer = "customer_svc.orders"
    await faults.park(shop, consumer, cancelled)
    await shop.catch_up()

    report = await shop.audit()
    assert check not in report.counts
    assert report.figures.parked == {consumer: 1}
    assert not report.settled


async def test_what_was_given_up_excuses_its_own_order_only(shop: World) -> None:
    _, (order_id, _) = await faults.a_cancelled_order_holds_credit(shop)
    cancelled = (await shop.events("orders"))[-1]
    async with shop.policies(customer_svc.policies.policies(ManualClock())[0], "customers") as handler:
        await handler.dead_letter(cancelled, BROKEN, await handler.checkpoint())
        await handler.note(Discard(letter(handler.name, cancelled), "a test"), OPERATOR)
    await shop.catch_up()
    report = await shop.audit()
    # The views' checkpoints, too, are past an event that nobody handled.
    assert set(report.counts) == {views.EQUAL}
    [note] = [note for note in report.notes if order_id in note]
    assert note.endswith(f": customer_svc.orders gave up {cancelled.address}")
    assert not report.figures.parked

    event = (await faults._of(shop, OrderCreated))[0]
    await faults._reserve(shop, event.partition_key, new_id(), "0.01")
    await shop.catch_up()
    assert ANSWERED in (await shop.audit()).counts


async def test_what_cannot_be_read_may_be_about_any_open_order_of_its_customer(shop: World) -> None:
    check, _ = await faults.a_cancelled_order_holds_credit(shop)
    cancelled = (await shop.events("orders"))[-1]
    await faults.park(shop, faults.ORDERS_OF_CUSTOMERS, cancelled, wire=b"\xff")
    await shop.catch_up()
    counts = (await shop.audit()).counts
    assert dead_letters.PARKED in counts
    assert check not in counts


async def test_timers_that_a_repair_left_are_looked_at_soon(shop: World) -> None:
    pending = await faults._order(shop, faults.FUTURE)
    ended = (await shop.find("orders", OrderApproved)).stream.id
    for order_id in (pending, ended):
        await shop.sql("shop_orders", "INSERT INTO timers VALUES ('order', $1, 0, 'epoch')", order_id)
    assert history.TIMERS not in (await shop.audit()).counts


async def test_notes_are_shown_before_the_verdict(shop: World) -> None:
    *lines, verdict = map(str, renderer.report(await shop.audit()))
    assert " ".join(" ".join(lines).split()).endswith("step 'reserve credit' was skipped")
    assert verdict.startswith("✓ no violation")


async def test_a_view_is_compared_without_what_is_parked_and_with_what_was_replayed(shop: World) -> None:
    order_id = await faults._order(shop, faults.FUTURE)
    await faults._set_timer(shop, order_id, faults.FUTURE)
    created = (await shop.events("orders"))[-1]
    await faults._cancel(shop, created.stream, created.partition_key, SAGA_MODE_CHOREOGRAPHY)
    await shop.sql("shop_orders", "DELETE FROM timers WHERE stream_id = $1", order_id)
    cancelled = (await shop.events("orders"))[-1]
    projection = shop.projection("orders")
    async with open_auditor(shop.postgres_url, shop.nats_url) as auditor:

        async def clean() -> Report:
            for report in (await auditor.round(), await shop.audit()):
                assert report.violations == []
            return report

        await projection.checkpoint()
        after = await projection.dead_letter(created, BROKEN, created.position - 1)
        await projection.handle([cancelled], after)
        assert (await clean()).figures.parked == {"projector.orders": 2}
        await projection.replay(created, OPERATOR)
        assert (await clean()).figures.parked == {"projector.orders": 1}
        await projection.note(Discard(letter(projection.name, cancelled), "a test"), OPERATOR)
        report = await clean()
        assert report.notes[0] == f"projector.orders gave up {cancelled.address}, which had no effect"
        await shop.sql("shop_views", "UPDATE orders SET state = 9 WHERE order_id = $1", order_id)
        [wrong] = [each for each in (await shop.audit()).violations if each.check == views.EQUAL]
        # As its remedy says. A view that is made again handles what was discarded.
        await shop.sql("shop_views", re.findall(r'"(.*?)"', wrong.remedy)[0])
        projection = shop.projection("orders")
        await projection.handle(await shop.events("orders"), await projection.checkpoint())
        assert (await shop.audit()).violations == []


async def test_a_replay_without_its_effect_is_found_by_a_watch(shop: World) -> None:
    last = (await shop.events("sagas"))[-1]
    await faults.park(shop, "projector.sagas", last)
    where = "log = 'sagas' AND position = $1"
    await shop.sql("shop_views", f"DELETE FROM timeline WHERE {where}", last.position)
    async with open_auditor(shop.postgres_url, shop.nats_url) as auditor:
        assert (await auditor.round()).violations == []
        await faults.replayed(shop, "projector.sagas", last)
        assert views.EQUAL in (await auditor.round()).counts


async def test_the_reason_of_an_aborted_saga_reached_its_view(shop: World) -> None:
    order_id = shop.operated.aborted
    found = await shop.ask("shop_views", "SELECT reason FROM orders WHERE order_id = $1", order_id)
    assert found == REJECTION_REASON_ABORTED


TOGETHER: list[tuple[Fault, ...]] = [
    (
        faults.an_event_is_gone,
        faults.the_last_event_is_gone,
        faults.log_head_is_set_forward,
        faults.an_order_row_was_edited,
    ),
    (
        faults.a_version_is_skipped,
        faults.an_event_id_stands_twice,
        faults.log_head_is_set_back,
        faults.a_row_is_too_many,
    ),
    (
        faults.a_partition_key_is_another,
        faults.a_type_is_unknown,
        faults.a_history_lacks_its_beginning,
        faults.a_timeline_row_is_gone,
    ),
    (
        faults.a_cause_does_not_exist,
        faults.a_payload_is_garbage,
        faults.a_saga_row_was_edited,
        faults.a_row_is_gone,
    ),
    (
        faults.a_request_points_beyond_the_log,
        faults.a_snapshot_is_another_state,
        faults.a_message_lies_under_another_subject,
        faults.a_timeline_row_was_edited,
    ),
    (
        faults.a_timer_is_gone,
        faults.a_snapshot_is_no_state,
        faults.a_stream_is_of_another_installation,
        faults.a_timeline_row_is_too_many,
    ),
    (
        faults.a_timer_is_set_for_another_time,
        faults.a_snapshot_is_ahead_of_its_stream,
        faults.a_saga_row_shows_a_parked_event,
        faults.a_views_checkpoint_is_beyond_its_log,
    ),
    (
        faults.a_timer_is_stale,
        faults.a_checkpoint_is_beyond_its_log,
        faults.a_view_went_past_a_parked_event,
        faults.a_customer_row_was_edited,
    ),
    (
        faults.an_event_was_changed_behind_its_twin,
        faults.a_stream_is_gone,
        faults.a_row_shows_a_parked_event,
    ),
    (
        faults.a_message_was_replaced,
        faults.a_database_was_set_back,
        faults.a_timeline_shows_a_parked_event,
    ),
    (
        faults.a_message_is_gone,
        faults.another_event_was_parked,
        faults.an_event_of_the_projectors_log_is_gone,
    ),
    (
        faults.a_stream_was_purged,
        faults.an_event_was_parked_that_does_not_exist,
        faults.a_message_of_the_projectors_twin_was_replaced,
    ),
    (
        faults.a_checkpoint_was_set_back,
        faults.a_policy_went_past_a_parked_event,
        faults.a_version_of_the_projectors_log_is_skipped,
    ),
    (
        faults.an_effect_came_before_the_replay,
        faults.an_event_was_parked_under_another_key,
    ),
    (
        faults.a_later_event_was_replayed_first,
        faults.a_timeline_lacks_a_replayed_event,
    ),
    (
        faults.events_were_parked_out_of_order,
        faults.a_views_checkpoint_was_set_back,
    ),
    (faults.an_event_waits_behind_nothing,),
    (
        faults.an_order_was_approved_twice,
        faults.more_than_the_limit_is_reserved,
    ),
    (
        faults.credit_is_reserved_twice,
        faults.a_rejected_order_was_rejected_again,
    ),
    (
        faults.more_is_released_than_was_held,
        faults.an_order_is_pending_past_its_deadline,
    ),
    (
        faults.a_saga_waits_past_its_deadline,
        faults.a_saga_ends_with_an_open_step,
    ),
    (faults.an_aborted_sagas_order_has_another_reason,),
    (
        faults.an_event_was_skipped,
        faults.an_order_never_got_its_saga,
        faults.a_sagas_command_was_skipped,
        faults.an_answer_was_skipped,
        faults.credit_is_held_for_no_order,
    ),
    (
        faults.a_cancelled_order_holds_credit,
        faults.a_saga_is_completed_and_its_order_cancelled,
    ),
    (
        faults.another_amount_is_held,
        faults.the_sums_differ,
        faults.a_skip_excuses_no_other_order,
    ),
]
"""All faults. Those that have nothing to do with each other are planted together, for one audit."""


@pytest.mark.parametrize("plants", TOGETHER, ids=lambda plants: plants[0].__name__)
async def test_planted_faults_are_found_and_named(shop: World, plants: Sequence[Fault]) -> None:
    planted = {plant.__name__: await plant(shop) for plant in plants}
    report = await shop.audit()
    missed = {
        fault: expected
        for fault, expected in planted.items()
        if not any(
            {*expected.names} <= {*found.ids, *found.events}
            for found in report.violations
            if found.check == expected.check
        )
    }
    assert not missed, "\n".join([f"missed: {missed}", "found:", *map(str, report.violations)])
    assert all(violation.remedy and violation.says for violation in report.violations)


async def test_a_log_that_lost_events_is_mended_before_what_may_follow_from_that(shop: World) -> None:
    lost = (await faults.a_database_was_set_back(shop)).names
    await shop.sql("shop_orders", "DELETE FROM timers")
    await shop.sql("shop_orders", "UPDATE checkpoints SET position = position + 1000")
    first, *others = (await shop.audit()).violations
    assert (first.check, set(lost) <= {*first.events}) == (twins.NOT_AHEAD, True)
    assert first.remedy.startswith("twinlog repair customers --dry-run    # ")
    assert others
    assert {each.remedy for each in others} == {
        "twinlog repair customers    # mend that first: this may follow from it; then audit again"
    }


async def test_every_fault_is_planted() -> None:
    assert sorted(each.__name__ for group in TOGETHER for each in group) == sorted(
        each.__name__ for each in FAULTS
    )


FIRSTS: dict[str, type[Message]] = {
    "orders": OrderCreated,
    "customers": CustomerCreated,
    "sagas": SagaStarted,
}
"""An event of each log that the rest of its stream rests on."""


@pytest.mark.parametrize("log", [*FIRSTS, "projector"])
@pytest.mark.parametrize(
    "change", ["type = 'shop.orders.v1.OrderAnnotated'", r"payload = '\x0a'"], ids=["type", "payload"]
)
async def test_an_event_that_cannot_be_read_is_named_in_every_log(shop: World, log: str, change: str) -> None:
    """And nothing is said about what depends on it, but that it is not known."""
    if log == "projector":
        await faults.park(shop, "projector.sagas", (await shop.events("sagas"))[-1])
        [event] = await shop.events(log)
    else:
        event = await shop.find(log, FIRSTS[log])
    await shop.sql(DATABASE_OF[log], f"UPDATE events SET {change} WHERE position = $1", event.position)
    report = await shop.audit()
    [named] = [violation for violation in report.violations if violation.check == history.DECODES]
    assert (named.ids, named.events) == ([str(event.stream)], [event.address])
    assert f"{event.stream} cannot be read at version {event.version}" in named.says
    # The twin was made of the event as it was, and the views are not judged: to make them again would mend nothing.
    assert set(report.counts) <= {history.DECODES, twins.EQUAL}
    assert "what depends on 1 streams that cannot be read" in report.in_flight


@pytest.mark.parametrize("log", FIRSTS)
async def test_an_event_that_says_nothing_is_survived_in_every_log(shop: World, log: str) -> None:
    event = await shop.find(log, FIRSTS[log])
    await shop.sql(DATABASE_OF[log], "UPDATE events SET payload = '' WHERE position = $1", event.position)
    report = await shop.audit()
    named = {name for violation in report.violations for name in (*violation.ids, *violation.events)}
    assert {str(event.stream), event.address} & named


@pytest.mark.parametrize("state", [b"", b"{", b"\xff garbage", b"{}"])
@pytest.mark.parametrize("log", FIRSTS)
async def test_a_snapshot_that_is_no_state_is_named_in_every_log(shop: World, log: str, state: bytes) -> None:
    event = await shop.find(log, FIRSTS[log])
    [of] = [of for of in LOGS if of.log == log]
    [aggregate] = [each for each in of.aggregates if each.name == event.stream.type]
    await shop.sql(
        of.database,
        "INSERT INTO snapshots (stream_type, stream_id, version, position, schema, state) "
        "VALUES ($1, $2, 1, $3, $4, $5) ON CONFLICT (stream_id, stream_type) DO UPDATE SET version = 1, state = $5",
        *event.stream,
        event.position,
        StateCodec(aggregate).schema,
        state,
    )
    report = await shop.audit()
    assert set(report.counts) == {history.SNAPSHOTS}
    assert report.violations[0].ids == [str(event.stream)]


async def _keep(shop: World, change: Callable[[bytes], bytes] = bytes, *, checksum_of: bytes = b"") -> str:
    """Keeps the newest snapshot of a customer at its version, with a state that is changed; gives the stream."""
    [stream_id, state] = await shop.ask(
        "shop_customers", "SELECT ARRAY[stream_id, convert_from(state, 'UTF8')] FROM snapshots LIMIT 1"
    )
    changed = change(state.encode())
    await shop.sql(
        "shop_customers",
        "INSERT INTO kept_snapshots (stream_type, stream_id, version, event_id, position, schema, checksum, state) "
        "SELECT s.stream_type, s.stream_id, s.version, e.event_id, s.position, s.schema, $2, $3 "
        "FROM snapshots s JOIN events e USING (position) WHERE s.stream_id = $1",
        stream_id,
        crc32(checksum_of or changed),
        changed,
    )
    return str(stream_id)


async def test_a_sound_kept_snapshot_is_checked(shop: World) -> None:
    before = (await shop.audit()).figures.checked["kept snapshots"]
    await _keep(shop)
    report = await shop.audit()
    assert (report.violations, report.figures.checked["kept snapshots"]) == ([], before + 1)


@pytest.mark.parametrize(
    ("change", "checksum_of", "why"),
    [
        (lambda state: re.sub(rb'"reserved":\d+', b'"reserved":1', state), b"", "not the fold of its events"),
        (lambda _: b"{", b"", "cannot be read"),
        (lambda state: state, b"another", "its bytes are not those that were kept"),
    ],
    ids=["another state", "no state", "damaged"],
)
async def test_a_wrong_kept_snapshot_is_named_with_what_mends_it(
    shop: World, change: Callable[[bytes], bytes], checksum_of: bytes, why: str
) -> None:
    id = await _keep(shop, change, checksum_of=checksum_of)
    report = await shop.audit()
    [violation] = report.violations
    assert (violation.check, violation.ids) == (history.KEPT_SNAPSHOTS, [f"customer/{id}"])
    assert why in violation.says
    assert violation.remedy.startswith(f"twinlog snapshots rebuild customer/{id} ")
    await TimeTravel(shop.log("customers"), Schema()).rebuild(CUSTOMER, id)  # which the command calls
    assert (await shop.audit()).violations == []


async def test_one_that_was_kept_of_an_archived_event_is_checked_too(shop: World) -> None:
    id = await _keep(shop, lambda _: b"{")
    await shop.sql("shop_customers", "UPDATE kept_snapshots SET event_id = $1", UUID(int=0))
    [violation] = (await shop.audit()).violations
    assert (violation.check, violation.ids) == (history.KEPT_SNAPSHOTS, [f"customer/{id}"])


async def test_a_kept_snapshot_of_another_history_is_ignored(shop: World) -> None:
    """As services do, who make it anew."""
    await _keep(shop, lambda _: b"{")
    await shop.sql("shop_customers", "UPDATE kept_snapshots SET event_id = gen_random_uuid()")
    assert (await shop.audit()).violations == []


@pytest.mark.parametrize("write", [older, newer])
async def test_a_message_that_another_version_wrote_is_no_violation(
    shop: World, write: Callable[[Recorded], bytes]
) -> None:
    *before, last = await shop.events("orders")
    twin = shop.twin("orders")
    await twin.delete()
    await in_service(twin.create, 1)
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
    assert f"… and {orders - 50} more of: view row equals fold" in map(str, renderer.report(report))


async def test_a_report_fits_a_hundred_columns(shop: World) -> None:
    await faults.a_cancelled_order_holds_credit(shop)
    lines = [str(line) for line in renderer.report(await shop.audit())]
    assert not [line for line in lines if len(line) > 100 and not line.startswith("  mend ")]
    assert any(line.startswith("✗ ended order holds nothing: order ") for line in lines)
