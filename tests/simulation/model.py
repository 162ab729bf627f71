"""What must hold, told by a second and simpler account of the shop. Looks at every commit, at its moment."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from projector.app import VIEWS
from saga_orchestrator.views import SAGAS, SHOWN
from shop.customers.v1 import events_pb2 as customers
from shop.orders.v1 import events_pb2 as orders
from shop.orders.v1.order_pb2 import REJECTION_REASON_DEADLINE_EXCEEDED
from tests.simulation.network import Violation
from tests.simulation.tally import SEEN
from twinlog import Money, Recorded, Schema
from twinlog.model.view import fold
from twinlog.testing import START, MemoryLog, MemoryTwin, MemoryViews
from twinlog.testing.internals import (
    DEAD_LETTERS,
    AnyView,
    Appended,
    Batch,
    Changes,
    CheckpointAdvance,
    to_wire,
)
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
FOLLOWERS = {"order_svc", "customer_svc", "saga_orchestrator", "tally"}
VIEWS_OF: Mapping[str, tuple[str, Sequence[AnyView], str]] = {
    **{f"projector.{log}": (log, views, "") for log, views in VIEWS.items()},
    "saga_orchestrator.sagas": ("sagas", [SAGAS], SHOWN),
}
"""The log, the views and the tag of each projecting consumer; no tag: all events."""

_CLOCKS_AGREE = 3.0
"""Seconds: half of the longest round trip, in which a store told the time."""
_LATEST_COMMIT = 20.0
"""Seconds from a decision to its commit: longer than all faults together."""
_SCHEMA = Schema()


def decoded(event: Recorded) -> Any:
    """The event's message."""
    return _SCHEMA.decode(event)[0]


@dataclass
class Account:
    """A customer's credit; amounts in nanos."""

    limit: int = 0
    open: dict[str, int] = field(default_factory=dict)
    """What each order holds."""
    settled: set[str] = field(default_factory=set)
    """Orders that nothing may be held for any more."""


class Model:
    """Checks what is committed, published and projected."""

    def __init__(
        self,
        logs: Mapping[str, MemoryLog],
        twins: Mapping[str, MemoryTwin],
        views: Mapping[str, MemoryViews],
        failed: Callable[[BaseException], None],
        now: Callable[[], float],
        order_deadline: float,
    ) -> None:
        """``views``: by service. ``failed`` is told of what is broken outside of the model's own checks. ``now``:
        seconds by the clock of the stores. ``order_deadline``: seconds that an order may stay PENDING."""
        self.failed = failed
        self.now = now
        self.order_deadline = order_deadline
        self.logs = logs
        self.twins = twins
        self.views = views
        self.orders: dict[str, str] = defaultdict(lambda: NONE)
        self.deadlines: dict[str, float] = {}
        self.mode = 1
        self.accounts: dict[str, Account] = defaultdict(Account)
        self.sagas: dict[str, str] = {}
        self.requested: dict[str, list[Recorded]] = defaultdict(list)
        """The events that a client's command led to, by its correlation id."""
        self._versions: dict[tuple[str, Any], int] = defaultdict(int)
        self._caused: set[tuple[str, str, str, str]] = set()
        self._tallied = dict.fromkeys(SEEN, 0)
        self._folded: dict[str, int] = defaultdict(int)
        self._rows: dict[AnyView, dict[str, Any]] = defaultdict(dict)
        self.events: dict[str, list[Recorded]] = {name: [] for name in logs}
        """What each log has to hold."""
        self.forked: set[str] = set()
        """Logs that were set back, and are not repaired yet."""
        self._appliers: dict[str, Callable[[Recorded, Any], None]] = {
            "orders": self._order,
            "customers": self._customer,
            "sagas": self._saga,
            "tallies": self._tally,
        }

    # --- at every moment ---

    def committed(self, log: MemoryLog, batch: Batch, appended: Appended) -> None:
        """A batch is in a log."""
        if batch.events:
            check(log.name not in self.forked, "forks", f"{log.name} took {len(batch.events)} events, forked")
        events = log.events[appended.first - 1 :]
        self.events[log.name] += events
        check(
            len(events) == len(batch.events), "positions", f"{log.name} has other events than were appended"
        )
        self._now_or_just_before(batch.recorded_at, f"a batch of {log.name}")
        covered = {f"{advance.consumer}": advance for advance in batch.advances}
        for position, event in enumerate(events, appended.first):
            check(event.position == position, "positions", f"{event.address} is at {position}")
            version = self._versions[log.name, event.stream] + 1
            check(
                event.version == version,
                "versions",
                f"{shown(event)} is version {event.version} not {version}",
            )
            self._versions[log.name, event.stream] = version
            self._cause(event, covered)
            if event.stream.type == DEAD_LETTERS.name:
                raise Violation("parked", f"{shown(event)}: {decoded(event)}")
            self._appliers[log.name](event, decoded(event))

    def published(self, log: str, events: Sequence[Recorded]) -> None:
        """Events are in a twin."""
        messages = self.twins[log].messages or {}
        for event in events:
            self._mirrors(log, event.position, messages)
        self._mirrors(log, self.twins[log].last, messages)

    def projected(self, changes: Changes, advance: CheckpointAdvance) -> None:
        """A batch is in the views."""
        log, views, routing_key = VIEWS_OF[advance.consumer]
        check(
            self._folded[advance.consumer] == advance.after,
            "views",
            f"{advance.consumer} moved from {advance.after}, the fold is at {self._folded[advance.consumer]}",
        )
        self._fold(advance.consumer, log, views, routing_key, advance.upto)
        for view, rows in changes.items():
            for key in rows:
                self._row_is_fold(view, key)

    def set_back(self, log: str, service: str) -> None:
        """A database was set back, with the views in it."""
        if len(self.logs[log].events) < len(self.events[log]):
            self.forked.add(log)
        if service not in self.views:
            return
        of = {name: what for name, what in VIEWS_OF.items() if name.partition(".")[0] == service}
        for _, views, _ in of.values():
            for view in views:
                self._rows[view].clear()
        for consumer, (followed, views, routing_key) in of.items():
            self._folded[consumer] = 0
            reached = self.views[service].checkpoints.get(consumer, 0)
            self._fold(consumer, followed, views, routing_key, reached)

    def repaired(self, log: str) -> None:
        """A log was repaired."""
        check(self.logs[log].events == self.events[log], "forks", f"{log} is not what it was")
        self.forked.discard(log)

    # --- at the end ---

    def unfinished(self) -> Iterator[str]:
        """What keeps the shop from being at rest."""
        for name, log in self.logs.items():
            head, last = len(log.events), self.twins[name].last
            if self.twins[name].messages is None or last != head:
                yield f"the twin of {name} is at {last}, the log at {head}"
            if name in SEEN and self._tallied[name] != head:
                yield f"the tally of {name} is at {self._tallied[name]}, the log at {head}"
            if log.timers:
                yield f"timers wait in {name}: {sorted(log.timers)}"
        yield from (f"{log} is forked" for log in self.forked)
        for order, state in self.orders.items():
            if state == PENDING:
                yield f"order {order} is PENDING"
        yield from (f"saga {saga} is running" for saga, status in self.sagas.items() if status == "running")
        for consumer, (followed, _, routing_key) in VIEWS_OF.items():
            last = self._last_wanted(followed, routing_key)
            reached = self.views[consumer.partition(".")[0]].checkpoints.get(consumer, 0)
            if reached < last:
                yield f"{consumer} is at {reached}, the log at {last}"
        yield from self._unbalanced()

    def at_rest(self) -> None:
        """Checks everything that holds when nothing moves any more."""
        for name, twin in self.twins.items():
            messages = twin.messages or {}
            check(len(messages) == len(self.logs[name].events), "twin", f"the twin of {name} has holes")
            for position in messages:
                self._mirrors(name, position, messages)
        for view, rows in self._rows.items():
            stored = self._stored(view)
            if view.name != "timeline":
                check(
                    stored.keys() == rows.keys(),
                    "views",
                    f"rows of {view.name}: {stored.keys() ^ rows.keys()}",
                )
            for key in rows:
                self._row_is_fold(view, key)

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
            raise Violation("transitions", f"{shown(event)} in state {self.orders[order]}")
        self.orders[order] = after
        if isinstance(message, orders.OrderCreated):
            deadline = message.deadline.ToDatetime(UTC)
            self._now_or_just_before(deadline - timedelta(seconds=self.order_deadline), shown(event))
            self.deadlines[order] = (deadline - START).total_seconds()
        elif getattr(message, "reason", None) == REJECTION_REASON_DEADLINE_EXCEEDED:
            early = self.deadlines[order] - self.now()
            check(early < _CLOCKS_AGREE, "one clock", f"{shown(event)}, {early:.1f} s before its deadline")
        if isinstance(message, orders.OrderCreated) and event.metadata.actor == "client":
            check(message.saga_mode == self.mode, "mode", f"{shown(event)} while the mode is {self.mode}")

    def _now_or_just_before(self, time: datetime, what: str) -> None:
        """A process took the time, by the stores' clock, and had its commit some time later."""
        ago = self.now() - (time - START).total_seconds()
        check(-_CLOCKS_AGREE < ago < _LATEST_COMMIT, "one clock", f"{what} is of {ago:.1f} s ago")

    def _customer(self, event: Recorded, message: Any) -> None:
        account = self.accounts[message.customer_id]
        match message:
            case customers.CustomerCreated() | customers.CreditLimitChanged():
                account.limit = Money.of(message.credit_limit).nanos
            case customers.CreditReserved():
                order = message.order_id
                first = order not in account.settled and order not in account.open
                check(first, "holds", f"{shown(event)} once more")
                account.open[order] = Money.of(message.amount).nanos
                held = sum(account.open.values())
                check(held <= account.limit, "limit", f"{shown(event)}: {held} held of {account.limit}")
            case customers.CreditReservationFailed():
                account.settled.add(message.order_id)
            case customers.CreditReleased():
                amount = Money.of(message.amount).nanos
                held = account.open.pop(message.order_id, 0)
                check(amount == held, "holds", f"{shown(event)} gives back {amount}, held are {held}")
                account.settled.add(message.order_id)

    def _saga(self, event: Recorded, message: Any) -> None:
        saga, status = event.stream.id, self.sagas.get(event.stream.id)
        match message:
            case sagas.SagaStarted():
                check(status is None, "sagas", f"{shown(event)} once more")
                self.sagas[saga] = "running"
            case sagas.SagaCompleted():
                check(status == "running", "sagas", f"{shown(event)} of a saga that is {status}")
                self.sagas[saga] = "completed"
            case sagas.SagaInterrupted():
                check(status != "compensated", "sagas", f"{shown(event)} of a saga that is {status}")
                self.sagas[saga] = "running"
            case sagas.SagaCompensated():
                check(status == "running", "sagas", f"{shown(event)} of a saga that is {status}")
                self.sagas[saga] = "compensated"
            case _:
                check(status == "running", "sagas", f"{shown(event)} of a saga that is {status}")

    def _tally(self, event: Recorded, _message: Any) -> None:
        log, _, position = event.metadata.causation_id.partition("/")
        expected = self._tallied[log] + 1
        check(int(position) == expected, "exactly once", f"{log}/{position} was seen, not {log}/{expected}")
        self._tallied[log] = expected

    def _cause(self, event: Recorded, advances: Mapping[str, CheckpointAdvance]) -> None:
        """An event of a policy commits with its consumer's checkpoint, and once."""
        cause, actor = event.metadata.causation_id, event.metadata.actor
        log, _, position = cause.partition("/")
        if log == "rpc":
            effects = self.requested[event.metadata.correlation_id]
            once = not effects or isinstance(decoded(event), orders.SagaModeChanged)
            check(once, "requests", f"{shown(event)}, and the same request led to {[*map(shown, effects)]}")
            effects.append(event)
        elif log in self.logs and actor in FOLLOWERS:
            advance = advances.get(f"{actor}.{log}")
            check(
                advance is not None and advance.after < int(position) <= advance.upto,
                "checkpoint",
                f"{shown(event)}, caused by {cause}, came without its checkpoint",
            )
            effect = (actor, cause, str(event.stream), event.type)
            check(
                effect not in self._caused, "exactly once", f"{shown(event)}: {cause} had this effect before"
            )
            self._caused.add(effect)

    def _mirrors(self, log: str, position: int, messages: Mapping[int, tuple[str, bytes]]) -> None:
        events = self.events[log]
        check(position <= len(events), "twin", f"the twin of {log} has {position} of {len(events)} events")
        if position and position in messages:
            subject, data = messages[position]
            same = data == to_wire(events[position - 1]) and subject == events[position - 1].subject
            check(same, "twin", f"message {position} of {log} is not event {position}")

    def _fold(self, consumer: str, log: str, views: Sequence[AnyView], routing_key: str, upto: int) -> None:
        events = self.events[log][self._folded[consumer] : upto]
        wanted = [
            (event, decoded(event)) for event in events if not routing_key or event.routing_key == routing_key
        ]
        for view, rows in fold(views, wanted, self._rows).items():
            self._rows[view].update(rows)
        self._folded[consumer] = upto

    def _row_is_fold(self, view: AnyView, key: str) -> None:
        stored, folded = self._stored(view).get(key), self._rows[view].get(key)
        check(stored == folded, "views", f"{view.name}/{key} is {stored}, its fold {folded}")

    def _stored(self, view: AnyView) -> Mapping[str, Any]:
        return next((v.tables[view.name] for v in self.views.values() if view.name in v.tables), {})

    def _last_wanted(self, log: str, routing_key: str) -> int:
        events = reversed(self.logs[log].events)
        return next(
            (event.position for event in events if not routing_key or event.routing_key == routing_key), 0
        )


def check(holds: bool, promise: str, facts: str) -> None:
    """Raises Violation where something does not hold."""
    if not holds:
        raise Violation(promise, facts)


def shown(event: Recorded) -> str:
    """An event in a few words."""
    return f"{event.address} {event.type.rpartition('.')[2]} of {event.stream.type} {event.stream.id[-4:]}"
