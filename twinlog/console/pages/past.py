"""The time machine: a stream as it was, what changed since another moment, and all logs at that moment."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from twinlog.console.answers import Answer
from twinlog.console.looks import Look, Said
from twinlog.console.page import Page, Query, missing, refused
from twinlog.console.past import Moment, NoMoment, is_to_come, log_of, moment_of, newest_version, request_of
from twinlog.console.reading import Filter, newest, still_folding, stream_of
from twinlog.console.services import Services
from twinlog.v1 import inspection_pb2 as pb

_RECENT = 4
"""Streams of a log to begin with."""


@dataclass(frozen=True)
class Then:
    log: str
    address: str
    """Of the service, for commands."""
    stream: pb.GetStreamResponse
    newest: int
    """The version that the stream has now."""
    compared: bool
    """Whether another moment was named, since which something may have changed."""
    to_come: bool
    """Whether the moment has not come yet, so that this is how it is now."""
    moment: Moment

    @property
    def event(self) -> pb.LoggedEvent:
        """The last event by then."""
        return self.stream.events[-1]

    @property
    def still_folding(self) -> bool:
        """Whether a state is missing that is folded just now, of this stream or of one beside it."""
        return bool(self.stream.folded) or still_folding(*(each.answer for each in self.moment.beside))


@dataclass(frozen=True)
class Recent:
    log: str
    event: pb.LoggedEvent
    """Its newest."""


@dataclass(frozen=True)
class TimeMachine:
    then: Then | None
    """None where no stream is named, or where something is wrong."""
    wrong: str = ""
    """What is."""
    recent: Sequence[Recent] = ()
    """Where no stream is named, those that changed last, of each log some."""

    @property
    def to_come(self) -> bool:
        """Whether a state is missing that is folded just now."""
        return self.then is not None and self.then.still_folding


async def load(services: Services, query: Query) -> TimeMachine:
    """A stream at a moment. Raises Gone where no service has it, Unanswered where one does not answer."""
    name = query.get("stream").strip()
    if not name:
        return TimeMachine(None, recent=await _recent(services))
    if not all(name.partition("/")):
        return TimeMachine(
            None, f"{name!r} is no stream: write type/id, such as order/01890a5d-ac96-774b-bcce-b302099a8057"
        )
    try:
        # A version from the slider gives way to a moment that was written.
        asked = request_of(name, query.get("at") or query.get("version"), query.get("since"))
    except NoMoment as error:
        return TimeMachine(None, str(error))
    look = await services.look()
    silent: Answer[int] | None = None
    for said in look.logs.values():
        now = await newest_version(services, said.service, name)
        if now.message:
            return await _then(services, look, said, query, now.message, asked)
        silent = now if now.silent else silent
    nobody = f"No service that answers has a stream {name}; it must be type/id, and have begun."
    raise refused(nobody, silent) if silent else missing(look, nobody)


async def _recent(services: Services) -> Sequence[Recent]:
    logs = (await services.look()).logs
    answers = await asyncio.gather(
        *(newest(services, said.service, Filter(log)) for log, said in logs.items())
    )
    found: list[Recent] = []
    for log, answer in zip(logs, answers, strict=True):
        streams: dict[str, pb.LoggedEvent] = {}
        for event in answer.message.events if answer.message else ():
            streams.setdefault(event.stream, event)
        found += [Recent(log, event) for event in [*streams.values()][:_RECENT]]
    return found


async def _then(
    services: Services, look: Look, said: Said, query: Query, newest: int, asked: pb.GetStreamRequest
) -> TimeMachine:
    """The stream at that moment, of the service that has it. Raises Unanswered."""
    log = said.own_log.log if said.own_log else ""
    for text in (query.get("at"), query.get("since")):
        if (other := log_of(text)) not in ("", log):
            words = f"{asked.stream} is in log {log}: name a position of that, or a time, not one of {other}"
            return TimeMachine(None, words)
    found = await stream_of(services, said.service, asked, query)
    if found.message is None:
        if found.silent:
            raise refused("", found)
        return TimeMachine(None, f"{asked.stream} was not there by then: {found.problem}")
    moment = await moment_of(services, look, found.message.events[-1])
    compared, to_come = asked.HasField("since"), is_to_come(asked, newest)
    return TimeMachine(Then(log, said.address, found.message, newest, compared, to_come, moment))


PAGES = [
    Page(
        "/past",
        "Time machine",
        "past.html",
        load,
        navigation="Time machine",
        key="p",
        icon="undo",
        live=False,
        moves=lambda model: model.to_come,
    )
]
