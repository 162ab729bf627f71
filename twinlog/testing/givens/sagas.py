"""Given / when / then for sagas: what an instance sends, from its trigger over replies and deadlines to its end.

(
    given(CREDIT_SAGA)
    .when(OrderCreated(...))
    .expect(ReserveCredit(...))
    .reply(CreditReserved(...))
    .expect(ApproveOrder(...))
    .reply(OrderApproved(...))
    .expect()
    .is_completed()
)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from google.protobuf.message import Message

from twinlog.model.aggregate import Aggregate
from twinlog.model.forms import DURATION, refuse_value
from twinlog.model.saga import Abort, Begin, Command, Reply, Retry, SagaInstance, SagaStatus, Skip
from twinlog.model.saga_table import Saga
from twinlog.testing.fakes import START
from twinlog.testing.givens.aggregates import decided_again
from twinlog.testing.givens.difference import difference, short
from twinlog.testing.givens.happened import events, one_of

_OWN = "twinlog.v1."
"""The package of the events with which an instance keeps its own account."""


@dataclass(frozen=True)
class GivenSaga:
    """The aggregate of a saga's instances."""

    saga: Aggregate[SagaInstance, Command]
    table: Saga

    def when(self, trigger: Message) -> RunningSaga:
        """The trigger happens, and an instance begins."""
        one_of("when", [self.table.starts_with], trigger, f"saga '{self.table.name}' starts with")
        return RunningSaga(self.saga, self.table, self.saga.initial, START)._decide(Begin(trigger, START))


@dataclass(frozen=True)
class RunningSaga:
    """An instance after what has happened so far. Every decision is taken twice: the second time it sends nothing."""

    saga: Aggregate[SagaInstance, Command]
    table: Saga
    instance: SagaInstance
    now: datetime
    sent: Sequence[Message] = ()
    """The commands to participants that no ``expect`` has seen yet."""

    # --- what happens ---

    def reply(self, event: Message) -> RunningSaga:
        """A participant's event comes, or one that interrupts the saga."""
        one_of("reply", self.table.answers, event, f"saga '{self.table.name}' hears")
        return self._decide(Reply(event, self.now))

    def times_out(self) -> RunningSaga:
        """No answer comes until the instance is due; time passes to that moment."""
        due = self.saga.due(self.instance)
        assert due is not None, "it awaits no answer that may be overdue"
        later = replace(self, now=max(self.now, due))
        return later._decide(self.saga.on_due(self.instance, later.now), twice=False)

    def passes(self, time: timedelta) -> RunningSaga:
        """Time passes, and nothing is due in it."""
        refuse_value("passes", {"time": time}, {"time": DURATION})
        due = self.saga.due(self.instance)
        assert due is None or due > self.now + time, f"it is due at {due}: say `.times_out()`"
        return replace(self, now=self.now + time)

    def retry(self, reason: str = "") -> RunningSaga:
        """An operator has the awaited command sent again."""
        return self._decide(Retry(reason, self.now), twice=False)

    def skip(self, reason: str) -> RunningSaga:
        """An operator has the instance go on without the awaited answer."""
        return self._decide(Skip(reason, self.now), twice=False)

    def abort(self, reason: str) -> RunningSaga:
        """An operator has the instance compensated."""
        return self._decide(Abort(reason, self.now), twice=False)

    # --- what came of it ---

    def expect(self, *commands: Message) -> RunningSaga:
        """Exactly these commands were sent to participants since the last ``expect``, in order."""
        events("expect", commands)
        assert [*self.sent] == [*commands], difference("it sent", self.sent, commands)
        return replace(self, sent=())

    def is_running(self) -> RunningSaga:
        """It goes forward, or back, and awaits an answer."""
        assert self.instance.status in (SagaStatus.RUNNING, SagaStatus.COMPENSATING), self._stands()
        return self

    def is_completed(self) -> RunningSaga:
        """Every step is done, and nothing is left to be expected."""
        return self._ended(SagaStatus.COMPLETED)

    def is_compensated(self, reason: str | None = None) -> RunningSaga:
        """What was done is undone, for this reason, and nothing is left to be expected."""
        ended = self._ended(SagaStatus.COMPENSATED)
        if reason is not None:
            assert self.instance.reason == reason, f"the reason is {self.instance.reason!r}, not {reason!r}"
        return ended

    def _ended(self, status: SagaStatus) -> RunningSaga:
        assert self.instance.status is status, f"{self._stands()}, not {status}"
        return self.expect()

    def _stands(self) -> str:
        return f"the instance is {self.instance.status}; its state: {self.instance}"

    def _decide(self, command: Any, *, twice: bool = True) -> RunningSaga:
        events = self.saga.decide(self.instance, command)
        after = self.saga.fold(events, self.instance)
        if twice:
            again = decided_again(self.saga, after, command)
            assert not again, f"the same once more sends it again: {short(again)}"
        sent = [event for event in events if not event.DESCRIPTOR.full_name.startswith(_OWN)]
        return replace(self, instance=after, sent=[*self.sent, *sent])
