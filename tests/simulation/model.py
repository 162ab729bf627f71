"""What must hold in the shop, told by a second and simpler account of it. Looks at every commit, at its moment."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from google.protobuf.message import Message

from shop.customers.v1 import events_pb2 as customers
from shop.orders.v1 import events_pb2 as orders
from shop.orders.v1.order_pb2 import REJECTION_REASON_DEADLINE_EXCEEDED
from tests.simulation import tally
from tests.simulation.tally import SEEN
from twinlog import Money, Recorded
from twinlog.testing import Call, Invariants, Scene, Violation, check
from twinlog.v1 import saga_pb2 as sagas

NONE, PENDING, APPROVED, REJECTED, CANCELLED = "none", "PENDING", "APPROVED", "REJECTED", "CANCELLED"
LEGAL = {
    (NONE, orders.OrderCreated): PENDING,
    (PENDING, orders.OrderApproved): APPROVED,
    (PENDING, orders.OrderRejected): REJECTED,
    (PENDING, orders.OrderCancelled): CANCELLED,
    (APPROVED, orders.OrderCancelled): CANCELLED,
    (CANCELLED, orders.OrderApprovalRefused): CANCELLED,
    (REJECTED, orders.OrderApprovalRefused): REJECTED,
}

_CLOCKS_AGREE = 3.0
"""Seconds: half of the longest round trip, in which a store told the time."""
_LATEST_COMMIT = 20.0
"""Seconds from a decision to its commit: longer than all faults together."""


@dataclass
class Account:
    """A customer's credit; amounts in nanos."""

    limit: int = 0
    open: dict[str, int] = field(default_factory=dict)
    """What each order holds."""
    settled: set[str] = field(default_factory=set)
    """Orders that nothing may be held for any more."""


class Model(Invariants):
    """Orders, credit, sagas and the tally, as they should be. The scene's options: the orders' deadline in seconds."""

    def __init__(self, scene: Scene) -> None:
        super().__init__(scene)
        self.orders: dict[str, str] = defaultdict(lambda: NONE)
        self.deadlines: dict[str, datetime] = {}
        self.mode = 1
        self.accounts: dict[str, Account] = defaultdict(Account)
        self.sagas: dict[str, str] = {}
        self._tallied = dict.fromkeys(SEEN if tally.HOSTED.name in scene.survey.hosted else (), 0)
        self._caused: set[tuple[str, str, str, str]] = set()
        self._appliers: dict[str, Callable[[Recorded, Any], None]] = {
            "orders": self._order,
            "customers": self._customer,
            "sagas": self._saga,
            "tallies": self._tally,
        }

    # --- at every moment ---

    def event(self, event: Recorded, message: Any) -> None:
        self._once(event)
        self._appliers[event.log](event, message)

    def acknowledged(self, call: Call, response: Message) -> None:
        effects = self.scene.requested.get(call.correlation_id, [])
        match call.method:
            case "CreateOrder":
                check(len(effects) == 1, "acknowledged", f"{len(effects)} effects of {call}")
                order = getattr(response, "order_id")  # noqa: B009 - the response's type is the method's
                check(self.orders[order] != NONE, "acknowledged", f"lost: {call}")
            case "CancelOrder":
                check(self.orders[call.request.order_id] == CANCELLED, "acknowledged", f"lost: {call}")
            case "CreateCustomer":
                check(len(effects) == 1, "acknowledged", f"{len(effects)} effects of {call}")

    def _once(self, event: Recorded) -> None:
        """No command of the shop has two events, so that each cause has one effect on a stream."""
        cause = event.metadata.causation_id
        if cause.startswith("rpc/"):
            effects = self.scene.requested[event.metadata.correlation_id]
            once = len(effects) == 1 or event.type.endswith("SagaModeChanged")
            check(once, "requests", f"{_shown(event)} is one of {len(effects)} effects of a request")
        elif event.metadata.actor in self.scene.survey.hosted and cause.partition("/")[0] in self.scene.logs:
            effect = (event.metadata.actor, cause, str(event.stream), event.type)
            first = effect not in self._caused
            check(first, "exactly once", f"{_shown(event)}: {cause} had this effect before")
            self._caused.add(effect)

    # --- at the end ---

    def unfinished(self) -> Iterator[str]:
        for name, tallied in self._tallied.items():
            head = len(self.scene.logs[name].events)
            if tallied != head:
                yield f"the tally of {name} is at {tallied}, the log at {head}"
        for name, log in self.scene.logs.items():
            if log.timers:
                yield f"timers wait in {name}: {sorted(log.timers)}"
        for order, state in self.orders.items():
            if state == PENDING:
                yield f"order {order} is PENDING"
        yield from (f"saga {saga} is running" for saga, status in self.sagas.items() if status == "running")
        yield from self._unbalanced()

    def _unbalanced(self) -> Iterator[str]:
        holding = {order for account in self.accounts.values() for order in account.open}
        for order, state in self.orders.items():
            if state == APPROVED and order not in holding:
                yield f"order {order} is APPROVED and holds no credit"
            if state in (REJECTED, CANCELLED) and order in holding:
                yield f"order {order} is {state} and holds credit"
        for order in holding - self.orders.keys():
            yield f"there is no order {order}, and it holds credit"

    # --- each log ---

    def _order(self, event: Recorded, message: Any) -> None:
        if isinstance(message, orders.SagaModeChanged):
            self.mode = message.saga_mode
            return
        order = message.order_id
        after = LEGAL.get((self.orders[order], type(message)))
        if after is None:
            raise Violation("transitions", f"{_shown(event)} in state {self.orders[order]}")
        self.orders[order] = after
        if isinstance(message, orders.OrderCreated):
            self._deadline_is_set(event, message)
        elif getattr(message, "reason", None) == REJECTION_REASON_DEADLINE_EXCEEDED:
            early = (self.deadlines[order] - self.scene.now()).total_seconds()
            check(early < _CLOCKS_AGREE, "one clock", f"{_shown(event)}, {early:.1f} s before its deadline")
        if isinstance(message, orders.OrderCreated) and event.metadata.actor == "client":
            check(message.saga_mode == self.mode, "mode", f"{_shown(event)} while the mode is {self.mode}")

    def _deadline_is_set(self, event: Recorded, message: orders.OrderCreated) -> None:
        """By the stores' clock, of some time before the commit."""
        deadline = self.deadlines[message.order_id] = message.deadline.ToDatetime(UTC)
        decided = deadline - timedelta(seconds=self.scene.options)
        ago = (self.scene.now() - decided).total_seconds()
        check(-_CLOCKS_AGREE < ago < _LATEST_COMMIT, "one clock", f"{_shown(event)} is of {ago:.1f} s ago")

    def _customer(self, event: Recorded, message: Any) -> None:
        account = self.accounts[message.customer_id]
        match message:
            case customers.CustomerCreated() | customers.CreditLimitChanged():
                account.limit = Money.of(message.credit_limit).nanos
            case customers.CreditReserved():
                order = message.order_id
                first = order not in account.settled and order not in account.open
                check(first, "holds", f"{_shown(event)} once more")
                account.open[order] = Money.of(message.amount).nanos
                held = sum(account.open.values())
                check(held <= account.limit, "limit", f"{_shown(event)}: {held} held of {account.limit}")
            case customers.CreditReservationFailed():
                account.settled.add(message.order_id)
            case customers.CreditReleased():
                amount = Money.of(message.amount).nanos
                held = account.open.pop(message.order_id, 0)
                check(amount == held, "holds", f"{_shown(event)} gives back {amount}, held are {held}")
                account.settled.add(message.order_id)

    def _saga(self, event: Recorded, message: Any) -> None:
        saga, status = event.stream.id, self.sagas.get(event.stream.id)
        match message:
            case sagas.SagaStarted():
                check(status is None, "sagas", f"{_shown(event)} once more")
                self.sagas[saga] = "running"
            case sagas.SagaCompleted():
                check(status == "running", "sagas", f"{_shown(event)} of a saga that is {status}")
                self.sagas[saga] = "completed"
            case sagas.SagaInterrupted():
                check(status != "compensated", "sagas", f"{_shown(event)} of a saga that is {status}")
                self.sagas[saga] = "running"
            case sagas.SagaCompensated():
                check(status == "running", "sagas", f"{_shown(event)} of a saga that is {status}")
                self.sagas[saga] = "compensated"
            case _:
                check(status == "running", "sagas", f"{_shown(event)} of a saga that is {status}")

    def _tally(self, event: Recorded, _message: Any) -> None:
        log, _, position = event.metadata.causation_id.partition("/")
        expected = self._tallied[log] + 1
        check(int(position) == expected, "exactly once", f"{log}/{position} was seen, not {log}/{expected}")
        self._tallied[log] = expected


def _shown(event: Recorded) -> str:
    return f"{event.address} {event.type.rpartition('.')[2]} of {event.stream.type} {event.stream.id[-4:]}"
