"""Effects: what a service does in the outside world because of a log's events.

A table from event types to async functions, each of which calls another system: a mail server, a payment provider. A
call is made at least once, under a key that lets the other system tell a repetition. What it answers comes back as
commands. :mod:`twinlog.consume.effects` is the machine that runs it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import NAMESPACE_OID, uuid5

from google.protobuf.message import Message

from twinlog.model.errors import Unavailable
from twinlog.model.event import Recorded
from twinlog.model.forms import (
    DURATION,
    ERRORS,
    NAME,
    RULES,
    TEXT,
    Forms,
    WrongForm,
    one,
    refuse,
    refuse_other,
    refuse_value,
    whole,
    wrong_events,
    wrong_functions,
)
from twinlog.model.policies import Dispatch
from twinlog.model.routing import has_routing_key, routing_key_of

_NAME = re.compile("[a-z][a-z0-9_]*")
_FORMS: Forms = {
    "log": NAME,
    "actor": NAME,
    "name": NAME,
    "rules": RULES,
    "routing_key": NAME,
    "timeout": DURATION,
    "retries": whole(0),
    "first_wait": DURATION,
    "longest_wait": DURATION,
    "concurrency": whole(1, 10_000),
    "transient": ERRORS,
}
_ATTEMPT: Forms = {
    "key": TEXT,
    "number": whole(1),
    "event": one(Recorded, "the event as it is recorded"),
}


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try of an event's effect; what a function gets besides the event."""

    key: str
    """Idempotency key, a UUID: the same for every try of this event's effect, in every replica and after any crash."""
    number: int
    """From 1; counts the tries of this process."""
    event: Recorded
    """The event as it is recorded: its address, its metadata, when it happened."""

    def __post_init__(self) -> None:
        refuse_value("Attempt", self, _ATTEMPT)


Function = Callable[[Any, Attempt], Coroutine[Any, Any, Dispatch | Sequence[Dispatch] | None]]
"""Calls another system because of an event; gives the commands that its answer calls for."""
Call = tuple[Function, Message]
"""What an event calls for: a function, and the message that it gets."""


@dataclass(frozen=True)
class Effects:
    """What one service does in the outside world because of one log's events.

    Calls for events with the same partition key are made one after the other, in the order of the log; calls for
    different keys run side by side. The commands that a call answers with are decided in the transaction that moves the
    checkpoint past its event. So a crash may repeat a call, under the same key, but never its commands.
    """

    log: str
    """The log that is followed."""
    actor: str
    """Who acts: with ``name``, as in mailer.mail, it is recorded on the events that the commands lead to."""
    name: str
    """Such as "mail": names the consumer, and the health check ``effects-mail``."""
    rules: Mapping[type[Message], Function]
    """Per event type, an async function from the event and the :class:`Attempt` to one command, several, or None."""
    routing_key: str = ""
    """Only events with this routing key are wanted (:mod:`twinlog.model.routing`); empty: all."""
    timeout: timedelta = timedelta(seconds=10)
    """How long one call may take; then it is cancelled and counts as a transient error."""
    retries: int = 5
    """How often a call that fails is made again before its event is set aside."""
    first_wait: timedelta = timedelta(milliseconds=100)
    """Before the first retry; doubled before each further one, with jitter."""
    longest_wait: timedelta = timedelta(seconds=10)
    """Before a retry."""
    concurrency: int = 8
    """How many calls are under way at once in the replica that has the lease."""
    transient: tuple[type[Exception], ...] = (Unavailable, TimeoutError, ConnectionError)
    """Errors that say nothing about the event. While other calls succeed, they set the event aside like any error.
    While none does, the other system is down: the call is repeated until it is back, and nothing is set aside."""

    def __post_init__(self) -> None:
        refuse_other(of := f"effects {self.name!r}", self, _FORMS)
        refuse(of, wrong_events("rules", self.rules))
        if not _NAME.fullmatch(self.name):
            raise WrongForm(of=of, what="the name has to be lower case, such as mail or card_charges")
        if not self.rules:
            raise WrongForm(of=of, what="there is no rule; give an async function for an event type")
        if not self.timeout:
            raise WrongForm(of=of, what="timeout is 0, and every call would be cut off; give it some seconds")
        object.__setattr__(self, "transient", tuple(self.transient))
        for event in self.rules if self.routing_key else ():
            if not has_routing_key(event):
                what = (
                    f"{event.DESCRIPTOR.full_name} has no routing key, so it would never come; declare one in its "
                    "proto, or leave routing_key out"
                )
                raise WrongForm(of=self.consumer, what=what)
        refuse(of, wrong_functions("rules", self.rules))

    @property
    def consumer(self) -> str:
        """The name of its checkpoint."""
        return f"{self.actor}.{self.name}.{self.log}"

    @property
    def signal(self) -> str:
        """The name of its health check: red while the other system is down."""
        return f"effects-{self.name}"

    @property
    def types(self) -> Sequence[str]:
        """Short names of the event types that have a rule."""
        return [event.DESCRIPTOR.name for event in self.rules]

    def calls(self, messages: Sequence[Message]) -> Sequence[Call]:
        """What the messages of one event call for."""
        return [
            (rule, message)
            for message in messages
            if (rule := self.rules.get(type(message))) and self.routing_key in ("", routing_key_of(message))
        ]

    def key(self, event: Recorded, number: int) -> str:
        """The idempotency key of an event's call; ``number``, from 0, counts the calls of one event."""
        return str(uuid5(NAMESPACE_OID, f"{self.consumer}/{event.event_id}/{number}"))
