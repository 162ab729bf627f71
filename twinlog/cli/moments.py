"""Moments of the past as commands take them, and streams as they were then."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import grpc
import grpc.aio

from twinlog.cli import servers
from twinlog.cli.exits import Failed, Usage
from twinlog.cli.servers import Server, failure
from twinlog.cli.times import moment
from twinlog.v1 import inspection_pb2 as pb

WHEN = "a version (12), a position (orders/17), a time (2026-01-31T12:00:00Z) or how long ago (10m, 2h)"
_POSITION = re.compile(r"([^/\s]+)/([1-9][0-9]{0,18})")
_VERSION = re.compile(r"v?([1-9][0-9]{0,9})")


@dataclass(frozen=True)
class Moment:
    """Which moment of a stream."""

    request: pb.GetStreamRequest
    log: str = ""
    """The log that it is a position of; empty: it is none."""

    @property
    def position(self) -> int:
        """The position that it is; 0: it is none."""
        return self.request.upto_position


NOW = Moment(pb.GetStreamRequest())


def parsed(text: str) -> Moment:
    """A moment as an argument names it. Raises argparse.ArgumentTypeError."""
    if match := _POSITION.fullmatch(text):
        return Moment(pb.GetStreamRequest(upto_position=min(int(match[2]), 2**63 - 1)), match[1])
    if match := _VERSION.fullmatch(text):
        return Moment(pb.GetStreamRequest(upto_version=min(int(match[1]), 2**31 - 1)))
    request = pb.GetStreamRequest()
    request.upto_time.FromDatetime(moment(text.removesuffix(" ago")))
    return Moment(request)


def taken(options: argparse.Namespace) -> Moment | None:
    """The moment among the values of ``--at``, which are addresses otherwise; None: none is. Raises Usage.

    ``--as-of`` is the same.
    """
    found = [options.as_of] if getattr(options, "as_of", None) else []
    rest = []
    for text in options.at or []:
        with suppress(argparse.ArgumentTypeError):
            found.append(parsed(text))
            continue
        if ":" not in text:
            raise Usage(f"{text} is neither a moment nor host:port; a moment is {WHEN}")
        rest.append(text)
    options.at = rest
    if len(found) > 1:
        raise Usage("two moments are named: give one --at WHEN, or compare two with twinlog diff")
    return found[0] if found else None


async def stream_at(
    asked: Sequence[Server], stream: str, when: Moment, newest: int = 1
) -> pb.GetStreamResponse:
    """The stream, from the service that has it. Raises Failed."""
    request = pb.GetStreamRequest(stream=stream, newest=newest)
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
    for _, found in answers:
        if found is not None:
            own = found.events[0].address.partition("/")[0]
            if when.log not in ("", own):
                raise Usage(
                    f"{stream} is in log {own}: name a position of that, or a time, not one of {when.log}"
                )
            return found
    if failures:
        raise max(failures, key=lambda each: each.code)
    raise Usage(f"no service here has events of {stream} by then; it must be type/id, and have begun")


def with_state(found: pb.GetStreamResponse) -> pb.GetStreamResponse:
    """The same. Raises Failed where it has no state."""
    if found.without_state:
        raise Failed(f"{found.stream} has no state to show: {found.without_state}")
    return found
