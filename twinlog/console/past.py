"""What the time machine asks for: a stream at a moment, what changed since another, and all logs at that moment."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from twinlog.console.answers import Answer
from twinlog.console.looks import Look, Said
from twinlog.console.reading import moment_in, stream_of
from twinlog.console.services import DEADLINE_SECONDS, Services
from twinlog.model.event import MOST_POSITION, MOST_VERSION
from twinlog.v1 import history_service_pb2 as history
from twinlog.v1 import inspection_pb2 as pb
from twinlog.v1.history_service_pb2_grpc import HistoryServiceStub
from twinlog.v1.inspection_pb2_grpc import InspectionServiceStub
from twinlog.v1.moment_pb2 import LogPosition
from twinlog.v1.moment_pb2 import Moment as At

_POSITION = re.compile(r"([^/\s]+)/([1-9][0-9]{0,18})")
_VERSION = re.compile(r"v?([1-9][0-9]{0,9})")
_AGO = re.compile(r"([0-9]{1,6}) ?([smhd])( ago)?")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_MOST_BESIDE = 8
_CORRELATED = 200
_WITHOUT_SOME_SECONDS = 0.5
"""How long a cut is waited for that most likely needs a service that is silent."""


class NoMoment(ValueError):
    """A text that names no moment; the message says what does."""

    def __init__(self, text: str) -> None:
        super().__init__(
            f"{text!r} is no moment; write a version (12) of up to {MOST_VERSION:,}, a position (orders/17), a time "
            "(2026-01-31T12:00:00Z or 12:00) or how long ago (10m)"
        )


@dataclass(frozen=True)
class Beside:
    """Another stream at the same moment."""

    log: str
    stream: str
    answer: Answer[pb.GetStreamResponse]


@dataclass(frozen=True)
class Moment:
    """All logs at one moment."""

    cut: Mapping[str, int]
    """A position of each log that could be asked."""
    beside: Sequence[Beside]
    """The streams that the same request touched, in the cut."""
    problem: str = ""
    """Why there is no cut; empty where there is one."""


def log_of(text: str) -> str:
    """The log of a position; empty for any other moment."""
    match = _POSITION.fullmatch(text)
    return match[1] if match else ""


def is_to_come(request: pb.GetStreamRequest, newest: int) -> bool:
    """Whether a moment has not come yet, for a stream that has so many versions now."""
    if request.HasField("upto_time"):
        return request.upto_time.ToDatetime(UTC) > datetime.now(UTC)
    return request.upto_version > newest


def request_of(stream: str, at: str, since: str) -> pb.GetStreamRequest:
    """Asks for a stream at a moment, as people write it, and what has changed since another; empty: now, and not.

    Raises NoMoment.
    """
    when = _moment(at)
    request = pb.GetStreamRequest(
        stream=stream, newest=1, upto_version=when.version, upto_position=when.position
    )
    if when.HasField("time"):
        request.upto_time.CopyFrom(when.time)
    if since:
        request.since.CopyFrom(_moment(since))
    return request


def _moment(text: str) -> At:
    request = At()
    if (match := _POSITION.fullmatch(text)) and int(match[2]) <= MOST_POSITION:
        request.position = int(match[2])
    elif (match := _VERSION.fullmatch(text)) and int(match[1]) <= MOST_VERSION:
        request.version = int(match[1])
    elif text.isdigit():  # what would be read as a time without its colons
        raise NoMoment(text)
    elif text:
        try:
            request.time.FromDatetime(_time(text).astimezone(UTC))
        except (ValueError, OverflowError) as error:
            raise NoMoment(text) from error
    return request


def _time(text: str) -> datetime:
    if match := _AGO.fullmatch(text):
        return datetime.now(UTC) - timedelta(**{_UNITS[match[2]]: int(match[1])})
    return moment_in(text) or datetime.now(UTC)


async def newest_version(services: Services, service: str, stream: str) -> Answer[int]:
    """The version that a stream has now, without its state, which may be large; 0: the service has no such stream."""
    request = pb.ReadLogRequest(newest=1, stream=stream)
    answer = await services.collect(service, lambda c: InspectionServiceStub(c).ReadLog, request)
    if answer.message is None:
        return Answer(service, None, answer.why, answer.problem, answer.reason)
    return Answer(service, max((each.event.version for each in answer.message), default=0))


async def moment_of(services: Services, look: Look, event: pb.LoggedEvent) -> Moment:
    """All logs right after an event, as its service knows them: no effect is in there without its cause."""
    log = event.address.rpartition("/")[0]
    at = LogPosition(log=log, position=event.position)
    silent = [said.service for said in look.services.values() if said.described is None or said.silent_since]
    answer = await services.ask(
        look.logs[log].service,
        lambda c: HistoryServiceStub(c).GetCut,
        history.GetCutRequest(position=at),
        seconds=_WITHOUT_SOME_SECONDS if silent else DEADLINE_SECONDS,
    )
    if answer.message is None:
        away = f"{', '.join(silent)}: no answer, and what all logs held then needs all of them. Open this again later."
        return Moment({}, [], away if silent else f"{answer.service}: {answer.problem}")
    cut = {each.log: each.position for each in answer.message.cut}
    return Moment(cut, await _beside(services, look.logs, cut, event))


async def _beside(
    services: Services, owners: Mapping[str, Said], cut: Mapping[str, int], event: pb.LoggedEvent
) -> Sequence[Beside]:
    request = pb.ReadCorrelatedRequest(
        correlation_ids=[event.correlation_id], around=[event.recorded_at], limit=_CORRELATED
    )
    logs = [log for log in owners if cut.get(log)]
    found = await services.collect_all(
        lambda c: InspectionServiceStub(c).ReadCorrelated,
        request,
        services=[owners[log].service for log in logs],
    )
    touched = {
        (log, each.event.stream): None
        for log, answer in zip(logs, found.values(), strict=True)
        for each in answer.message or ()
        if each.HasField("event") and each.event.position <= cut[log] and each.event.stream != event.stream
    }
    chosen = [*touched][:_MOST_BESIDE]
    answers = await asyncio.gather(
        *(
            stream_of(
                services,
                owners[log].service,
                pb.GetStreamRequest(stream=stream, newest=1, upto_position=cut[log]),
            )
            for log, stream in chosen
        )
    )
    return [Beside(log, stream, answer) for (log, stream), answer in zip(chosen, answers, strict=True)]
