"""What has yet to happen because of events: consumers that want one and have not handled it, or have set it aside."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from twinlog.console.looks import Look, Said
from twinlog.console.services import Services
from twinlog.console.story import log_of
from twinlog.v1 import dead_letter_service_pb2 as letters
from twinlog.v1 import inspection_pb2 as pb
from twinlog.v1.dead_letter_service_pb2_grpc import DeadLetterServiceStub

_MOST_LETTERS = 200


@dataclass(frozen=True)
class Pending:
    """A consumer that has not handled an event."""

    event: pb.LoggedEvent
    service: str
    consumer: str
    views: Sequence[str]
    """The views that it keeps; empty: it does something because of the event."""
    behind: int
    """How many events it has not handled, of those that it wants where the service says so; else of all."""
    silent_since: datetime | None = None
    """Since when its service has not answered; None: it answers."""
    problem: str = ""
    """What keeps it, if anything does."""
    parked: bool = False
    """Whether the event is set aside as a dead letter."""

    @property
    def kind(self) -> str:
        """How bad that is: bad, warn, silent or run."""
        if self.silent_since:
            return "silent"
        return "bad" if self.parked or self.problem else "run"


@dataclass(frozen=True)
class Owing:
    """What one service has yet to do, or has set aside for one reason: one line for all of its consumers and events."""

    waits: Sequence[Pending]

    @property
    def first(self) -> Pending:
        """One of them, for what they have in common."""
        return self.waits[0]

    @property
    def events(self) -> list[pb.LoggedEvent]:
        """Each once."""
        return list({each.event.address: each.event for each in self.waits}.values())

    @property
    def views(self) -> list[str]:
        """The views that are to show them."""
        return list(dict.fromkeys(view for each in self.waits for view in each.views))

    @property
    def kind(self) -> str:
        """How bad the worst of them is."""
        return min((each.kind for each in self.waits), key=("silent", "bad", "run").index)

    @property
    def consumers(self) -> list[Pending]:
        """One for each consumer."""
        return list({each.consumer: each for each in self.waits}.values())


def by_service(waits: Iterable[Pending]) -> list[Owing]:
    """What each service owes: first what is set aside, then what is to be done, then what is to be shown."""
    found: dict[tuple[object, ...], list[Pending]] = {}
    for each in waits:
        why = (each.consumer, each.problem) if each.parked else ()
        found.setdefault((not each.parked, bool(each.views), each.service, why), []).append(each)
    return [Owing(found[key]) for key in sorted(found, key=lambda key: key[:2])]


def pending(look: Look, events: Iterable[pb.LoggedEvent]) -> list[Pending]:
    """The consumers that have not got to events that they want, by service."""
    events = [*events]
    return [
        _pending(look, said, consumer, event)
        for said in look.services.values()
        for consumer in said.consumers
        for event in events
        if wants(consumer, event) and consumer.position < event.position
    ]


async def parked(services: Services, look: Look, events: Iterable[pb.LoggedEvent]) -> list[Pending]:
    """The consumers that have set some of these events aside, as far as they answer."""
    events = [*events]
    found: list[Pending] = []
    for said, consumer, wanted in _with_dead_letters(look, events):
        for key in dict.fromkeys(event.partition_key for event in wanted):
            request = letters.ListDeadLettersRequest(
                consumer=consumer.consumer, key=key, page_size=_MOST_LETTERS
            )
            answer = await services.ask(
                said.service, lambda c: DeadLetterServiceStub(c).ListDeadLetters, request
            )
            aside = {each.address: each for each in answer.message.dead_letters} if answer.message else {}
            found += [
                _parked(said, consumer, event, aside[event.address])
                for event in wanted
                if event.address in aside
            ]
    return found


def wants(consumer: pb.ConsumerDescription, event: pb.LoggedEvent) -> bool:
    """Whether a consumer is to handle an event."""
    return (
        consumer.log == log_of(event)
        and (not consumer.types or event.type.rpartition(".")[2] in consumer.types)
        and consumer.routing_key in ("", event.routing_key)
    )


def _pending(look: Look, said: Said, consumer: pb.ConsumerDescription, event: pb.LoggedEvent) -> Pending:
    behind = consumer.lag if consumer.lag_known and not said.silent_since else 0
    if not behind:
        behind = max(1, (look.head(consumer.log) or event.position) - consumer.position)
    return Pending(
        event,
        said.service,
        consumer.consumer,
        list(consumer.views),
        behind,
        said.silent_since,
        said.problem if said.silent_since else consumer.problem,
    )


def _parked(said: Said, consumer: pb.ConsumerDescription, event: pb.LoggedEvent, letter: Any) -> Pending:
    behind = f"behind {letter.behind}, which was set aside before it"
    why = f"{letter.error_type}: {letter.error}" if letter.error_type else behind
    return Pending(
        event,
        said.service,
        consumer.consumer,
        list(consumer.views),
        consumer.lag,
        said.silent_since,
        why,
        parked=True,
    )


def _with_dead_letters(
    look: Look, events: Sequence[pb.LoggedEvent]
) -> Iterator[tuple[Said, pb.ConsumerDescription, list[pb.LoggedEvent]]]:
    for said in look.services.values():
        for consumer in said.consumers:
            wanted = [event for event in events if wants(consumer, event)]
            if consumer.dead_letters and wanted and not said.silent_since:
                yield said, consumer, wanted
