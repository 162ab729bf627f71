"""Given / when / then for policies: which commands an event calls for.

given(CHOREOGRAPHY).when(CreditReserved(...)).commands(on(ORDER, ORDER_ID).do(ApproveOrder()))
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import Message

from twinlog.model.forms import shown
from twinlog.model.policies import Dispatch, Policies
from twinlog.testing.givens.difference import difference
from twinlog.testing.givens.happened import events as given


@dataclass(frozen=True)
class GivenPolicies:
    """Tables of policies, all asked together."""

    tables: Sequence[Policies]

    def when(self, *events: Message) -> WhenPolicies:
        """The events that happen, in order."""
        return WhenPolicies([each for event in given("when", events) for each in self._dispatches(event)])

    def _dispatches(self, event: Message) -> Sequence[Dispatch]:
        return [each for table in self.tables for each in table.dispatches(event)]


@dataclass(frozen=True)
class WhenPolicies:
    """What the events called for."""

    dispatched: Sequence[Dispatch]

    def commands(self, *expected: Dispatch) -> None:
        """Exactly these commands, in order, to these aggregates."""
        if others := [each for each in expected if not isinstance(each, Dispatch)]:
            raise TypeError(f"commands is given {shown(others[0])}; give what on(…).do(…) makes")
        came, wanted = [*map(_addressed, self.dispatched)], [*map(_addressed, expected)]
        assert came == wanted, difference("it called for", came, wanted)

    def nothing(self) -> None:
        """No command."""
        self.commands()


@dataclass(frozen=True)
class _To:
    """A command and whom it is for. Whether that is assumed to be new only saves time, and is not compared."""

    aggregate: str
    id: str
    command: Any


def _addressed(dispatch: Dispatch) -> _To:
    return _To(dispatch.aggregate.name, dispatch.id, dispatch.command)
