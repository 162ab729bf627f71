"""``twinlog log``: events of a log, decoded: a range, the newest, or those to come."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import AsyncIterator, Sequence

import grpc.aio

from twinlog.cli import log_relations, servers
from twinlog.cli.exits import OK, Usage
from twinlog.cli.log_events import show
from twinlog.cli.output import as_dict, print_json
from twinlog.cli.servers import Server, failure
from twinlog.cli.values import moment, position, whole_number
from twinlog.v1 import inspection_pb2 as pb

_NEWEST = 20
_AGAIN_SECONDS = 1.0


def arguments(parser: argparse.ArgumentParser) -> None:
    servers.arguments(parser)
    parser.set_defaults(action=_log)
    parser.add_argument("log", nargs="?", default="", help="the log; needed where the services have several")
    parser.add_argument(
        "-n", "--newest", type=whole_number(1), help=f"so many of the newest; default: {_NEWEST}"
    )
    parser.add_argument("-f", "--follow", action="store_true", help="then go on with new events as they come")
    parser.add_argument("--after", type=position, help="from this position on, the event at it not included")
    parser.add_argument("--upto", type=position, default=0, help="up to this position")
    parser.add_argument("--since", type=moment, help="recorded since then: 2026-01-31T12:00:00, or 10m, 2h")
    parser.add_argument("--until", type=moment, help="recorded before then")
    parser.add_argument(
        "--stream", default="", help="of this stream, type/id; a type alone: of all its streams"
    )
    parser.add_argument("--type", action="append", default=[], help="of this type, full or short; repeatable")
    parser.add_argument("--correlation", default="", help="set off by the request with this correlation id")
    parser.add_argument("--routing-key", default="", help="with this routing key")
    parser.add_argument(
        "--states", action="store_true", help="with what each changed; needs --stream type/id"
    )
    parser.add_argument(
        "--trace", metavar="EVENT", help="this one, log/position: its causes and direct effects"
    )


def run(options: argparse.Namespace) -> int:
    if options.states and "/" not in options.stream:
        raise Usage("--states needs one stream: --stream type/id")
    return servers.act(options)


async def _log(options: argparse.Namespace, asked: Sequence[Server]) -> int:
    if options.trace:
        return await log_relations.trace(asked, options)
    server = await _owner(asked, options.log)
    if options.states:
        return await log_relations.states(server, options)
    async for event in events(server, _request(options)):
        if options.json:
            print_json(as_dict(event), one_line=True)
        else:
            show(event)
    return OK


def _request(options: argparse.Namespace) -> pb.ReadLogRequest:
    from_somewhere = options.after is not None or options.since or options.upto
    newest = options.newest or (0 if from_somewhere else _NEWEST)
    request = pb.ReadLogRequest(
        after=options.after or 0,
        upto=options.upto,
        newest=newest,
        follow=options.follow,
        stream=options.stream,
        types=options.type,
        correlation_id=options.correlation,
        routing_key=options.routing_key,
    )
    if options.since:
        request.since.FromDatetime(options.since)
    if options.until:
        request.until.FromDatetime(options.until)
    return request


async def _owner(asked: Sequence[Server], log: str) -> Server:
    """The server whose own log that is; without a name, the only one there is. Raises Failed."""
    answers, failures = await servers.ask_all(
        asked, lambda server: server.ask(server.inspection.Describe, pb.DescribeRequest())
    )
    own = {server.address: str(described.logs[0].log) for server, described in answers}
    names = sorted({*own.values()})
    for server, _ in answers:
        if own[server.address] == log or (not log and len(names) == 1):
            return server
    if failures:
        raise max(failures, key=lambda each: each.code)
    if log:
        raise Usage(f"no service here has log {log}; they have {', '.join(names)}")
    raise Usage(f"which log? {', '.join(names)}")


async def events(server: Server, request: pb.ReadLogRequest) -> AsyncIterator[pb.LoggedEvent]:
    """All events that a request is about, over as many calls as that takes. Raises Failed."""
    while True:
        complete = False
        try:
            async for response in server.inspection.ReadLog(request):
                if response.HasField("event"):
                    yield response.event
                request.after, complete = response.position, response.complete
                if response.position:
                    request.newest = 0
        except grpc.aio.AioRpcError as error:
            if not (request.follow and error.code() is grpc.StatusCode.UNAVAILABLE):
                raise failure(server.address, error) from error
            await asyncio.sleep(_AGAIN_SECONDS)
            continue
        if complete or request.newest:
            return
