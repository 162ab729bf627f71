"""The story that one event is part of, over all logs: what a choreographed order has instead of a saga."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from twinlog.console.page import Page, Query, missing, refused
from twinlog.console.services import Services
from twinlog.console.story import causes, log_of, traced
from twinlog.console.story_view import StoryView, view_of
from twinlog.v1 import inspection_pb2 as pb
from twinlog.v1.inspection_pb2_grpc import InspectionServiceStub

_SHORT_STREAM = 50
"""Events of a stream that are part of the story of its first event."""


@dataclass(frozen=True)
class StoryPage:
    event: pb.LoggedEvent
    service: str
    first: pb.LoggedEvent
    """The first of its causes, itself where it has none."""
    story: StoryView
    sagas: list[tuple[str, str]]
    """The sagas whose events are part of it, as name and id."""


async def load(services: Services, query: Query) -> StoryPage:
    """The story of an event. Raises Gone, Unanswered."""
    look = await services.look()
    log, position = query.get("log"), query.get("position")
    answer = await traced(services, look, f"{log}/{position}")
    if answer is None:
        logs = ", ".join(look.logs) or "none"
        raise missing(look, f"No service that has answered owns log {log}; there are {logs}.")
    if answer.message is None:
        raise refused(f"{log}/{position} is not there: {answer.problem}.", answer)
    event = answer.message.event
    before = await causes(services, look, answer.message)
    first = before[-1] if before else event
    known = [event, *before, *await _of_stream(services, look.logs, first)]
    story = await view_of(services, look, known)
    return StoryPage(event, answer.service, first, story, _sagas(look, story))


async def _of_stream(services: Services, owners: Any, first: pb.LoggedEvent) -> list[pb.LoggedEvent]:
    """What else happened to the thing that it began with, where that has a short life, as an order has."""
    said = owners.get(log_of(first))
    if said is None or first.version != 1:
        return []
    request = pb.GetStreamRequest(stream=first.stream, newest=_SHORT_STREAM)
    answer = await services.ask(said.service, lambda c: InspectionServiceStub(c).GetStream, request)
    if answer.message is None or answer.message.version > _SHORT_STREAM:
        return []
    return list(answer.message.events)


def _sagas(look: Any, story: StoryView) -> list[tuple[str, str]]:
    names = {
        table.aggregate: table.saga
        for said in look.services.values()
        if said.described
        for table in said.described.saga_tables
    }
    streams = dict.fromkeys(told.event.stream for told in story.told)
    found = (stream.partition("/") for stream in streams)
    return [(names[type], id) for type, _, id in found if type in names]


PAGES = [Page("/story/{log}/{position}", "Story of {log}/{position}", "story.html", load)]
