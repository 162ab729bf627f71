"""``twinlog state``: what an aggregate is, or was at any moment, and what changed between two moments."""

from __future__ import annotations

import argparse
import asyncio
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

import grpc
import grpc.aio

from twinlog.cli import servers
from twinlog.cli.exits import OK, Failed, Usage
from twinlog.cli.output import console, line, plain, print_json
from twinlog.cli.servers import Server, failure
from twinlog.cli.times import moment
from twinlog.model.messages import as_object
from twinlog.rpc.stream_states import differences
from twinlog.v1 import inspection_pb2 as pb

_POSITION = re.compile(r"([^/\s]+)/([1-9][0-9]{0,18})")
_VERSION = re.compile(r"v?([1-9][0-9]{0,9})")
_WHEN = "a version (12), a position (orders/17), a time (2026-01-31T12:00:00) or how long ago (10m, 2h)"


def arguments(parser: argparse.ArgumentParser) -> None:
    servers.arguments(parser)
    parser.add_argument(
        "stream", help="the aggregate, type/id, such as order/01890a5d-ac96-774b-bcce-b302099a8057"
    )
    parser.add_argument(
        "--as-of", metavar="WHEN", type=_moment, help=f"as it was then: {_WHEN}; default: now"
    )
    parser.add_argument("--since", metavar="WHEN", type=_moment, help="with what has changed since then")


def run(options: argparse.Namespace) -> int:
    return asyncio.run(_run(options))


async def _run(options: argparse.Namespace) -> int:
    async with servers.connected(options) as asked:
        found = await _stream(asked, options.stream, options.as_of or _Moment(pb.GetStreamRequest()))
        before = await _stream(asked, options.stream, options.since) if options.since else None
    if found.without_state:
        raise Failed(f"{found.stream} has no state to show: {found.without_state}")
    state = as_object(found.state)
    changes = list(differences(as_object(before.state), state)) if before else []
    [last] = found.events
    if options.json:
        told = {"stream": found.stream, "version": found.version, "event": last.address, "state": state}
        if before:
            told["since_version"] = before.version
            told["changes"] = [as_object(change) for change in changes]
        print_json(told)
        return OK
    at = last.recorded_at.ToDatetime().isoformat(sep=" ", timespec="milliseconds")
    out = console()
    out.print(
        line(f"{found.stream} at version {found.version}, {last.address}, recorded {at}", "bold"),
        soft_wrap=True,
    )
    out.print(plain(json.dumps(state, ensure_ascii=False)), soft_wrap=True)
    if before:
        words = "what has changed" if changes else "nothing has changed"
        out.print(line(f"since version {before.version}: {words}", "bold"), soft_wrap=True)
    for change in changes:
        was, now = change.before or "(none)", change.after or "(none)"
        out.print(line(f"    {change.path}: {was} → {now}", "green"), soft_wrap=True)
    return OK


@dataclass(frozen=True)
class _Moment:
    """Which moment of a stream."""

    request: pb.GetStreamRequest
    log: str = ""
    """The log that it is a position of; empty: it is none."""


def _moment(text: str) -> _Moment:
    if match := _POSITION.fullmatch(text):
        return _Moment(pb.GetStreamRequest(upto_position=min(int(match[2]), 2**63 - 1)), match[1])
    if match := _VERSION.fullmatch(text):
        return _Moment(pb.GetStreamRequest(upto_version=min(int(match[1]), 2**31 - 1)))
    request = pb.GetStreamRequest()
    request.upto_time.FromDatetime(moment(text))
    return _Moment(request)


async def _stream(asked: Sequence[Server], stream: str, when: _Moment) -> pb.GetStreamResponse:
    """The stream, from the service that has it. Raises Failed."""
    request = pb.GetStreamRequest(stream=stream, newest=1)
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
