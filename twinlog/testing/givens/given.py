"""Where a test on values begins."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar, overload

from google.protobuf.message import Message

from twinlog.model.aggregate import Aggregate
from twinlog.model.functions import in_parts
from twinlog.model.policies import Policies
from twinlog.model.saga_aggregate import saga_aggregate
from twinlog.model.saga_table import Saga
from twinlog.model.schema import Schema
from twinlog.model.view import View
from twinlog.testing.givens.aggregates import Given
from twinlog.testing.givens.happened import events
from twinlog.testing.givens.policies import GivenPolicies
from twinlog.testing.givens.sagas import GivenSaga
from twinlog.testing.givens.views import GivenView

State = TypeVar("State")
Command = TypeVar("Command")


@overload
def given(subject: Aggregate[State, Command], *past: Message) -> Given[State, Command]: ...
@overload
def given(subject: Policies | Sequence[Policies], *past: Message) -> GivenPolicies: ...
@overload
def given(subject: Saga) -> GivenSaga: ...
@overload
def given(subject: View[Any], *past: Message) -> GivenView: ...
def given(subject: Any, *past: Message) -> Any:
    """What is tested, after past events.

    An aggregate: ``.when(command).then(*events)``, ``.then_nothing()``, ``.then_refused(error)``. Policies, one table
    or several: ``.when(*events).commands(*dispatches)``, ``.nothing()``. They have no state, so past events only need
    to be of types that they take. A saga: ``.when(trigger)``, then ``.reply(event)``, ``.times_out()``,
    ``.expect(*commands)`` in turn. A view: ``.when(*events).row(key, row)``, ``.all_rows(rows)``.
    """
    match subject:
        case Aggregate():
            if wrong := "; ".join(in_parts(subject)):
                raise TypeError(wrong)
            return Given(subject, subject.fold(events("given", past)))
        case Saga():
            if past:
                raise TypeError("a saga begins with its trigger: given(SAGA).when(trigger)")
            return GivenSaga(saga_aggregate(subject), subject)
        case View():
            return GivenView(subject).when(*past)
        case Policies():
            return _policies([subject], past)
        case Sequence() if subject and all(isinstance(each, Policies) for each in subject):
            return _policies(subject, past)
        case Schema():
            raise TypeError("what a Schema reads an event as needs no given(): it is SCHEMA.today(event)")
    raise TypeError(f"given() takes an Aggregate, Policies, a Saga or a View, not {type(subject).__name__}")


def _policies(tables: Sequence[Policies], past: Sequence[Message]) -> GivenPolicies:
    asked = GivenPolicies(tables)
    asked.when(*past)
    return asked
