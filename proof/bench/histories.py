"""Customers with as many events as are asked for, straight into a log."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from google.protobuf.message import Message

from customer_svc.domain import CUSTOMER, Customer
from shop.customers.v1.events_pb2 import CreditReleased, CreditReserved, CustomerCreated
from twinlog import Log, Metadata, Money, StreamId
from twinlog.testing.internals import NANOS_PER_UNIT, Appended, Batch, NewEvent, RandomIds

_AT_ONCE = 1_000
_IDS = RandomIds()
_METADATA = Metadata(str(_IDS.uuid7()), "rpc/CreateCustomer", "", "bench")
_ONE = Money(NANOS_PER_UNIT, "EUR")
_LIMIT = Money(10**9 * NANOS_PER_UNIT, "EUR")


def ids(count: int) -> list[str]:
    """New UUIDs."""
    return [str(_IDS.uuid7()) for _ in range(count)]


def events(customer_id: str, count: int) -> Iterator[Message]:
    """A customer is created; then orders reserve credit and, every other one, give it back."""
    yield CustomerCreated(customer_id=customer_id, name="Bench", credit_limit=_LIMIT.to_proto())
    order_id = ""
    for number in range(count - 1):
        if number % 3 == 2:
            yield CreditReleased(customer_id=customer_id, order_id=order_id, amount=_ONE.to_proto())
        else:
            order_id = str(_IDS.uuid7())
            yield CreditReserved(customer_id=customer_id, order_id=order_id, amount=_ONE.to_proto())


def new_event(customer_id: str, version: int, message: Message) -> NewEvent:
    """The event as it is appended."""
    stream = StreamId(CUSTOMER.name, customer_id)
    return NewEvent.of(stream, version, _IDS.uuid7(), message, _METADATA, customer_id)


async def append(log: Log, expects: dict[StreamId, int], new: Sequence[NewEvent]) -> int:
    """Appends events that meet no conflict; gives the position of the last one."""
    appended = await log.append(Batch(datetime.now(UTC), expects, new))
    assert isinstance(appended, Appended)
    return appended.first + len(new) - 1


async def grow(log: Log, customer_id: str, count: int) -> tuple[Customer, int]:
    """A customer of so many events; gives the state, and the position of the last event."""
    state, position, version = CUSTOMER.initial, 0, 0
    waiting: list[NewEvent] = []
    for message in events(customer_id, count):
        state = CUSTOMER.evolve(state, message)
        waiting.append(new_event(customer_id, version + len(waiting) + 1, message))
        if len(waiting) == _AT_ONCE or version + len(waiting) == count:
            position = await append(log, {waiting[0].stream: version}, waiting)
            version, waiting = version + len(waiting), []
    return state, position
