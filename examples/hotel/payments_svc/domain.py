"""The payment of a trip: asked for, answered by the provider, and given back."""

from dataclasses import dataclass, replace
from typing import Any

from google.protobuf.message import Message
from twinlog import Aggregate, Events

from hotel.v1.payments_pb2 import PaymentDeclined, PaymentRefunded, PaymentRequested, PaymentTaken
from hotel.v1.trips_pb2 import RefundPayment, TakePayment


@dataclass(frozen=True, slots=True)
class Payment:
    trip_id: str = ""
    cents: int = 0
    mode: int = 0
    state: str = ""
    """requested, taken, declined or refunded; empty: nothing has happened."""


@dataclass(frozen=True, slots=True)
class NoteAnswer:
    accepted: bool


def decide(payment: Payment, command: TakePayment | NoteAnswer | RefundPayment) -> Events:
    ids: dict[str, Any] = {"trip_id": payment.trip_id, "mode": payment.mode}
    match command:
        case TakePayment() if not payment.state:
            return [PaymentRequested(trip_id=command.trip_id, cents=command.cents, mode=command.mode)]
        case NoteAnswer(accepted) if payment.state == "requested":
            return [PaymentTaken(**ids, cents=payment.cents) if accepted else PaymentDeclined(**ids)]
        case RefundPayment() if payment.state != "refunded":
            return [PaymentRefunded(trip_id=command.trip_id, mode=command.mode)]
    return []


def evolve(payment: Payment, event: Message) -> Payment:
    match event:
        case PaymentRequested():
            return Payment(event.trip_id, event.cents, event.mode, "requested")
        case PaymentTaken():
            return replace(payment, state="taken")
        case PaymentDeclined():
            return replace(payment, state="declined")
        case PaymentRefunded():
            return replace(payment, trip_id=event.trip_id, state="refunded")
    return payment


PAYMENT: Aggregate[Payment, TakePayment | NoteAnswer | RefundPayment] = Aggregate(
    "payment", Payment(), decide, evolve, partition_key=lambda payment: payment.trip_id
)
