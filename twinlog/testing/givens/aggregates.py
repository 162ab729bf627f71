"""Given / when / then for deciders.

    given(ORDER, CREATED).when(ApproveOrder()).then(APPROVED)

Every decision is taken twice: the second time it must come to nothing.
(Shaped after emmett's ``DeciderSpecification``.)
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Generic, TypeVar

from google.protobuf.message import Message

from twinlog.model.aggregate import Aggregate
from twinlog.model.errors import TwinlogError
from twinlog.model.forms import shown
from twinlog.testing.givens.difference import difference, short
from twinlog.testing.givens.happened import events

State = TypeVar("State")
Command = TypeVar("Command")


@dataclass(frozen=True)
class Given(Generic[State, Command]):
    """An aggregate in a state."""

    aggregate: Aggregate[State, Command]
    state: State

    def when(self, command: Command) -> When[State, Command]:
        """The command whose decision is in question; nothing is decided yet."""
        return When(self.aggregate, self.state, command)


@dataclass(frozen=True)
class When(Generic[State, Command]):
    """A command in a state."""

    aggregate: Aggregate[State, Command]
    state: State
    command: Command

    def then(self, *expected: Message) -> Given[State, Command]:
        """Exactly these events, and none when it is decided again; gives the state after them."""
        before, wanted = _copied(self.state), [*events("then", expected)]
        decided = list(self.aggregate.decide(self.state, self.command))
        assert self.state == before, "decide changed the state that it was given; only evolve gives a new one"
        assert decided == wanted, difference("it decided", decided, wanted)
        after = self.aggregate.fold(decided, self.state)
        assert self.state == before, "evolve changed the state that it was given; let it give a new one"
        again = decided_again(self.aggregate, after, self.command)
        assert not again, f"a repeated command has to decide nothing, and it decided again: {short(again)}"
        return Given(self.aggregate, after)

    def then_nothing(self) -> Given[State, Command]:
        """No event: a repeat, or too late."""
        return self.then()

    def then_refused(self, error: type[TwinlogError], **facts: object) -> None:
        """Exactly this error, with at least these facts."""
        if not (isinstance(error, type) and issubclass(error, TwinlogError)):
            raise TypeError(f"then_refused is given {shown(error)}; give the class of a TwinlogError")
        try:
            decided = list(self.aggregate.decide(self.state, self.command))
        except TwinlogError as raised:
            assert type(raised) is error, f"raised {raised!r}, not {error.__name__}"
            wanted = {name: str(fact) for name, fact in facts.items()}
            told = {name: fact for name, fact in raised.facts.items() if name in wanted}
            assert told == wanted, f"told {dict(raised.facts)}, not {wanted}"
            return
        raise AssertionError(f"it decided {short(decided)}, and did not raise {error.__name__}")


def _copied(state: State) -> State:
    """What to compare a state with later; the state itself where a copy of it is none of its equals."""
    copied = deepcopy(state)
    return copied if copied == state else state


def decided_again(aggregate: Aggregate[State, Command], state: State, command: Command) -> Sequence[Message]:
    """What the same command decides once more."""
    try:
        return list(aggregate.decide(state, command))  # it may yield
    except TwinlogError:
        return []  # creating again, for one, is refused
