"""What the shop adds to an audit: orders, credit and sagas in their cases."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta

from google.protobuf.message import Message

from customer_svc.domain import Customer
from proof.auditor.ledger import Ledger
from twinlog import StreamId
from twinlog.audit import Change, DeadLetter, Domain, Findings, Round


class Shop(Domain):
    """Keeps the ledger, and judges its cases."""

    def __init__(self, grace: timedelta) -> None:
        """``grace``: how long an order or a saga may be overdue before that is a violation."""
        self._ledger = Ledger(grace)
        self._customers: set[str] = set()

    def case_of(self, message: Message) -> str:
        return str(getattr(message, "order_id", ""))

    def take(self, change: Change, findings: Findings) -> str:
        self._count(change)
        return self._ledger.take(change, findings)

    def judge(self, round: Round, findings: Findings) -> None:
        in_flight = {*round.in_flight, *self._unread(round.parked)}
        excused = dict(round.excused)
        for of_consumer, one in round.discarded:
            says = f"{of_consumer.consumer} gave up {of_consumer.log}/{one.position}"
            excused |= dict.fromkeys({one.case} if one.case else self._unread([one]), says)

        def customer(id: str) -> Customer | None:
            found: Customer | None = round.state(StreamId("customer", id)) if id else None
            return found

        now = None if round.at_rest else round.now
        round.checked["cases"] += self._ledger.judge(
            in_flight, excused, customer, now, findings, round.unreadable
        )

    def on_their_way(self, now: datetime) -> Iterator[str]:
        orders, sagas = self._ledger.waiting(now)
        if orders:
            yield f"{orders} PENDING orders"
        if sagas:
            yield f"{sagas} running sagas"

    def figures(self) -> Mapping[str, Mapping[str, int]]:
        return {
            "orders": {state: count for state, count in self._ledger.orders.items() if count},
            "sagas": {status: count for status, count in self._ledger.sagas.items() if count},
            "besides": {"customers": len(self._customers)},
        }

    def _count(self, change: Change) -> None:
        if isinstance(change.after, Customer) and change.after.exists:
            self._customers.add(change.event.stream.id)

    def _unread(self, dead_letters: Iterable[DeadLetter]) -> set[str]:
        """The open cases that unreadable dead letters may be about: all cases of their customers."""
        return self._ledger.cases_of({one.key for one in dead_letters if not one.case})
