"""What personal fields cost: microseconds of processor time for each event, sealed and opened.

``python -m proof.bench.sealing`` prints them, beside the cipher alone and beside events that have none.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from uuid import uuid4

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from google.type.money_pb2 import Money

from proof.bench.report import Row
from shop.customers.v1.events_pb2 import CreditReserved, CustomerCreated
from stack.console import console
from twinlog import Metadata, Personal, Recorded, StreamId
from twinlog.testing.internals import NONCE_BYTES, MemoryKeys, NewEvent, seal, unseal

EVENTS = 256
ROUNDS = 40
TARGET = 3.0
"""Microseconds for a field; the event around it is parsed and serialized besides."""
_SEAL, _UNSEAL = "a personal field, sealed", "a personal field, opened"
_SEALED, _OPENED, _PLAIN = "an event with one, sealed", "an event with one, opened", "an event without any"
_CIPHER = "AES-GCM alone"


async def _microseconds(work: Callable[[], Awaitable[object]]) -> float:
    """Of processor time for each event, in the fastest round: that with the least of others in it."""
    fastest = float("inf")
    for _ in range(ROUNDS):
        began = time.process_time()
        await work()
        fastest = min(fastest, time.process_time() - began)
    return fastest / EVENTS * 1e6


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


async def costs() -> Mapping[str, float]:
    """Microseconds, by what is done."""
    key = AESGCM(os.urandom(32))

    async def encrypt() -> None:
        for _ in range(EVENTS):
            key.encrypt(os.urandom(NONCE_BYTES), b"Ada Lovelace", b"ada")

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
        _CIPHER: await _microseconds(encrypt),
        _SEAL: await _microseconds(seal_fields),
        _UNSEAL: await _microseconds(open_fields),
        _SEALED: await _microseconds(lambda: personal.sealed(named)),
        _OPENED: await _microseconds(lambda: personal.opened(stored)),
        _PLAIN: await _microseconds(lambda: personal.sealed(plain)),
    }


async def rows() -> list[Row]:
    """The rows of the bench, each beside the cipher alone."""
    found = await costs()
    kinds = [
        Row(what, "µs of processor time", base=_CIPHER).add(found[what], to=found[_CIPHER])
        for what in (_SEAL, _UNSEAL, _SEALED, _OPENED, _PLAIN)
    ]
    for row in kinds[:2]:
        row.aim(value=TARGET, most=True)
    return kinds


if __name__ == "__main__":
    for what, cost in asyncio.run(costs()).items():
        console.print(f"{what:<42}{cost:6.2f} µs")
