"""What personal fields cost: microseconds of processor time for each field, sealed and opened.

``python -m tests.bench.sealing`` prints them.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from uuid import uuid4

from google.type.money_pb2 import Money

from shop.customers.v1.events_pb2 import CreditReserved, CustomerCreated
from twinlog import Metadata, Recorded, StreamId
from twinlog.log.keys import cipher
from twinlog.log.personal import Personal
from twinlog.memory.keys import MemoryKeys
from twinlog.model.event import NewEvent
from twinlog.model.personal import NONCE_BYTES, seal, unseal

EVENTS = 256
ROUNDS = 40


async def _microseconds(work: Callable[[], Awaitable[object]], of: int) -> float:
    """Of processor time for each of so many, in the fastest round: that with the least of others in it."""
    fastest = float("inf")
    for _ in range(ROUNDS):
        began = time.process_time()
        await work()
        fastest = min(fastest, time.process_time() - began)
    return fastest / of * 1e6


def _events(personal: bool) -> list[NewEvent]:
    made = []
    for number in range(EVENTS):
        stream = StreamId("customer", f"customer-{number:027}")
        limit = Money(currency_code="EUR", units=100)
        message = (
            CustomerCreated(customer_id=stream.id, name="Ada Lovelace", credit_limit=limit)
            if personal
            else CreditReserved(customer_id=stream.id, order_id=stream.id, amount=limit)
        )
        made.append(NewEvent.of(stream, 1, uuid4(), message, Metadata(), stream.id))
    return made


async def costs() -> dict[str, float]:
    """Microseconds, by what is done."""
    key = cipher(os.urandom(32))
    sealed = seal(key, os.urandom(NONCE_BYTES), "ada", "Ada Lovelace")

    async def seal_fields() -> None:
        for _ in range(EVENTS):
            seal(key, os.urandom(NONCE_BYTES), "ada", "Ada Lovelace")

    async def open_fields() -> None:
        for _ in range(EVENTS):
            unseal(key, "ada", sealed)

    personal = Personal(MemoryKeys())
    plain, named = _events(personal=False), _events(personal=True)
    stored = [
        Recorded("customers", at, *event, datetime.now(UTC))
        for at, event in enumerate(await personal.sealed(named), 1)
    ]
    return {
        "a field, sealed": await _microseconds(seal_fields, EVENTS),
        "a field, opened": await _microseconds(open_fields, EVENTS),
        "an event with a field, sealed": await _microseconds(lambda: personal.sealed(named), EVENTS),
        "an event with a field, opened": await _microseconds(lambda: personal.opened(stored), EVENTS),
        "an event without any": await _microseconds(lambda: personal.sealed(plain), EVENTS),
    }


if __name__ == "__main__":
    for what, cost in asyncio.run(costs()).items():
        print(f"{what:<32}{cost:6.2f} µs")
