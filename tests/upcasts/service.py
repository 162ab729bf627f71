"""A service that reads its own log in every way there is: policies, effects, a saga and a view."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from google.protobuf.message import Message
from google.protobuf.wrappers_pb2 import DoubleValue, Int64Value

from shop.orders.v1.events_pb2 import OrderCreated
from tests.upcasts.kinds import CHOREOGRAPHED, SCHEMA, Optional, number_in
from twinlog import (
    Address,
    Aggregate,
    Attempt,
    Effects,
    Events,
    Policies,
    PostgresViews,
    Projection,
    Saga,
    Service,
    ServiceSpec,
    Settings,
    Step,
    View,
    on,
    saga_aggregate,
)

PACKAGE = "tests.upcasts.sql"
FAILING = 100
"""From here on, the policies fail until they are mended."""


@dataclass(frozen=True, slots=True)
class Numbers:
    """What the events of a stream say, in order."""

    numbers: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Hear:
    """Notes a number."""

    number: int


def tally(state: Numbers, event: Message) -> Numbers:
    if isinstance(event, OrderCreated):
        return state
    assert isinstance(event, Int64Value | Optional)  # no other is ever seen
    return replace(state, numbers=(*state.numbers, number_in(event)))


def heard(state: Numbers, event: Message) -> Numbers:
    assert isinstance(event, DoubleValue)
    return replace(state, numbers=(*state.numbers, int(event.value)))


def hear(_state: Numbers, command: Hear) -> Events:
    return [DoubleValue(value=command.number)]


TALLY: Aggregate[Numbers, Any] = Aggregate(
    "tally", Numbers(), lambda _state, _command: [], tally, lambda state: str([*state.numbers, ""][0])
)
HEARD: Aggregate[Numbers, Hear] = Aggregate("heard", Numbers(), hear, heard, lambda _state: "")
SAGAS = saga_aggregate(
    Saga(
        "watch",
        version=1,
        starts_with=Int64Value,
        steps=[Step("wait", done=DoubleValue)],
        partition_key=lambda _event: "one",
        id=lambda event: f"watch-{int(event.value)}",
        sources={"olds": [Int64Value, DoubleValue]},
    )
)


class Row(NamedTuple):
    """What a stream says."""

    stream: str
    numbers: str = ""


SEEN: View[Row] = View(
    "seen",
    lambda event, _message: event.stream.id,
    lambda row, event, message: Row(
        event.stream.id, f"{row.numbers if row else ''} {number_in(message)}".strip()
    ),
    events=[Int64Value, Optional],
)


class OldSettings(Settings):
    """Its settings."""

    olds_address: Address = "127.0.0.1:0"
    """Where it serves."""


SPEC = ServiceSpec(
    "old_svc",
    "olds",
    "olds",
    "tests",
    OldSettings,
    "olds_address",
    (TALLY, HEARD, SAGAS),
    SCHEMA,
    (PACKAGE,),
)


class Outside:
    """What the service does outside of its log, and whether its policies work."""

    def __init__(self) -> None:
        self.mended = False
        self.called: list[int] = []

    def wire(self, service: Service) -> None:
        """Subscribes everything."""
        service.subscribe(
            Policies(
                log="olds",
                actor="old_svc",
                rules={Int64Value: self._rule("policy"), Optional: self._rule("policy")},
            ),
            Policies(
                log="olds",
                actor="old_svc.keyed",
                routing_key=CHOREOGRAPHED,
                rules={OrderCreated: lambda event: on(HEARD, "keyed").do(Hear(int(event.order_id)))},
            ),
            Effects(
                name="mail", log="olds", actor="old_svc", rules={Int64Value: self._call, Optional: self._call}
            ),
            SAGAS,
            Projection(
                "old_svc.seen",
                [SEEN],
                PostgresViews(service.log, PACKAGE, {"seen": Row}),
                schema=service.schema,
                source="olds",
            ),
        )

    def _rule(self, id: str) -> Callable[[Any], Any]:
        def rule(event: Any) -> Any:
            number = number_in(event)
            if number >= FAILING and not self.mended:
                raise ValueError(f"{number} is too much")
            return on(HEARD, id).do(Hear(number))

        return rule

    async def _call(self, event: Any, _attempt: Attempt) -> None:
        self.called.append(number_in(event))
