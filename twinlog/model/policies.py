"""Policies: how a service reacts to the events of another log, or of its own.

A policy is a table from event types to the commands that they call for.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

from google.protobuf.message import Message

from twinlog.model.aggregate import Aggregate, AnyAggregate
from twinlog.model.errors import ConfigurationError, raise_defect
from twinlog.model.forms import (
    NAME,
    RULES,
    Forms,
    WrongValue,
    refuse,
    refuse_other,
    shown,
    wrong_rules,
)
from twinlog.model.routing import has_routing_key, rule_of


class _Dispatch(NamedTuple):
    aggregate: AnyAggregate
    id: str
    command: Any
    assume_empty: bool = False
    """Whether the aggregate probably does not exist yet."""


class Dispatch(_Dispatch):
    """A command for one aggregate.

    Raises ValueError for what is no aggregate. An id that is no text is refused with its command.
    """

    __slots__ = ()

    def __new__(cls, aggregate: AnyAggregate, id: str, command: Any, assume_empty: bool = False) -> Dispatch:
        given: object = aggregate
        if not isinstance(given, Aggregate):
            what = f"the aggregate is {shown(given)}; give an Aggregate, or say on(ROOM, event.room_id).do(…)"
            raise WrongValue(f"Dispatch: {what}")
        return _known_dispatch((aggregate, id, command, assume_empty))


_known_dispatch: Callable[[tuple[AnyAggregate, str, Any, bool]], Dispatch] = partial(tuple.__new__, Dispatch)
"""That of parts which were looked at already: every command of a rule comes by here."""


class Target(NamedTuple):
    """The aggregate that a command is addressed to; made by :func:`on`."""

    aggregate: AnyAggregate
    id: str

    def do(self, command: Any) -> Dispatch:
        """A command for this aggregate."""
        return _known_dispatch((self.aggregate, self.id, command, False))

    def create(self, command: Any) -> Dispatch:
        """A command that is probably its first, which saves looking for it. If the aggregate exists, its state is used
        as usual."""
        return _known_dispatch((self.aggregate, self.id, command, True))


def on(aggregate: AnyAggregate, id: str) -> Target:
    """Addresses an aggregate with a command: ``on(CUSTOMER, e.customer_id).do(ReserveCredit(...))``.

    Raises ValueError for what is no aggregate. An id that is no text is refused with its command.
    """
    if not isinstance(aggregate, Aggregate):
        raise WrongValue(
            f"on: the aggregate is {shown(aggregate)}; give an Aggregate, as on(ROOM, event.room_id)"
        )
    return Target(aggregate, id)


class NoDispatch(TypeError):
    """A rule returned something other than commands."""


def several_dispatches(called_for: Any) -> Sequence[Dispatch]:
    """The commands of a rule that did not return a single one. Raises NoDispatch if they are no commands."""
    if isinstance(called_for, Target):
        raise NoDispatch(
            "on(…) alone is no command; say what is to be done, as in on(ROOM, id).do(FreeRoom())"
        )
    if isinstance(called_for, str | bytes) or not isinstance(called_for, Iterable):
        if isinstance(called_for, Coroutine):
            called_for.close()
        raise NoDispatch(f"it gave {shown(called_for)}; give a command, as on(…).do(…), several, or None")
    commands = called_for if isinstance(called_for, list | tuple) else tuple(called_for)
    for command in commands:
        if not isinstance(command, Dispatch):
            raise NoDispatch(f"among its commands is {shown(command)}; each has to be made by on(…).do(…)")
    return commands


Rule = Callable[[Any], Dispatch | Sequence[Dispatch] | None]


_FORMS: Forms = {"log": NAME, "actor": NAME, "rules": RULES, "routing_key": NAME}


@dataclass(frozen=True)
class Policies:
    """The reactions of one service to the events of one log."""

    log: str
    """The log that is followed."""
    actor: str
    """Who acts: it is recorded on the events, and names the consumer."""
    rules: Mapping[type[Message], Rule]
    """Per event type, a function from the event to one command, several, or None."""
    routing_key: str = ""
    """Only events with this routing key are wanted (:mod:`twinlog.model.routing`); empty: all."""

    def __post_init__(self) -> None:
        refuse_other(of := f"Policies(log={self.log!r}, actor={self.actor!r})", self, _FORMS)
        refuse(of, wrong_rules("rules", self.rules))
        for event in self.rules if self.routing_key else ():
            if not has_routing_key(event):
                raise ConfigurationError(
                    f"{self.consumer}: {event.DESCRIPTOR.full_name} has no routing key, so it would never come; "
                    "declare one in its proto, or leave routing_key out"
                )

    @property
    def consumer(self) -> str:
        """The name of its checkpoint."""
        return f"{self.actor}.{self.log}"

    @property
    def types(self) -> Sequence[str]:
        """Short names of the event types that have a rule."""
        return [event.DESCRIPTOR.name for event in self.rules]

    def dispatches(self, message: Message) -> Sequence[Dispatch]:
        """The commands that an event calls for."""
        rule = self.rules.get(type(message))
        if rule is None:
            return ()
        if self.routing_key:  # `routing_key_of`, without its call: every delivered event comes by here
            key = rule_of(message.DESCRIPTOR)
            if (key.names[getattr(message, key.field)] if key.field else key.fixed) != self.routing_key:
                return ()
        try:
            called_for = rule(message)
            if called_for is None:
                return ()
            return (called_for,) if isinstance(called_for, Dispatch) else several_dispatches(called_for)
        except BaseException as error:
            raise_defect(error)
