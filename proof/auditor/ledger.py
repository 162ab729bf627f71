"""The shop's ledger: order, credit and saga of each case side by side, and the rules that hold between them.

A *case* is an order with everything that happens because of it. What one log alone must never do (reserve beyond the
limit, approve what is not pending) is judged at once. What two logs must agree on is judged when the case is
*quiet*: every consumer is past the events of the case, and every event of the case has a cause that was read.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, cast

from customer_svc.domain import Customer
from order_svc.domain import Order, State
from saga_orchestrator.credit_saga import VERSIONS, name_of, saga_id
from shop.customers.v1.events_pb2 import CreditReleased, CreditReservationFailed, CreditReserved
from shop.orders.v1.events_pb2 import OrderApproved, OrderCancelled, OrderCreated, OrderRejected
from shop.orders.v1.order_pb2 import RejectionReason
from shop.orders.v1.saga_mode_pb2 import SAGA_MODE_ORCHESTRATION
from shop.sagas.v1.commands_pb2 import RejectOrder
from stack.topology import ORDER_SVC, OWNERS
from twinlog import Money, SagaInstance, SagaStatus, StreamId
from twinlog.audit import Change, Findings, set_checkpoint
from twinlog.testing.internals import StepState
from twinlog.v1.saga_pb2 import SagaCompensated, SagaCompleted

TRANSITIONS = "order transitions"
LIMIT = "reserved within limit"
RESERVATIONS = "reservations"
SUMS = "credit sums"
APPROVED = "approved order holds its total"
RELEASED = "ended order holds nothing"
ANSWERED = "nothing lost between services"
DEADLINES = "nothing past its deadline"
TERMINAL = "terminal saga is all done or all undone"
AGREES = "saga agrees with its order"
REASON = "reason reaches the order"

_FROM: Mapping[type, Collection[State]] = {
    OrderCreated: (State.NONE,),
    OrderApproved: (State.PENDING,),
    OrderRejected: (State.PENDING,),
    OrderCancelled: (State.PENDING, State.APPROVED),
}
_OPEN = (StepState.RUNNING, StepState.DONE, StepState.TIMED_OUT, StepState.COMPENSATING)
_SKIPPED = (StepState.SKIPPED, StepState.UNDO_SKIPPED)


@dataclass(slots=True)
class Case:
    """What is known about one order."""

    order_id: str
    order: Order | None = None
    total: Money | None = None
    created: int = 0
    """Position of OrderCreated."""
    changed: int = 0
    """Position of the order's last event."""
    reason: RejectionReason.ValueType | None = None
    """The reason in the saga's command that rejected the order; None where none did."""
    customer_id: str = ""
    """The customer whose credit was asked for."""
    held: Money | None = None
    """The credit that is held: zero where it was refused or released, None without an answer."""
    answered: int = 0
    """Position in the customers log of the last event about the credit."""
    saga: SagaInstance | None = None
    saga_id: str = ""
    saga_at: int = 0

    @property
    def holds(self) -> bool:
        """Whether credit is held."""
        return self.held is not None and self.held.nanos > 0

    @property
    def state(self) -> State:
        return self.order.state if self.order else State.NONE

    @property
    def orchestrated(self) -> bool:
        return self.order is not None and self.order.saga_mode == SAGA_MODE_ORCHESTRATION

    @property
    def over(self) -> bool:
        """Whether the order and its saga have ended."""
        running = self.saga is not None and self.saga.status in (SagaStatus.RUNNING, SagaStatus.COMPENSATING)
        return self.state is not State.PENDING and not running

    @property
    def skipped(self) -> str:
        """The steps that an operator skipped and that the credit depends on, in words."""
        if self.saga is None or self.saga.version not in VERSIONS:
            return ""
        steps = zip(VERSIONS[self.saga.version].steps, self.saga.steps, strict=True)
        return ", ".join(
            f"step '{step.name}' was skipped" for step, state in steps if step.undo and state in _SKIPPED
        )

    @property
    def held_unaccounted(self) -> Mapping[str, int]:
        """The credit that no approved order accounts for, in nanos by customer."""
        found: Counter[str] = Counter({self.customer_id: self.held.nanos} if self.held else {})
        if self.order and self.state is State.APPROVED and self.total:
            found[self.order.customer_id] -= self.total.nanos
        return found

    def events(self) -> list[str]:
        """The address of its last event in each log."""
        found = [("orders", self.changed), ("customers", self.answered), ("sagas", self.saga_at)]
        return [f"{log}/{position}" for log, position in found if position]


class Ledger:
    """Records the cases and judges them."""

    def __init__(self, grace: timedelta) -> None:
        """``grace``: how long an order or a saga may be overdue before that is a violation."""
        self.orders: Counter[str] = Counter()
        self.sagas: Counter[str] = Counter()
        self._grace = grace
        self._cases: dict[str, Case] = {}
        self._unresolved: set[str] = set()
        """Cases that changed, are not quiet, are not over or break a rule."""
        self._excused: set[str] = set()
        """Those that break a rule because of what an operator did."""
        self._customers: set[str] = set()
        """Customers whose sums have to be compared."""
        self._approved: defaultdict[str, int] = defaultdict(int)
        self._reserved: defaultdict[str, int] = defaultdict(int)
        self._takers: Mapping[str, Callable[[Change, Findings], None]] = {
            "order": self._take_order,
            "customer": self._take_customer,
            "credit_saga": self._take_saga,
        }

    def take(self, change: Change, findings: Findings) -> str:
        """Records a change; returns the id of its case, empty where it belongs to none.

        Of a stream that cannot be read, nothing is recorded.
        """
        take = self._takers.get(change.event.stream.type)
        if take is not None and change.after is not None:
            take(change, findings)
        return _case_of(change)

    def touched_by(self, streams: Collection[StreamId]) -> set[str]:
        """The open cases that depend on the states of some streams."""
        if not streams:
            return set()
        ids = {stream.id for stream in streams}
        return {id for id in self._unresolved if id in ids or saga_id(id) in ids} | self.cases_of(ids)

    def cases_of(self, customer_ids: Collection[str]) -> set[str]:
        """The open cases of some customers."""
        return {
            id
            for id in self._unresolved
            if (case := self._cases[id]).customer_id in customer_ids
            or (case.order and case.order.customer_id in customer_ids)
        }

    def waiting(self, now: datetime) -> tuple[int, int]:
        """The numbers of orders and of sagas that have not ended and are in time."""
        cases = [self._cases[id] for id in self._unresolved]
        pending = sum(case.state is State.PENDING and not self._late(case.order, now) for case in cases)
        return pending, sum(
            _runs(case.saga) and not self._late(case.saga, now) and not self._stays(case) for case in cases
        )

    def _stays(self, case: Case) -> bool:
        """Whether its saga stays as it is for good, which is excused."""
        return case.order_id in self._excused and case.saga is not None and case.saga.deadline is None

    def judge(
        self,
        in_flight: Collection[str],
        excused: Mapping[str, str],
        customers: Callable[[str], Customer | None],
        now: datetime | None,
        findings: Findings,
        unreadable: Collection[StreamId] = (),
    ) -> int:
        """Judges the cases that changed or are open; returns how many.

        ``in_flight`` are the cases that are not quiet; what depends on ``unreadable`` streams is not judged;
        ``excused`` says what an operator gave up, by case;
        ``customers`` gives a customer's state; ``now`` is None while no service runs that could keep a deadline.
        """
        judged, busy = len(self._unresolved), {stream.id for stream in unreadable}
        unknown = self.touched_by(unreadable)
        self._excused.clear()
        for id in list(self._unresolved):
            case, known = self._cases[id], findings.counts.total()
            if now is not None and id not in unknown:
                self._judge_deadlines(case, now, findings)
            quiet = id not in in_flight and id not in unknown
            if quiet and _judge(case, excused.get(id, ""), findings):
                self._excused.add(id)
                self._customers.update(case.held_unaccounted)
            elif quiet and case.over and findings.counts.total() == known:
                self._unresolved.discard(id)
            elif not quiet or not case.over:
                busy.update({case.customer_id, case.order.customer_id if case.order else ""})
        self._judge_sums(self._customers - busy, customers, findings)
        return judged

    def _case(self, order_id: str) -> Case:
        case = self._cases.get(order_id)
        if case is None:
            case = self._cases[order_id] = Case(order_id)
        self._unresolved.add(order_id)
        return case

    # --- entering ---

    def _take_order(self, change: Change, findings: Findings) -> None:
        event, message, before, after = change
        case = self._case(event.stream.id)
        allowed = _FROM.get(type(message))
        if allowed is not None and before.state not in allowed:
            findings.add(
                TRANSITIONS,
                f"order {event.stream.id} was {before.state} when {type(message).__name__} came",
                ids=[event.stream.id],
                events=[event.address],
                remedy="append a correcting event; then find the writer that appended this one",
            )
        if isinstance(message, OrderCreated):
            case.total, case.created = Money.of(message.total), event.position
        if isinstance(message, OrderRejected):
            case.reason = message.reason if event.metadata.causation_id.startswith("sagas/") else None
        case.order, case.changed = after, event.position
        self.orders.subtract([before.state.value] if before.state is not State.NONE else [])
        self.orders[after.state.value] += 1
        approved = (after.state is State.APPROVED) - (before.state is State.APPROVED)
        self._approved[after.customer_id] += approved * (case.total.nanos if case.total else 0)
        self._customers.add(after.customer_id)

    def _take_customer(self, change: Change, findings: Findings) -> None:
        event, message, before, _ = change
        self._customers.add(event.stream.id)
        if not isinstance(message, CreditReserved | CreditReleased | CreditReservationFailed):
            return
        case = self._case(message.order_id)
        case.customer_id, case.answered = event.stream.id, event.position
        given = Money(0, before.currency)
        if isinstance(message, CreditReserved):
            given = Money.of(message.amount)
            self._judge_reservation(change, given, findings)
            self._reserved[event.stream.id] += given.nanos
        elif isinstance(message, CreditReleased):
            back = Money.of(message.amount).nanos
            self._reserved[event.stream.id] -= back
            if back != (before.held(message.order_id) or 0):
                _reservation(event, message, f"gives back {back} nanos, which is not what it holds", findings)
        case.held = Money(0, given.currency) if not isinstance(message, CreditReserved) else given

    def _judge_reservation(self, change: Change, amount: Money, findings: Findings) -> None:
        event, message, before, after = change
        if before.held(message.order_id) is not None:
            _reservation(event, message, "asks twice: credit was answered for it before", findings)
        if amount.currency != before.currency:
            _reservation(
                event, message, f"is in {amount.currency}, its customer in {before.currency}", findings
            )
        if after.reserved > after.limit:
            findings.add(
                LIMIT,
                f"customer {event.stream.id} reserved {Money(after.reserved, after.currency)} of a limit of "
                f"{Money(after.limit, after.currency)}",
                ids=[event.stream.id, message.order_id],
                events=[event.address],
                remedy=f"raise the limit (CustomerService/ChangeCreditLimit), or cancel order {message.order_id}",
            )

    def _take_saga(self, change: Change, findings: Findings) -> None:
        event, message, before, after = change
        case = self._case(after.trigger.order_id)
        case.saga, case.saga_id, case.saga_at = after, event.stream.id, event.position
        self.sagas.subtract([before.status.value] if before.status is not SagaStatus.NONE else [])
        self.sagas[after.status.value] += 1
        if isinstance(message, SagaCompleted | SagaCompensated):
            for name, state in _open_steps(after):
                findings.add(
                    TERMINAL,
                    f"saga {event.stream.id} is {after.status}, and its step '{name}' is {state}",
                    ids=[event.stream.id, case.order_id],
                    events=[event.address],
                    remedy=f"OrderService/CancelOrder {case.order_id}, which has the saga undo what is open",
                )

    # --- judging ---

    def _late(self, thing: Order | SagaInstance | None, now: datetime) -> bool:
        return thing is not None and thing.deadline is not None and thing.deadline + self._grace < now

    def _judge_deadlines(self, case: Case, now: datetime, findings: Findings) -> None:
        if case.state is State.PENDING and self._late(case.order, now):
            assert case.order is not None and case.order.deadline is not None
            findings.add(
                DEADLINES,
                f"order {case.order_id} is PENDING {now - case.order.deadline} after its deadline",
                ids=[case.order_id],
                events=case.events(),
                remedy="restart order_svc: its timers reject it; see also the timers' check",
            )
        if _runs(case.saga) and self._late(case.saga, now):
            assert case.saga is not None and case.saga.deadline is not None
            findings.add(
                DEADLINES,
                f"saga {case.saga_id} waits {now - case.saga.deadline} after its deadline",
                ids=[case.saga_id, case.order_id],
                events=case.events(),
                remedy="restart saga_orchestrator: its timers send the command again; see also the timers' check",
            )

    def _judge_sums(
        self, ids: Collection[str], customers: Callable[[str], Customer | None], findings: Findings
    ) -> None:
        """Compares, per customer, the sum of open reservations with the totals of the orders that hold credit."""
        wrong = set[str]()
        unaccounted: Counter[str] = Counter()
        for case_id in self._excused:
            unaccounted.update(self._cases[case_id].held_unaccounted)
        for id in ids:
            customer = customers(id)
            reserved = customer.reserved if customer else 0
            if not reserved == self._reserved[id] == self._approved[id] + unaccounted[id]:
                wrong.add(id)
                currency = customer.currency if customer else ""
                findings.add(
                    SUMS,
                    f"customer {id}: reserved {Money(reserved, currency)}, reservations less releases "
                    f"{Money(self._reserved[id], currency)}, approved orders {Money(self._approved[id], currency)}",
                    ids=[id],
                    remedy="mend the orders named above; the sums follow",
                )
        self._customers.difference_update(set(ids) - wrong)


def _judge(case: Case, given_up: str, findings: Findings) -> bool:
    """The rules of a quiet case; gives whether one is broken and an operator answers for it."""
    excused = False
    for check, says, remedy in (*_lost(case), *_credit(case), *_saga(case)):
        excuse = given_up if check != REASON else ""
        if check in (APPROVED, RELEASED):
            excuse = excuse or case.skipped
        if excuse:
            excused = True
            findings.note(f"{says}: {excuse}")
            continue
        ids = [case.order_id, *filter(None, [case.customer_id, case.saga_id])]
        findings.add(check, says, ids=ids, events=case.events(), remedy=remedy)
    return excused


Verdict = tuple[str, str, str]
"""Check, what is wrong, remedy."""


def _again(home: str, log: str, position: int) -> str:
    """The command that has a consumer handle an event again; what it has done already has no further effect."""
    owner = OWNERS[home]
    return set_checkpoint(owner.database, f"{owner.name}.{log}", position - 1)


def _lost(case: Case) -> Iterator[Verdict]:
    """Every event was followed by what it calls for."""
    id = case.order_id
    if case.order is None:
        yield ANSWERED, f"there is no order {id}, yet other logs tell of it", _restored(case)
    elif case.orchestrated and case.saga is None:
        yield ANSWERED, f"order {id} never got its saga", _again("sagas", "orders", case.created)
    elif case.held is None:
        remedy = (
            _again("customers", "sagas", case.saga_at)
            if case.orchestrated
            else _again("customers", "orders", case.created)
        )
        yield ANSWERED, f"nobody answered for the credit of order {id}", remedy
    elif case.saga is not None and case.saga.status is SagaStatus.RUNNING:
        yield ANSWERED, f"saga {case.saga_id} never got its answer", _answer_again(case, case.saga)
    elif case.state is State.PENDING and case.saga is None:
        yield ANSWERED, f"order {id} never got its answer", _again("orders", "customers", case.answered)


def _answer_again(case: Case, saga: SagaInstance) -> str:
    if saga.current == 0:
        return _again("sagas", "customers", case.answered)
    if case.state is State.PENDING:
        return _again("orders", "sagas", case.saga_at)
    return _again("sagas", "orders", case.changed)


def _restored(case: Case) -> str:
    remedy = f"restore the database {ORDER_SVC.database} that had the order"
    if case.holds:
        remedy += f"; or give its credit up: append saga ReleaseCredit for {case.order_id}"
    return remedy


def _credit(case: Case) -> Iterator[Verdict]:
    """An approved order holds exactly its total; an order that ended otherwise holds nothing."""
    if case.order is None or not case.over:
        return
    id = case.order_id
    if case.state is State.APPROVED and case.held is not None:
        if case.held != case.total or case.customer_id != case.order.customer_id:
            remedy = f"OrderService/CancelOrder {id}; the customer orders anew"
            yield APPROVED, f"order {id} is approved for {case.total} and holds {case.held}", remedy
    elif case.holds:
        remedy = _release_again(case)
        yield RELEASED, f"order {id} is {case.state} and still holds {case.held}", remedy


def _release_again(case: Case) -> str:
    if case.orchestrated:
        return _again("customers", "sagas", case.saga_at)
    return _again("customers", "orders", case.changed)


def _saga(case: Case) -> Iterator[Verdict]:
    """The saga and its order have the same outcome."""
    if case.saga is None or case.order is None:
        return
    if not case.orchestrated:
        yield (
            AGREES,
            f"order {case.order_id} is choreographed and has saga {case.saga_id}",
            "stop saga_orchestrator",
        )
    agreeing = {
        SagaStatus.COMPLETED: (State.APPROVED,),
        SagaStatus.COMPENSATED: (State.REJECTED, State.CANCELLED),
    }.get(case.saga.status)
    if agreeing and case.state not in agreeing:
        remedy = _again("sagas", "orders", case.changed)
        yield AGREES, f"saga {case.saga_id} is {case.saga.status}, its order {case.state}", remedy
    closing = VERSIONS[case.saga.version].on_compensated if case.saga.version in VERSIONS else None
    if case.reason is not None and closing and closing.send:
        meant = cast("RejectOrder", closing.send(case.saga.context)).reason
        if case.reason != meant:
            reason, said = name_of(meant), name_of(case.reason)
            remedy = "append a correcting event; find the writer that appended the rejection"
            yield (
                REASON,
                f"saga {case.saga_id} was undone for {reason}, its order rejected for {said}",
                remedy,
            )


def _runs(saga: SagaInstance | None) -> bool:
    return saga is not None and saga.status in (SagaStatus.RUNNING, SagaStatus.COMPENSATING)


def _open_steps(saga: SagaInstance) -> Iterator[tuple[str, StepState]]:
    """The steps that contradict a terminal saga."""
    table = VERSIONS.get(saga.version)
    for step, state in zip(table.steps if table else (), saga.steps, strict=False):
        undone = saga.status is SagaStatus.COMPENSATED
        closed = (StepState.DONE, StepState.SKIPPED)  # an operator who skips a step answers for it
        if state in _OPEN and step.undo if undone else state not in closed:
            yield step.name, state


def _reservation(event: Any, message: Any, says: str, findings: Findings) -> None:
    findings.add(
        RESERVATIONS,
        f"{type(message).__name__} of order {message.order_id} {says}",
        ids=[event.stream.id, message.order_id],
        events=[event.address],
        remedy=f"OrderService/CancelOrder {message.order_id}, which releases what is held",
    )


def _case_of(change: Change) -> str:
    if change.event.stream.type == "credit_saga" and change.after is not None:
        return str(change.after.trigger.order_id)
    return str(getattr(change.message, "order_id", ""))
