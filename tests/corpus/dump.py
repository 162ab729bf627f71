"""Runs in the tree of a release, with its code: a shop that has seen everything, as lines of JSON.

``python -m tests.corpus.dump FOLDER`` writes a file for each log. Few streams are kept: those that
show a type, and a routing key, for the first time.
"""

from __future__ import annotations

import asyncio
import base64
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from google.protobuf.json_format import MessageToDict

from order_svc.domain import SHOP
from proof.auditor.shop import LOGS
from shop.orders.v1.events_pb2 import SagaModeChanged
from shop.orders.v1.saga_mode_pb2 import SAGA_MODE_ORCHESTRATION
from tests.audit.world import World, world
from tests.corpus.meaning import meaning
from twinlog import Recorded, Schema, StreamId
from twinlog.testing.internals import DEAD_LETTERS, to_wire
from twinlog.v1.dead_letters_pb2 import EventDiscarded, EventParked, EventReplayed, EventReplayFailed
from twinlog.v1.saga_pb2 import SagaCommandRetried, SagaNeedsAttention

_SCHEMA = Schema()


async def _seldom(shop: World) -> None:
    """Appends what a sound shop hardly ever writes."""
    await shop.append(
        "orders", StreamId("saga_mode", SHOP), SagaModeChanged(saga_mode=SAGA_MODE_ORCHESTRATION), key=SHOP
    )
    event = (await shop.events("orders"))[0]
    consumer = "customer_svc.orders"
    of: dict[str, Any] = {
        "consumer": consumer,
        "log": event.log,
        "position": event.position,
        "key": event.partition_key,
    }
    failure: dict[str, Any] = {"error_type": "Broken", "error": "out of order"}
    parked = EventParked(**of, **failure, event=to_wire(event), attempts=6)
    replayed = EventReplayFailed(**of, **failure), EventReplayed(**of)
    await shop.append(
        "customers",
        StreamId(DEAD_LETTERS.name, consumer),
        *(parked, *replayed, parked, EventDiscarded(**of)),
        key=event.partition_key,
    )
    sagas = await shop.events("sagas")
    first = [each for each in sagas if each.stream == sagas[0].stream][:2]
    await shop.append(
        "sagas",
        StreamId(sagas[0].stream.type, event.stream.id),
        *(message for each in first for message in _SCHEMA.decode(each)),
        SagaCommandRetried(step=0, attempt=2),
        SagaNeedsAttention(step=0, attempts=5),
        key=first[0].partition_key,
    )


def _chosen(events: Sequence[Recorded]) -> Iterator[Recorded]:
    """Whole streams, in the order of the log."""
    shown: set[tuple[str, str]] = set()
    streams = set()
    for event in events:
        if (event.type, event.routing_key) not in shown:
            shown |= {(each.type, each.routing_key) for each in events if each.stream == event.stream}
            streams.add(event.stream)
    return (event for event in events if event.stream in streams)


def _lines(events: Sequence[Recorded], aggregates: Sequence[Any]) -> Iterator[str]:
    initial = {each.name: each.initial for each in aggregates}
    evolve = {each.name: each.evolve for each in aggregates}
    states: dict[StreamId, Any] = {}
    for event in events:
        (message,) = _SCHEMA.decode(event)
        line = {
            "subject": event.subject,
            "message": base64.b64encode(to_wire(event)).decode(),
            "type": event.type,
            "says": MessageToDict(message, preserving_proto_field_name=True),
        }
        if event.stream.type in evolve:
            state = states.get(event.stream, initial[event.stream.type])
            states[event.stream] = evolve[event.stream.type](state, message)
            line["then"] = meaning(states[event.stream])
        yield json.dumps(line, sort_keys=True)


async def main(folder: Path) -> None:
    """Writes the files."""
    async with world() as shop:
        await _seldom(shop)
        for of in LOGS:
            if events := [*_chosen(await shop.events(of.log))]:
                lines = [*_lines(events, of.aggregates)]
                (folder / f"{of.log}.jsonl").write_text("".join(f"{line}\n" for line in lines))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
