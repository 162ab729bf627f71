"""Faults, one function each: what it breaks, and what the auditor has to say."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import NamedTuple
from uuid import uuid4

from google.protobuf.message import Message

from proof.auditor import ledger
from shop.customers.v1.events_pb2 import CreditReleased, CreditReserved, CustomerCreated
from shop.orders.v1.events_pb2 import OrderApproved, OrderCancelled, OrderCreated, OrderRejected
from shop.orders.v1.order_pb2 import REJECTION_REASON_DEADLINE_EXCEEDED
from shop.orders.v1.saga_mode_pb2 import SAGA_MODE_CHOREOGRAPHY, SAGA_MODE_ORCHESTRATION
from shop.sagas.v1.commands_pb2 import ReserveCredit
from tests.audit.world import World
from tests.controls import Mode, new_id, wire
from tests.waiting import in_service
from twinlog import Recorded, StreamId, timestamp
from twinlog.audit import auditor, dead_letters, followers, history, reading, twins, views
from twinlog.model.messages import pack
from twinlog.testing.internals import DEAD_LETTERS, Identity, JetStreamTwin, to_wire
from twinlog.v1.dead_letters_pb2 import EventParked, EventReplayed
from twinlog.v1.saga_pb2 import SagaCompleted, SagaStarted

PAST = datetime(2020, 1, 1, tzinfo=UTC)
FUTURE = datetime(2999, 1, 1, tzinfo=UTC)


class Expected(NamedTuple):
    """What the auditor has to find: a violation of ``check`` that names all of ``names``."""

    check: str
    names: tuple[str, ...]


Fault = Callable[[World], Awaitable[Expected]]
FAULTS: list[Fault] = []


def fault(plant: Fault) -> Fault:
    FAULTS.append(plant)
    return plant


# --- a log by itself ---


@fault
async def an_event_is_gone(shop: World) -> Expected:
    event = await shop.find("orders", OrderApproved)
    await shop.sql("shop_orders", "DELETE FROM events WHERE position = $1", event.position)
    return Expected(history.GAPLESS, (event.address,))


@fault
async def the_last_event_is_gone(shop: World) -> Expected:
    last = (await shop.events("customers"))[-1]
    await shop.sql("shop_customers", "DELETE FROM events WHERE position = $1", last.position)
    return Expected(history.GAPLESS, (last.address,))


@fault
async def log_head_is_set_forward(shop: World) -> Expected:
    await shop.sql("shop_sagas", "UPDATE log_head SET position = position + 3")
    head = len(await shop.events("sagas"))
    return Expected(history.GAPLESS, (f"sagas/{head + 1}", f"sagas/{head + 3}"))


@fault
async def log_head_is_set_back(shop: World) -> Expected:
    await shop.sql("shop_sagas", "UPDATE log_head SET position = position - 1")
    return Expected(history.GAPLESS, ("sagas", f"sagas/{len(await shop.events('sagas'))}"))


@fault
async def a_version_is_skipped(shop: World) -> Expected:
    event = await shop.find("orders", OrderApproved)
    await shop.sql("shop_orders", "UPDATE events SET version = 9 WHERE position = $1", event.position)
    return Expected(history.VERSIONS, (str(event.stream), event.address))


@fault
async def an_event_id_stands_twice(shop: World) -> Expected:
    first = (await shop.events("customers"))[0]
    await shop.sql("shop_customers", "UPDATE events SET event_id = $1 WHERE position = 7", first.event_id)
    return Expected(reading.IDS, (str(first.event_id), "customers/1", "customers/7"))


@fault
async def a_type_is_unknown(shop: World) -> Expected:
    await shop.sql("shop_customers", "UPDATE events SET type = 'shop.Nonsense' WHERE position = 3")
    return Expected(history.DECODES, ("customers/3",))


@fault
async def a_payload_is_garbage(shop: World) -> Expected:
    await shop.sql("shop_customers", r"UPDATE events SET payload = '\xffff' WHERE position = 3")
    return Expected(history.DECODES, ("customers/3",))


@fault
async def a_history_lacks_its_beginning(shop: World) -> Expected:
    stream = StreamId("credit_saga", new_id())
    await shop.append("sagas", stream, SagaCompleted(), key=new_id())
    return Expected(history.FOLDS, (str(stream), f"sagas/{len(await shop.events('sagas'))}"))


@fault
async def a_partition_key_is_another(shop: World) -> Expected:
    event = await shop.find("orders", OrderApproved)
    await shop.sql("shop_orders", "UPDATE events SET partition_key = 'x' WHERE position = $1", event.position)
    return Expected(history.PARTITION, (str(event.stream), event.address))


@fault
async def a_cause_does_not_exist(shop: World) -> Expected:
    event = await shop.find("orders", OrderApproved)
    await shop.sql(
        "shop_orders",
        """UPDATE events SET metadata = metadata || '{"causation_id": "customers/999999"}' WHERE position = $1""",
        event.position,
    )
    return Expected(reading.CAUSES, (event.address,))


@fault
async def a_request_points_beyond_the_log(shop: World) -> Expected:
    request_id = await shop.ask("shop_orders", "SELECT request_id FROM requests LIMIT 1")
    await shop.sql("shop_orders", "UPDATE requests SET position = 999999 WHERE request_id = $1", request_id)
    return Expected(auditor.REQUESTS, (request_id, "orders/999999"))


@fault
async def a_timer_is_gone(shop: World) -> Expected:
    order_id = await _order(shop, FUTURE)
    return Expected(history.TIMERS, (f"order/{order_id}",))


@fault
async def a_timer_is_set_for_another_time(shop: World) -> Expected:
    order_id = await _order(shop, FUTURE)
    await _set_timer(shop, order_id, FUTURE - timedelta(hours=1))
    return Expected(history.TIMERS, (f"order/{order_id}",))


@fault
async def a_timer_is_stale(shop: World) -> Expected:
    event = await shop.find("orders", OrderApproved)
    await _set_timer(shop, event.stream.id, FUTURE)
    return Expected(history.TIMERS, (str(event.stream),))


@fault
async def a_snapshot_is_another_state(shop: World) -> Expected:
    stream_id = await shop.ask("shop_customers", "SELECT stream_id FROM snapshots LIMIT 1")
    await shop.sql(
        "shop_customers",
        """UPDATE snapshots SET state = convert_to(
               regexp_replace(convert_from(state, 'UTF8'), '"reserved":\\d+', '"reserved":1'), 'UTF8')""",
    )
    return Expected(history.SNAPSHOTS, (f"customer/{stream_id}",))


@fault
async def a_snapshot_is_no_state(shop: World) -> Expected:
    stream_id = await shop.ask("shop_customers", "SELECT stream_id FROM snapshots LIMIT 1")
    await shop.sql("shop_customers", "UPDATE snapshots SET state = '{'")
    return Expected(history.SNAPSHOTS, (f"customer/{stream_id}",))


@fault
async def a_snapshot_is_ahead_of_its_stream(shop: World) -> Expected:
    stream_id = await shop.ask("shop_customers", "SELECT stream_id FROM snapshots LIMIT 1")
    await shop.sql("shop_customers", "UPDATE snapshots SET version = version + 10000")
    return Expected(history.SNAPSHOTS, (f"customer/{stream_id}",))


# --- the twin ---


@fault
async def an_event_was_changed_behind_its_twin(shop: World) -> Expected:
    await shop.sql(
        "shop_orders", "UPDATE events SET recorded_at = recorded_at + interval '1 second' WHERE position = 5"
    )
    return Expected(twins.EQUAL, ("orders/5",))


@fault
async def a_message_was_replaced(shop: World) -> Expected:
    events = list(await shop.events("orders"))
    events[9] = events[9]._replace(event_id=events[8].event_id)
    twin = shop.twin("orders")
    await twin.delete()
    await in_service(twin.create, 1)
    await twin.publish(events)
    return Expected(twins.EQUAL, ("orders/10",))


@fault
async def a_message_lies_under_another_subject(shop: World) -> Expected:
    events = await shop.events("sagas")
    twin = shop.twin("sagas")
    await twin.delete()
    await in_service(twin.create, 1)
    await twin.publish(events[:-1])
    last = events[-1]
    other = (int(last.subject.split(".")[1]) + 1) % 64
    await shop.nats.jetstream().publish(f"sagas.{other}.Other.-", to_wire(last))
    return Expected(twins.EQUAL, (last.address,))


@fault
async def a_message_is_gone(shop: World) -> Expected:
    shop.twin("orders")
    await shop.nats.jsm().delete_msg("orders", 12)
    return Expected(twins.WHOLE, ("orders", "orders/12"))


@fault
async def a_stream_was_purged(shop: World) -> Expected:
    shop.twin("orders")
    await shop.nats.jsm().purge_stream("orders", seq=21)
    return Expected(twins.WHOLE, ("orders/1", "orders/20"))


@fault
async def a_stream_is_gone(shop: World) -> Expected:
    await shop.twin("customers").delete()
    return Expected(twins.WHOLE, ("customers",))


@fault
async def a_database_was_set_back(shop: World) -> Expected:
    last = (await shop.events("customers"))[-1]
    await shop.sql("shop_customers", "DELETE FROM events WHERE position = $1", last.position)
    await shop.sql("shop_customers", "UPDATE log_head SET position = position - 1")
    return Expected(twins.NOT_AHEAD, (last.address,))


@fault
async def a_stream_is_of_another_installation(shop: World) -> Expected:
    await shop.sql(
        "shop_sagas", "INSERT INTO log_identity (installation) VALUES ('ours') ON CONFLICT DO NOTHING"
    )
    twin = JetStreamTwin(shop.nats, "sagas", identity=Identity("theirs", uuid4()))
    await shop.twin("sagas").delete()
    await in_service(twin.create, 1)
    return Expected(twins.OWN, ("sagas",))


# --- consumers ---


@fault
async def a_checkpoint_is_beyond_its_log(shop: World) -> Expected:
    await _checkpoint(shop, "shop_customers", "customer_svc.orders", "position + 1000")
    return Expected(followers.WITHIN, ("customer_svc.orders",))


@fault
async def a_views_checkpoint_is_beyond_its_log(shop: World) -> Expected:
    await _checkpoint(shop, "shop_views", "projector.sagas", "position + 1000")
    return Expected(followers.WITHIN, ("projector.sagas",))


@fault
async def a_checkpoint_was_set_back(shop: World) -> Expected:
    await _checkpoint(shop, "shop_orders", "order_svc.customers", "5")
    return Expected(followers.NOT_BEHIND, ("order_svc.customers",))


@fault
async def an_event_was_skipped(shop: World) -> Expected:
    order_id = await _order(shop, FUTURE)
    await shop.catch_up()
    return Expected(ledger.ANSWERED, (order_id,))


@fault
async def an_order_never_got_its_saga(shop: World) -> Expected:
    order_id = await _order(shop, FUTURE, SAGA_MODE_ORCHESTRATION)
    await shop.catch_up()
    return Expected(ledger.ANSWERED, (order_id,))


@fault
async def a_sagas_command_was_skipped(shop: World) -> Expected:
    order_id = await _order(shop, FUTURE, SAGA_MODE_ORCHESTRATION)
    saga_id = await _saga(shop, order_id, ReserveCredit(order_id=order_id))
    await shop.catch_up()
    return Expected(ledger.ANSWERED, (order_id, saga_id))


@fault
async def an_answer_was_skipped(shop: World) -> Expected:
    customer_id = (await shop.find("customers", CustomerCreated)).stream.id
    order_id = await _order(shop, FUTURE, customer_id=customer_id)
    await _reserve(shop, customer_id, order_id, "0.01")
    await shop.catch_up()
    return Expected(ledger.ANSWERED, (order_id, customer_id))


@fault
async def credit_is_held_for_no_order(shop: World) -> Expected:
    customer_id, order_id = (await shop.find("customers", CustomerCreated)).stream.id, new_id()
    await _reserve(shop, customer_id, order_id, "0.01")
    await shop.catch_up()
    return Expected(ledger.ANSWERED, (order_id, customer_id))


# --- views ---


@fault
async def an_order_row_was_edited(shop: World) -> Expected:
    return await _edit(shop, "shop_views", "orders", "order_id", "state = 9")


@fault
async def a_customer_row_was_edited(shop: World) -> Expected:
    return await _edit(shop, "shop_views", "customers", "customer_id", "reserved_nanos = reserved_nanos + 1")


@fault
async def a_saga_row_was_edited(shop: World) -> Expected:
    return await _edit(shop, "shop_sagas", "sagas", "saga_id", "reason = 'WHIM'")


@fault
async def a_row_is_gone(shop: World) -> Expected:
    key = await shop.ask("shop_views", "SELECT order_id FROM orders LIMIT 1")
    await shop.sql("shop_views", "DELETE FROM orders WHERE order_id = $1", key)
    return Expected(views.EQUAL, (key,))


@fault
async def a_row_is_too_many(shop: World) -> Expected:
    await shop.sql(
        "shop_views",
        "INSERT INTO customers SELECT 'nobody', name, currency, limit_nanos, reserved_nanos, created_position, "
        "created_at, updated_at FROM customers LIMIT 1",
    )
    return Expected(views.EQUAL, ("nobody",))


@fault
async def a_timeline_row_was_edited(shop: World) -> Expected:
    await shop.sql("shop_views", "UPDATE timeline SET actor = 'x' WHERE log = 'sagas' AND position = 4")
    return Expected(views.EQUAL, ("sagas/4",))


@fault
async def a_timeline_row_is_gone(shop: World) -> Expected:
    await shop.sql("shop_views", "DELETE FROM timeline WHERE log = 'orders' AND position = 4")
    return Expected(views.EQUAL, ("orders/4",))


@fault
async def a_timeline_row_is_too_many(shop: World) -> Expected:
    await shop.sql(
        "shop_views", "INSERT INTO timeline VALUES ('orders', 999999, '', '', '', '', now(), '', '', '')"
    )
    return Expected(views.EQUAL, ("orders/999999",))


@fault
async def a_views_checkpoint_was_set_back(shop: World) -> Expected:
    await _checkpoint(shop, "shop_views", "projector.orders", "position - 1")
    return Expected(views.EQUAL, (f"orders/{len(await shop.events('orders'))}",))


# --- the ledger of the shop ---


@fault
async def an_order_was_approved_twice(shop: World) -> Expected:
    event = await shop.find("orders", OrderApproved)
    await shop.append("orders", event.stream, OrderApproved(), key=event.partition_key)
    return Expected(ledger.TRANSITIONS, (event.stream.id, f"orders/{len(await shop.events('orders'))}"))


@fault
async def more_than_the_limit_is_reserved(shop: World) -> Expected:
    customer_id, order_id = (await shop.find("customers", CustomerCreated)).stream.id, new_id()
    await _reserve(shop, customer_id, order_id, "1000000")
    return Expected(ledger.LIMIT, (customer_id, order_id))


@fault
async def credit_is_reserved_twice(shop: World) -> Expected:
    event = await shop.find("customers", CreditReserved)
    order_id = CreditReserved.FromString(event.payload).order_id
    await _reserve(shop, event.stream.id, order_id, "0.01")
    return Expected(ledger.RESERVATIONS, (event.stream.id, order_id))


@fault
async def more_is_released_than_was_held(shop: World) -> Expected:
    event = await shop.find("customers", CreditReserved)
    order_id = CreditReserved.FromString(event.payload).order_id
    released = CreditReleased(customer_id=event.stream.id, order_id=order_id, amount=wire("77"))
    await shop.append("customers", event.stream, released, key=event.partition_key)
    return Expected(ledger.RESERVATIONS, (event.stream.id, order_id))


@fault
async def another_amount_is_held(shop: World) -> Expected:
    approved = {event.stream.id for event in await _of(shop, OrderApproved)} - {
        event.stream.id for event in await _of(shop, OrderCancelled)
    }
    for event in await shop.events("customers"):
        if event.type == CreditReserved.DESCRIPTOR.full_name:
            message = CreditReserved.FromString(event.payload)
            if message.order_id in approved:
                message.amount.CopyFrom(wire("0.5"))
                await shop.sql(
                    "shop_customers",
                    "UPDATE events SET payload = $1 WHERE position = $2",
                    message.SerializeToString(deterministic=True),
                    event.position,
                )
                return Expected(ledger.APPROVED, (message.order_id, event.stream.id))
    raise AssertionError("no order is approved")


@fault
async def the_sums_differ(shop: World) -> Expected:
    expected = await another_amount_is_held(shop)
    return Expected(ledger.SUMS, expected.names[1:])


@fault
async def a_cancelled_order_holds_credit(shop: World) -> Expected:
    event = await _approved(shop, SAGA_MODE_CHOREOGRAPHY)
    await _cancel(shop, event.stream, event.partition_key, SAGA_MODE_CHOREOGRAPHY)
    await shop.catch_up()
    return Expected(ledger.RELEASED, (event.stream.id, event.partition_key))


@fault
async def a_saga_is_completed_and_its_order_cancelled(shop: World) -> Expected:
    event = await _approved(shop, SAGA_MODE_ORCHESTRATION)
    await _cancel(shop, event.stream, event.partition_key, SAGA_MODE_ORCHESTRATION)
    await shop.catch_up()
    return Expected(ledger.AGREES, (event.stream.id,))


@fault
async def a_saga_ends_with_an_open_step(shop: World) -> Expected:
    order_id = await _order(shop, FUTURE, SAGA_MODE_ORCHESTRATION)
    saga_id = await _saga(shop, order_id, SagaCompleted())
    return Expected(ledger.TERMINAL, (saga_id, order_id, f"sagas/{len(await shop.events('sagas'))}"))


@fault
async def an_order_is_pending_past_its_deadline(shop: World) -> Expected:
    order_id = await _order(shop, PAST)
    await _set_timer(shop, order_id, PAST)
    return Expected(ledger.DEADLINES, (order_id, f"orders/{len(await shop.events('orders'))}"))


@fault
async def a_saga_waits_past_its_deadline(shop: World) -> Expected:
    order_id = await _order(shop, FUTURE, SAGA_MODE_ORCHESTRATION)
    saga_id = await _saga(shop, order_id, ReserveCredit(order_id=order_id), deadline=PAST)
    return Expected(ledger.DEADLINES, (saga_id, order_id))


@fault
async def a_rejected_order_was_rejected_again(shop: World) -> Expected:
    event = await shop.find("orders", OrderRejected)
    await shop.append("orders", event.stream, OrderRejected(), key=event.partition_key)
    return Expected(ledger.TRANSITIONS, (event.stream.id,))


@fault
async def an_aborted_sagas_order_has_another_reason(shop: World) -> Expected:
    order_id = shop.operated.aborted
    rejected = next(e for e in await _of(shop, OrderRejected) if e.stream.id == order_id)
    message = OrderRejected.FromString(rejected.payload)
    message.reason = REJECTION_REASON_DEADLINE_EXCEEDED
    await shop.sql(
        "shop_orders",
        "UPDATE events SET payload = $1 WHERE position = $2",
        message.SerializeToString(deterministic=True),
        rejected.position,
    )
    return Expected(ledger.REASON, (order_id, rejected.address))


@fault
async def a_skip_excuses_no_other_order(shop: World) -> Expected:
    expected = await another_amount_is_held(shop)
    assert expected.names[0] != shop.operated.skipped_in_vain
    return Expected(ledger.SUMS, expected.names[1:])


# --- parked events ---


@fault
async def another_event_was_parked(shop: World) -> Expected:
    one, other = (await shop.events("orders"))[-2:]
    await park(shop, ORDERS_OF_CUSTOMERS, one, wire=to_wire(other))
    return Expected(dead_letters.PARKED, (ORDERS_OF_CUSTOMERS, one.address, await _last(shop, "customers")))


@fault
async def an_event_was_parked_that_does_not_exist(shop: World) -> Expected:
    last = (await shop.events("orders"))[-1]
    await park(shop, ORDERS_OF_CUSTOMERS, last._replace(position=999_999))
    return Expected(dead_letters.PARKED, (ORDERS_OF_CUSTOMERS, "orders/999999"))


@fault
async def an_event_was_parked_under_another_key(shop: World) -> Expected:
    last = (await shop.events("orders"))[-1]
    await park(shop, "projector.orders", last._replace(partition_key="x"), wire=to_wire(last))
    return Expected(dead_letters.PARKED, ("projector.orders", last.address, "projector/1"))


@fault
async def a_policy_went_past_a_parked_event(shop: World) -> Expected:
    first, later = await _two_created(shop)
    await park(shop, ORDERS_OF_CUSTOMERS, first)
    return Expected(dead_letters.ORDER, (ORDERS_OF_CUSTOMERS, first.address, later.address))


@fault
async def a_view_went_past_a_parked_event(shop: World) -> Expected:
    first, later = await _two_created(shop)
    await park(shop, "projector.orders", first)
    return Expected(dead_letters.ORDER, ("projector.orders", first.address, later.address))


@fault
async def an_effect_came_before_the_replay(shop: World) -> Expected:
    first, later = await _two_created(shop)
    await park(shop, ORDERS_OF_CUSTOMERS, first)
    order_id, customer_id = later.stream.id, later.partition_key
    released = CreditReleased(customer_id=customer_id, order_id=order_id, amount=wire("0"))
    await shop.append(
        "customers",
        StreamId("customer", customer_id),
        released,
        key=customer_id,
        metadata=later.causing("customer_svc"),
    )
    effect = await _last(shop, "customers")
    await replayed(shop, ORDERS_OF_CUSTOMERS, first)
    return Expected(dead_letters.ORDER, (ORDERS_OF_CUSTOMERS, later.address, effect))


@fault
async def a_later_event_was_replayed_first(shop: World) -> Expected:
    first, later = await _two_created(shop)
    await park(shop, ORDERS_OF_CUSTOMERS, first)
    await park(shop, ORDERS_OF_CUSTOMERS, later, error_type="")
    await replayed(shop, ORDERS_OF_CUSTOMERS, later)
    return Expected(dead_letters.ORDER, (later.address, await _last(shop, "customers")))


@fault
async def events_were_parked_out_of_order(shop: World) -> Expected:
    first, later = await _two_created(shop)
    await park(shop, ORDERS_OF_CUSTOMERS, later)
    await park(shop, ORDERS_OF_CUSTOMERS, first, error_type="")
    return Expected(dead_letters.ORDER, (first.address, await _last(shop, "customers")))


@fault
async def an_event_waits_behind_nothing(shop: World) -> Expected:
    last = (await shop.events("orders"))[-1]
    await park(shop, ORDERS_OF_CUSTOMERS, last, error_type="")
    return Expected(dead_letters.ORDER, (last.address, await _last(shop, "customers")))


@fault
async def a_row_shows_a_parked_event(shop: World) -> Expected:
    cancelled = (await _of(shop, OrderCancelled))[-1]
    await park(shop, "projector.orders", cancelled)
    return Expected(views.EQUAL, (cancelled.stream.id,))


@fault
async def a_timeline_shows_a_parked_event(shop: World) -> Expected:
    last = (await shop.events("sagas"))[-1]
    await park(shop, "projector.sagas", last)
    return Expected(views.EQUAL, (last.address,))


@fault
async def a_saga_row_shows_a_parked_event(shop: World) -> Expected:
    last = [e for e in await shop.events("sagas") if e.type == SagaCompleted.DESCRIPTOR.full_name][-1]
    await park(shop, "saga_orchestrator.sagas", last)
    return Expected(views.EQUAL, (last.stream.id,))


@fault
async def a_timeline_lacks_a_replayed_event(shop: World) -> Expected:
    last = (await shop.events("sagas"))[-1]
    await park(shop, "projector.sagas", last)
    await shop.sql("shop_views", "DELETE FROM timeline WHERE log = 'sagas' AND position = $1", last.position)
    await replayed(shop, "projector.sagas", last)
    return Expected(views.EQUAL, (last.address,))


@fault
async def an_event_of_the_projectors_log_is_gone(shop: World) -> Expected:
    for event in (await shop.events("sagas"))[-2:]:
        await park(shop, "projector.sagas", event)
    await shop.sql("shop_views", "DELETE FROM events WHERE position = 1")
    return Expected(history.GAPLESS, ("projector/1",))


@fault
async def a_message_of_the_projectors_twin_was_replaced(shop: World) -> Expected:
    await park(shop, "projector.sagas", (await shop.events("sagas"))[-1])
    [event] = await shop.events("projector")
    await shop.twin("projector").publish([event._replace(payload=b"")])
    return Expected(twins.EQUAL, ("projector/1",))


@fault
async def a_version_of_the_projectors_log_is_skipped(shop: World) -> Expected:
    await park(shop, "projector.sagas", (await shop.events("sagas"))[-1])
    await shop.sql("shop_views", "UPDATE events SET version = 9")
    return Expected(history.VERSIONS, ("dead_letters/projector.sagas", "projector/1"))


# --- how they are planted ---


ORDERS_OF_CUSTOMERS = "customer_svc.orders"
HOMES = {"customer_svc": "customers", "projector": "projector", "saga_orchestrator": "sagas"}
"""Where the consumers of a service keep what they parked."""


async def park(
    shop: World, consumer: str, event: Recorded, *, wire: bytes = b"", error_type: str = "Broken"
) -> None:
    """Has it in the log that a consumer parked an event."""
    parked = EventParked(
        consumer=consumer,
        log=event.log,
        position=event.position,
        key=event.partition_key,
        event=wire or to_wire(event),
        error_type=error_type,
        error="out of order",
        attempts=6,
    )
    await _of_letters(shop, consumer, parked, event)


async def replayed(shop: World, consumer: str, event: Recorded) -> None:
    """Has it in the log that a consumer replayed an event."""
    message = EventReplayed(
        consumer=consumer, log=event.log, position=event.position, key=event.partition_key
    )
    await _of_letters(shop, consumer, message, event)


async def _of_letters(
    shop: World, consumer: str, message: EventParked | EventReplayed, event: Recorded
) -> None:
    log = HOMES[consumer.partition(".")[0]]
    await shop.append(log, StreamId(DEAD_LETTERS.name, consumer), message, key=event.partition_key)


async def _last(shop: World, log: str) -> str:
    return (await shop.events(log))[-1].address


async def _two_created(shop: World) -> tuple[Recorded, Recorded]:
    """The first two choreographed orders of a customer."""
    first: dict[str, Recorded] = {}
    for event in await shop.events("orders"):
        if event.type == OrderCreated.DESCRIPTOR.full_name:
            if OrderCreated.FromString(event.payload).saga_mode != SAGA_MODE_CHOREOGRAPHY:
                continue
            if event.partition_key in first:
                return first[event.partition_key], event
            first[event.partition_key] = event
    raise AssertionError("no customer ordered twice")


async def _of(shop: World, kind: type[Message]) -> list[Recorded]:
    return [e for e in await shop.events("orders") if e.type == kind.DESCRIPTOR.full_name]


async def _approved(shop: World, mode: Mode) -> Recorded:
    ended = {event.stream for event in await _of(shop, OrderCancelled)}
    return next(
        event
        for event in await _of(shop, OrderApproved)
        if event.stream not in ended and OrderApproved.FromString(event.payload).saga_mode == mode
    )


async def _order(
    shop: World, deadline: datetime, mode: Mode = SAGA_MODE_CHOREOGRAPHY, customer_id: str = ""
) -> str:
    order_id, customer_id = new_id(), customer_id or new_id()
    created = OrderCreated(
        order_id=order_id,
        customer_id=customer_id,
        total=wire("0.01"),
        saga_mode=mode,
        deadline=timestamp(deadline),
    )
    await shop.append("orders", StreamId("order", order_id), created, key=customer_id)
    return order_id


async def _cancel(shop: World, stream: StreamId, customer_id: str, mode: Mode) -> None:
    cancelled = OrderCancelled(order_id=stream.id, customer_id=customer_id, saga_mode=mode)
    await shop.append("orders", stream, cancelled, key=customer_id)


async def _reserve(shop: World, customer_id: str, order_id: str, amount: str) -> None:
    reserved = CreditReserved(
        customer_id=customer_id, order_id=order_id, amount=wire(amount), saga_mode=SAGA_MODE_CHOREOGRAPHY
    )
    await shop.append("customers", StreamId("customer", customer_id), reserved, key=customer_id)


async def _saga(
    shop: World, order_id: str, then: ReserveCredit | SagaCompleted, deadline: datetime = FUTURE
) -> str:
    saga_id, customer_id = new_id(), new_id()
    trigger = OrderCreated(order_id=order_id, customer_id=customer_id, saga_mode=SAGA_MODE_ORCHESTRATION)
    started = SagaStarted(saga="credit", version=1, trigger=pack(trigger), deadline=timestamp(deadline))
    await shop.append("sagas", StreamId("credit_saga", saga_id), started, then, key=customer_id)
    return saga_id


async def _set_timer(shop: World, order_id: str, due: datetime) -> None:
    await shop.sql("shop_orders", "INSERT INTO timers VALUES ('order', $1, 1, $2)", order_id, due)


async def _checkpoint(shop: World, database: str, consumer: str, position: str) -> None:
    done = await shop.sql(
        database, f"UPDATE checkpoints SET position = {position} WHERE consumer = $1", consumer
    )
    assert done == "UPDATE 1"


async def _edit(shop: World, database: str, table: str, key: str, change: str) -> Expected:
    found = await shop.ask(database, f"SELECT {key} FROM {table} ORDER BY {key} LIMIT 1")
    await shop.sql(database, f"UPDATE {table} SET {change} WHERE {key} = $1", found)
    return Expected(views.EQUAL, (found,))
