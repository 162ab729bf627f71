"""The credit saga as given / when / then on values."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import cast

from google.protobuf.message import Message
from google.type.money_pb2 import Money
from hypothesis import given as for_all
from hypothesis import strategies as st

from saga_orchestrator.credit_saga import CREDIT_SAGA, CREDIT_SAGAS, reject_order
from shop.customers.v1.events_pb2 import CreditReleased, CreditReservationFailed, CreditReserved
from shop.orders.v1.events_pb2 import (
    OrderApprovalRefused,
    OrderApproved,
    OrderCancelled,
    OrderCreated,
    OrderRejected,
)
from shop.orders.v1.order_pb2 import (
    REJECTION_REASON_DEADLINE_EXCEEDED,
    REJECTION_REASON_INSUFFICIENT_CREDIT,
    RejectionReason,
)
from shop.sagas.v1 import commands_pb2 as commands
from twinlog import Begin, Reply, SagaInstance, SagaStatus, timestamp
from twinlog.model.messages import pack
from twinlog.model.saga import Command, Wake
from twinlog.testing.internals import StateCodec, StepState

NOW = datetime(2030, 1, 1, tzinfo=UTC)
DEADLINE = NOW + timedelta(seconds=30)
CREATED = OrderCreated(
    order_id="o",
    customer_id="c",
    total=Money(currency_code="EUR", units=12),
    deadline=timestamp(DEADLINE),
)
RESERVED = CreditReserved(order_id="o", customer_id="c")
REFUSED = CreditReservationFailed(order_id="o", reason=REJECTION_REASON_INSUFFICIENT_CREDIT)
RELEASED = CreditReleased(order_id="o", customer_id="c")
APPROVED = OrderApproved(order_id="o", customer_id="c")
REJECTED = OrderRejected(order_id="o", customer_id="c")
CANCELLED = OrderCancelled(order_id="o", customer_id="c")
BEGIN = Begin(CREATED, NOW)


def after(*past: Command) -> SagaInstance:
    """The instance after these commands; each is given twice, and the second time decides nothing."""
    instance = CREDIT_SAGAS.initial
    for command in past:
        instance = CREDIT_SAGAS.fold(CREDIT_SAGAS.decide(instance, command), instance)
        if not isinstance(command, Wake):
            assert not CREDIT_SAGAS.decide(instance, command)
    return instance


def decided(*past: Command) -> Sequence[Message]:
    """What the last of these commands decides."""
    return CREDIT_SAGAS.decide(after(*past[:-1]), past[-1])


def names(events: Sequence[Message]) -> list[str]:
    return [event.DESCRIPTOR.name for event in events]


def reply(event: Message) -> Reply:
    return Reply(event, NOW)


def test_begins_by_reserving_the_credit() -> None:
    started, command = decided(BEGIN)
    assert names([started]) == ["SagaStarted"]
    assert command == commands.ReserveCredit(
        order_id="o", customer_id="c", total=CREATED.total, deadline=CREATED.deadline
    )
    assert after(BEGIN).deadline == DEADLINE, "the order's own"


def test_approves_when_the_credit_is_reserved_then_completes() -> None:
    assert names(decided(BEGIN, reply(RESERVED))) == ["SagaStepSucceeded", "ApproveOrder"]
    assert names(decided(BEGIN, reply(RESERVED), reply(APPROVED))) == ["SagaCompleted"]
    assert after(BEGIN, reply(RESERVED)).deadline is None
    assert after(BEGIN, reply(RESERVED), reply(APPROVED)).steps == (StepState.DONE, StepState.DONE)


def test_rejects_with_the_participants_reason() -> None:
    failed, command = decided(BEGIN, reply(REFUSED))
    assert names([failed]) == ["SagaStepFailed"]
    assert command == commands.RejectOrder(
        order_id="o", customer_id="c", reason=REJECTION_REASON_INSUFFICIENT_CREDIT
    )
    ended = after(BEGIN, reply(REFUSED), reply(REJECTED))
    assert (ended.status, ended.reason) == (SagaStatus.COMPENSATED, "INSUFFICIENT_CREDIT")


def test_a_step_past_its_deadline_is_undone_though_it_may_yet_happen() -> None:
    late = Wake(NOW + timedelta(seconds=30))
    assert names(decided(BEGIN, late)) == ["SagaStepFailed", "ReleaseCredit"]
    closing = decided(BEGIN, late, reply(RELEASED))
    assert closing[-1] == commands.RejectOrder(
        order_id="o", customer_id="c", reason=REJECTION_REASON_DEADLINE_EXCEEDED
    )
    assert after(BEGIN, late, reply(RELEASED), reply(REJECTED)).status is SagaStatus.COMPENSATED


def test_a_late_deadline_or_reply_does_nothing() -> None:
    assert not decided(BEGIN, Wake(NOW + timedelta(seconds=29)))
    assert not decided(BEGIN, reply(RESERVED), Wake(NOW + timedelta(days=1)))
    assert not decided(BEGIN, Wake(NOW + timedelta(seconds=30)), reply(RESERVED))


def test_a_cancellation_in_flight_releases_and_sends_no_rejection() -> None:
    cancel = reply(CANCELLED)
    assert names(decided(BEGIN, cancel)) == ["SagaInterrupted", "ReleaseCredit"]
    assert names(decided(BEGIN, cancel, reply(RELEASED))) == ["SagaStepCompensated", "SagaCompensated"]
    assert not decided(BEGIN, cancel, reply(RESERVED))


def test_a_step_refused_while_it_is_being_undone_needs_no_release() -> None:
    cancel = reply(CANCELLED)
    assert names(decided(BEGIN, cancel, reply(REFUSED))) == ["SagaStepCompensated", "SagaCompensated"]


def test_a_refused_approval_releases_the_credit() -> None:
    cancel, refused = reply(CANCELLED), reply(OrderApprovalRefused(order_id="o"))
    assert names(decided(BEGIN, reply(RESERVED), cancel)) == ["SagaInterrupted", "ReleaseCredit"]
    assert not decided(BEGIN, reply(RESERVED), cancel, refused)
    assert names(decided(BEGIN, reply(RESERVED), refused)) == ["SagaStepFailed", "ReleaseCredit"]


def test_a_cancellation_after_completion_releases_the_credit() -> None:
    done = (BEGIN, reply(RESERVED), reply(APPROVED))
    assert names(decided(*done, reply(CANCELLED))) == ["SagaInterrupted", "ReleaseCredit"]
    ended = after(*done, reply(CANCELLED), reply(RELEASED))
    assert ended.status is SagaStatus.COMPENSATED
    assert ended.steps == (StepState.COMPENSATED, StepState.DONE)


def test_a_cancellation_while_rejecting_ends_the_saga() -> None:
    assert names(decided(BEGIN, reply(REFUSED), reply(CANCELLED))) == [
        "SagaInterrupted",
        "SagaCompensated",
    ]


EXPIRED = OrderRejected(order_id="o", customer_id="c", reason=REJECTION_REASON_DEADLINE_EXCEEDED)


def test_an_order_that_expired_meanwhile_is_undone_without_rejecting_it_again() -> None:
    assert names(decided(BEGIN, reply(EXPIRED))) == ["SagaInterrupted", "ReleaseCredit"]
    ended = after(BEGIN, reply(RESERVED), reply(EXPIRED), reply(RELEASED))
    assert (ended.status, ended.reason) == (SagaStatus.COMPENSATED, "DEADLINE_EXCEEDED")


def test_a_step_that_timed_out_while_the_order_expired_ends_without_a_closing_command() -> None:
    late = Wake(NOW + timedelta(seconds=30))
    assert names(decided(BEGIN, late, reply(EXPIRED), reply(RELEASED)))[-1] == "SagaCompensated"


def test_compensations_are_retried_and_ask_for_attention_past_the_threshold() -> None:
    instance = after(BEGIN, reply(CANCELLED))
    seen: list[str] = []
    for _ in range(CREDIT_SAGA.backoff.attention_after + 3):
        assert instance.deadline is not None
        events = CREDIT_SAGAS.decide(instance, Wake(instance.deadline))
        assert names(events)[-2:] == ["SagaCommandRetried", "ReleaseCredit"]
        seen += names(events)
        instance = CREDIT_SAGAS.fold(events, instance)
    assert seen.count("SagaNeedsAttention") == 1
    assert instance.needs_attention
    ended = CREDIT_SAGAS.fold(CREDIT_SAGAS.decide(instance, reply(RELEASED)), instance)
    assert (ended.status, ended.needs_attention) == (SagaStatus.COMPENSATED, False)


def test_a_snapshot_gives_the_same_instance() -> None:
    codec = StateCodec(CREDIT_SAGAS)
    past = BEGIN, reply(RESERVED), reply(APPROVED)
    for instance in (CREDIT_SAGAS.initial, after(*past[:1]), after(BEGIN, reply(REFUSED)), after(*past)):
        assert codec.decode(codec.encode(instance)) == instance


def test_a_snapshot_has_a_reply_as_base64_of_an_any_in_an_any() -> None:
    """It is the storage format."""
    replies = json.loads(StateCodec(CREDIT_SAGAS).encode(after(BEGIN, reply(RESERVED))))["replies"]
    stored = base64.b64encode(pack(pack(RESERVED)).SerializeToString(deterministic=True)).decode()
    assert replies == {"reserve credit": stored}


def test_instances_in_memory_share_what_is_alike_and_keep_replies_as_bytes() -> None:
    """There are 20,000 of them in a process, and a message takes half a kilobyte."""
    one, other = (after(BEGIN, reply(RESERVED), reply(APPROVED)) for _ in range(2))
    for field in ("steps", "awaited", "happened", "early"):
        assert getattr(one, field) is getattr(other, field), field
    assert {step: type(kept) for step, kept in one.replies.items()} == {
        "reserve credit": bytes,
        "approve order": bytes,
    }


def test_the_rejection_of_an_unanswered_order_says_so() -> None:
    assert reject_order(after(BEGIN).context).reason == REJECTION_REASON_DEADLINE_EXCEEDED


def test_a_reason_that_only_a_newer_version_knows_is_passed_on() -> None:
    newer = cast("RejectionReason.ValueType", 1 + max(RejectionReason.values()))
    refused = after(BEGIN, reply(CreditReservationFailed(order_id="o", reason=newer)))
    assert refused.reason == str(newer)
    assert reject_order(refused.context).reason == newer


INPUTS = [reply(e) for e in (RESERVED, REFUSED, RELEASED, APPROVED, REJECTED)]


@for_all(st.lists(st.sampled_from([BEGIN, reply(CANCELLED), *INPUTS]), max_size=12))
def test_any_order_of_inputs_leaves_a_consistent_instance(inputs: list[Command]) -> None:
    instance = after(*inputs)
    ended = instance.status in (SagaStatus.NONE, SagaStatus.COMPLETED, SagaStatus.COMPENSATED)
    assert ended == (instance.current is None)
    if instance.status is SagaStatus.COMPENSATED:
        assert StepState.DONE not in instance.steps[:1]
