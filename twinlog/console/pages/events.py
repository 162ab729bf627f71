"""The log: its newest events and those to come; one event with causes and effects; a stream with its states."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from twinlog.console.answers import Answer
from twinlog.console.looks import Look, Said
from twinlog.console.page import Gone, Page, Query, missing, refused
from twinlog.console.reading import Events, Filter, Tree, newest, still_folding, stream_of, tree_of
from twinlog.console.services import Services
from twinlog.model.event import MOST_VERSION
from twinlog.v1 import inspection_pb2 as pb
from twinlog.v1.inspection_pb2_grpc import InspectionServiceStub


@dataclass(frozen=True)
class Log:
    logs: Mapping[str, Said]
    """All logs, with the services that own them."""
    wanted: Filter
    events: Answer[Events] | None
    """None where there is no log."""
    address: str = ""
    """Of the owner, for commands."""

    @property
    def chain(self) -> pb.ChainHead | None:
        """The newest head of the log's chain; None where nothing is linked."""
        said = self.logs.get(self.wanted.log)
        log = said.own_log if said else None
        return log.chain if log and log.HasField("chain") else None

    @property
    def types(self) -> Sequence[str]:
        """Short names of the types that are in sight."""
        if self.events is None or self.events.message is None:
            return []
        return sorted({each.type.rpartition(".")[2] for each in self.events.message.events})


@dataclass(frozen=True)
class Event:
    event: pb.LoggedEvent
    owner: Said = field(compare=False)
    """Whose name and address are shown, which stay."""
    tree: Tree
    stream: Answer[pb.GetStreamResponse]
    """The stream up to the event, with what it changed."""
    newest: bool
    """Whether no later event of the log is known."""

    @property
    def state(self) -> pb.StreamState | None:
        """What the stream came to with the event."""
        states = self.stream.message.states if self.stream.message else []
        return next((each for each in states if each.version == self.event.version), None)


@dataclass(frozen=True)
class Stream:
    log: str
    stream: pb.GetStreamResponse
    owner: Said = field(compare=False)

    @property
    def versions(self) -> Sequence[tuple[pb.LoggedEvent, pb.StreamState | None]]:
        """Each event with its state, the newest first."""
        states = {each.version: each for each in self.stream.states}
        return [(event, states.get(event.version)) for event in reversed(self.stream.events)]


async def load_log(services: Services, query: Query) -> Log:
    """The newest events of a log, by default the first one that has any."""
    look = await services.look()
    logs = look.logs
    name = query.get("log") or _first(look)
    if not name:
        if any(said.described is None for said in look.services.values()):
            raise missing(look, "No log is known yet.")
        return Log(logs, Filter(""), None)
    owner = _owner(look, name)
    wanted = Filter.of(query, name)
    return Log(logs, wanted, await newest(services, owner.service, wanted), owner.address)


async def load_event(services: Services, query: Query) -> Event:
    """One event. Raises Gone, Unanswered."""
    look, log = await services.look(), query.get("log")
    owner, position = _owner(look, log), query.number("position")
    event = await _event(services, owner, log, position)
    tree = await tree_of(services, event)
    request = pb.GetStreamRequest(
        stream=event.stream, upto_version=event.version, newest=1, with_states=True, changes_only=True
    )
    stream = await stream_of(services, owner.service, request, query)
    newest = not owner.own_log or owner.own_log.head <= position
    return Event(event, owner, tree, stream, newest)


async def load_stream(services: Services, query: Query) -> Stream:
    """One stream. Raises Gone, Unanswered."""
    log, name = query.get("log"), query.get("stream")
    owner = _owner(await services.look(), log)
    upto = query.number("upto", most=MOST_VERSION)
    request = pb.GetStreamRequest(stream=name, upto_version=upto, with_states=True, changes_only=True)
    answer = await stream_of(services, owner.service, request, query)
    if answer.message is None:
        raise refused(f"{name} of log {log}: {answer.problem}", answer)
    return Stream(log, answer.message, owner)


async def _event(services: Services, owner: Said, log: str, position: int) -> pb.LoggedEvent:
    request = pb.ReadLogRequest(after=position - 1, upto=position, limit=1)
    if position < 1:
        raise Gone(f"Log {log} begins with event 1.")
    answer = await services.collect(owner.service, lambda c: InspectionServiceStub(c).ReadLog, request)
    if answer.message is None:
        raise refused(f"{log}/{position} cannot be read: {owner.service}: {answer.problem}", answer)
    for each in answer.message:
        found: pb.LoggedEvent = each.event
        if each.HasField("event") and found.position == position:
            return found
    raise Gone(f"Log {log} has no event {position}.")


def _first(look: Look) -> str:
    """The first log with events, or else the first."""
    with_events = [name for name, said in look.logs.items() if said.own_log and said.own_log.head]
    return next(iter(with_events or look.logs), "")


def _owner(look: Look, log: str) -> Said:
    owner = look.owner(log)
    if owner is None:
        known = ", ".join(look.logs) or "none"
        raise missing(look, f"No service that has answered owns log {log}; there are {known}.")
    return owner


PAGES = [
    Page("/log", "Log", "log.html", load_log, navigation="Log", key="l", icon="log"),
    Page(
        "/log/{log}/{position:int}",
        "{log}/{position}",
        "event.html",
        load_event,
        moves=lambda model: still_folding(model.stream),
    ),
    Page(
        "/log/{log}/stream/{stream:path}",
        "{stream}",
        "stream.html",
        load_stream,
        moves=lambda model: bool(model.stream.folded),
    ),
]
