"""A story: everything that some requests set off, over the logs of all services, each event after its cause.

It is put together from what each service finds in its own log. The first answers have times, which lead to what other
services did later. Up to 0.1.0 a timer's events had the id of their stream as correlation id: that is asked for, too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from google.protobuf.timestamp_pb2 import Timestamp

from twinlog.console.answers import Answer, Why
from twinlog.console.looks import Look, Said
from twinlog.console.services import Services
from twinlog.model.causal_order import Place, causes_first
from twinlog.v1 import inspection_pb2 as pb
from twinlog.v1.inspection_pb2_grpc import InspectionServiceStub

MOST_EVENTS = 200
"""Events of a story that are shown."""
_MOST_IDS = _MOST_TIMES = 100
_SECONDS = 1.0
"""How long a service may take to look through its log."""
_HOPS = 20
"""Logs that are gone through from an event to its first cause."""


@dataclass(frozen=True)
class Unheard:
    """A service that did not say what is in its log."""

    service: str
    log: str
    problem: str


@dataclass(frozen=True)
class Story:
    """Events of several logs."""

    events: Sequence[pb.LoggedEvent] = ()
    """Each after its cause, and after those before it in its log; otherwise by time."""
    lanes: Sequence[str] = ()
    """The logs that they are of, by first appearance."""
    services: Mapping[str, str] = field(default_factory=dict)
    """By log, the service that owns it."""
    more: bool = False
    """Whether there are more events than are shown."""
    unheard: Sequence[Unheard] = ()

    @property
    def began(self) -> Timestamp | None:
        return self.events[0].recorded_at if self.events else None


async def story_of(services: Services, look: Look, known: Iterable[pb.LoggedEvent]) -> Story:
    """The story that some events are part of."""
    found = {event.address: event for event in known}
    owners = {log: said.service for log, said in look.logs.items()}
    answers: dict[str, Answer[list[pb.ReadCorrelatedResponse]]] = {}
    asked: set[str] = set()
    for _ in range(2):
        request = _request(found.values())
        if asked.issuperset(request.correlation_ids) and not _beyond(answers, request.around):
            break
        asked.update(request.correlation_ids)
        answers = await _ask(services, look, owners, request)
        for answer in answers.values():
            found |= {
                each.event.address: each.event for each in answer.message or () if each.HasField("event")
            }
    events = in_order(found.values())
    shown = events[:MOST_EVENTS]
    return Story(
        shown,
        list(dict.fromkeys(log_of(event) for event in shown)),
        owners,
        len(events) > len(shown),
        [
            Unheard(answer.service, log, answer.problem)
            for log, answer in answers.items()
            if answer.message is None
        ],
    )


async def traced(services: Services, look: Look, address: str) -> Answer[pb.TraceEventResponse] | None:
    """An event with its causes in its log; None where no service is known to have that log."""
    owner = look.owner(address.rpartition("/")[0])
    if owner is None:
        return None
    return await services.ask(
        owner.service, lambda c: InspectionServiceStub(c).TraceEvent, pb.TraceEventRequest(address=address)
    )


async def causes(services: Services, look: Look, first: pb.TraceEventResponse) -> list[pb.LoggedEvent]:
    """An event's causes from log to log, nearest first, as far as services answer."""
    found, beyond = [*first.causes], first.beyond
    for _ in range(_HOPS):
        answer = await traced(services, look, beyond) if "/" in beyond else None
        if answer is None or answer.message is None:
            break
        found += [answer.message.event, *answer.message.causes]
        beyond = answer.message.beyond
    return found


def log_of(event: pb.LoggedEvent) -> str:
    return event.address.rpartition("/")[0]


def in_order(events: Iterable[pb.LoggedEvent]) -> list[pb.LoggedEvent]:
    """By time, but each after its cause and after those before it in its log, however clocks differ."""
    return causes_first(
        events, lambda each: Place(each.recorded_at.ToNanoseconds(), log_of(each), each.position, each.cause)
    )


def _request(events: Iterable[pb.LoggedEvent]) -> pb.ReadCorrelatedRequest:
    events = [*events]
    ids = dict.fromkeys(event.correlation_id for event in events if event.correlation_id)
    ids |= dict.fromkeys(event.stream.partition("/")[2] for event in events)
    times = sorted({event.recorded_at.ToNanoseconds() for event in events})
    step = max(1, -(-len(times) // _MOST_TIMES))
    request = pb.ReadCorrelatedRequest(correlation_ids=[*ids][:_MOST_IDS], limit=MOST_EVENTS * 2)
    for time in times[::step]:
        request.around.add().FromNanoseconds(time)
    return request


def _beyond(
    answers: Mapping[str, Answer[list[pb.ReadCorrelatedResponse]]], times: Sequence[Timestamp]
) -> bool:
    """Whether some log was not looked at around some of these times."""
    if not answers:
        return True
    return any(
        not any(_covers(each, time) for each in answer.message[-1].looked_at)
        for answer in answers.values()
        if answer.message and not answer.message[-1].complete
        for time in times
    )


def _covers(looked_at: pb.LogRange, time: Timestamp) -> bool:
    return looked_at.since.ToNanoseconds() <= time.ToNanoseconds() <= looked_at.until.ToNanoseconds()


async def _ask(
    services: Services, look: Look, owners: Mapping[str, str], request: pb.ReadCorrelatedRequest
) -> dict[str, Answer[list[pb.ReadCorrelatedResponse]]]:
    answers = await asyncio.gather(
        *(_ask_one(services, look.services[service], request) for service in owners.values())
    )
    return dict(zip(owners, answers, strict=True))


async def _ask_one(
    services: Services, said: Said, request: pb.ReadCorrelatedRequest
) -> Answer[list[pb.ReadCorrelatedResponse]]:
    if said.silent_since:  # waiting for it would keep back what all others say
        return Answer(said.service, None, Why.SLOW, said.problem)
    return await services.collect(
        said.service, lambda c: InspectionServiceStub(c).ReadCorrelated, request, seconds=_SECONDS
    )
