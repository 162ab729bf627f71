"""Moments of the past as commands take them, and streams as they were then."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import grpc
import grpc.aio

from twinlog.cli import servers
from twinlog.cli.exits import Failed, Usage
from twinlog.cli.servers import Server, failure
from twinlog.cli.values import moment, shown
from twinlog.model.event import MOST_POSITION, MOST_VERSION
from twinlog.v1 import history_service_pb2 as history
from twinlog.v1 import inspection_pb2 as pb
from twinlog.v1.history_service_pb2_grpc import HistoryServiceStub

WHEN = "a version (12), a position (orders/17), a time (2026-01-31T12:00:00Z) or how long ago (10m, 2h)"
_POSITION = re.compile(r"([^/\s]+)/([1-9][0-9]{0,18})")
_VERSION = re.compile(r"v?([1-9][0-9]{0,9})")
_NUMBER = re.compile(r"([^/\s]+/|v)?[+-]?[0-9]+")
_SOME_ID = "01890a5d-ac96-774b-bcce-b302099a8057"


@dataclass(frozen=True)
class Moment:
    """Which moment of a stream."""

    request: pb.GetStreamRequest
    log: str = ""
    """The log of a position; empty for any other moment."""

    @property
    def position(self) -> int:
        """The position; 0 for any other moment."""
        return self.request.upto_position


NOW = Moment(pb.GetStreamRequest())
_FIRST = Moment(pb.GetStreamRequest(upto_version=1))


class NotBegun(Usage):
    """The stream had not begun by a moment."""


def parsed(text: str) -> Moment:
    """A moment as an argument names it. Raises argparse.ArgumentTypeError."""
    if (match := _POSITION.fullmatch(text)) and int(match[2]) <= MOST_POSITION:
        return Moment(pb.GetStreamRequest(upto_position=int(match[2])), match[1])
    if (match := _VERSION.fullmatch(text)) and int(match[1]) <= MOST_VERSION:
        return Moment(pb.GetStreamRequest(upto_version=int(match[1])))
    if _NUMBER.fullmatch(text):  # before it is read as a time without its colons
        raise argparse.ArgumentTypeError(
            f"{text!r} is no moment: a version is 1 to {MOST_VERSION:,}, a position 1 to {MOST_POSITION:,}"
        )
    request = pb.GetStreamRequest()
    try:
        request.upto_time.FromDatetime(moment(text.removesuffix(" ago")))
    except argparse.ArgumentTypeError as error:
        raise argparse.ArgumentTypeError(f"{error}. A moment is {WHEN}") from None
    return Moment(request)


def stream(text: str) -> str:
    """A stream as an argument names it. Raises argparse.ArgumentTypeError."""
    kind, _, id = text.partition("/")
    if not kind or not id:
        raise argparse.ArgumentTypeError(f"{text!r} is no stream: it is type/id, such as order/{_SOME_ID}")
    return text


def taken(options: argparse.Namespace) -> Moment | None:
    """The moment among the values of ``--at``, which are addresses otherwise; None: none is. Raises Usage.

    ``--as-of`` is the same.
    """
    found = [options.as_of] if getattr(options, "as_of", None) else []
    rest = []
    for text in options.at or []:
        try:
            found.append(parsed(text))
        except argparse.ArgumentTypeError as error:
            if not servers.is_address(text):
                raise Usage(f"{text} is neither a moment nor host:port; {error}") from None
            rest.append(text)
    options.at = rest
    if len(found) > 1:
        raise Usage("two moments are named: give one --at WHEN, or compare two with twinlog diff")
    return found[0] if found else None


async def stream_at(
    asked: Sequence[Server], stream: str, when: Moment, newest: int = 1, *, since_version: int = 0
) -> pb.GetStreamResponse:
    """The stream, from the service that has it; with what has changed since a version. Raises Failed."""
    request = pb.GetStreamRequest(stream=stream, newest=newest)
    if since_version:
        request.since.version = since_version
    request.MergeFrom(when.request)

    async def ask(server: Server) -> pb.GetStreamResponse | None:
        try:
            found: pb.GetStreamResponse = await server.inspection.GetStream(
                request, timeout=server.timeout_seconds
            )
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.NOT_FOUND:
                return None
            raise failure(server.address, error) from error
        return found

    answers, failures = await servers.ask_all(asked, ask)
    for server, found in answers:
        if found is not None:
            own = found.events[0].address.partition("/")[0]
            if when.log not in ("", own):
                raise Usage(
                    f"{stream} is in log {own}: name a position of that, or a time, not one of {when.log}"
                )
            await _say_if_to_come(server, found, when)
            return found
    if failures:
        raise max(failures, key=lambda each: each.code)
    if when is NOW:
        raise Usage(
            f"no service here has events of {stream}: it must be type/id, and have begun{await _types(asked)}"
        )
    begun = await stream_at(asked, stream, NOW if when.request == _FIRST.request else _FIRST)
    raise NotBegun(f"no service here has events of {stream} by then: it began with {_told(begun)}")


async def stream_since(asked: Sequence[Server], stream: str, when: Moment) -> pb.GetStreamResponse:
    """The same to compare with: a stream that had not begun by then has version 0, and nothing in it. Raises Failed."""
    try:
        return await stream_at(asked, stream, when)
    except NotBegun:
        return pb.GetStreamResponse(stream=stream)


def say_if_future(when: Moment) -> None:
    """Tells the user of a time that has not come yet."""
    request = when.request
    if request.HasField("upto_time") and (time := request.upto_time.ToDatetime(UTC)) > datetime.now(UTC):
        _say(f"{time.isoformat()} has not come yet (times without a zone are UTC): this is how it is now")


async def _say_if_to_come(server: Server, found: pb.GetStreamResponse, when: Moment) -> None:
    """Tells the user of a moment that the stream or its log has not come to yet; what is shown is how it is now."""
    say_if_future(when)
    if (version := when.request.upto_version) > found.version:
        _say(f"{found.stream} has no version {version:,} yet: this is its newest")
    if when.position:
        asked: Any = HistoryServiceStub(server.channel)
        head = await server.ask(asked.FindPosition, history.FindPositionRequest(position=when.position))
        if head.position.position < when.position:
            _say(f"log {when.log} ends at {head.position.position:,}: this is how it is now")


async def _types(asked: Sequence[Server]) -> str:
    """The known types of streams, as the end of a sentence."""
    answers, _ = await servers.ask_all(
        asked, lambda server: server.ask(server.inspection.Describe, pb.DescribeRequest())
    )
    types = sorted({each for _, described in answers for each in described.aggregates})
    return f". The types here are {', '.join(types)}" if types else ""


def _told(found: pb.GetStreamResponse) -> str:
    first = found.events[0]
    return f"{first.address}, recorded {shown(first.recorded_at)}"


def _say(note: str) -> None:
    print(note, file=sys.stderr)


def with_state(found: pb.GetStreamResponse) -> pb.GetStreamResponse:
    """The same. Raises Failed where it has no state."""
    if found.without_state:
        raise Failed(f"{found.stream} has no state to show: {found.without_state}")
    return found
