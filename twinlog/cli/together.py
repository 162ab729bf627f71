"""Several aggregates at one moment: each effect is shown with its cause."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace

from rich.console import Console

from twinlog.cli import moments, servers
from twinlog.cli.exits import OK, Usage
from twinlog.cli.moments import Moment
from twinlog.cli.output import console, line, plain, print_json
from twinlog.cli.servers import Server
from twinlog.cli.values import shown
from twinlog.model.messages import as_object
from twinlog.v1 import history_service_pb2 as history
from twinlog.v1 import inspection_pb2 as pb
from twinlog.v1.history_service_pb2_grpc import HistoryServiceStub
from twinlog.v1.moment_pb2 import LogPosition


async def show_together(options: argparse.Namespace, when: Moment) -> int:
    """Prints the streams in one cut. Raises Failed."""
    if options.since:
        raise Usage("--since goes with one stream: compare each by itself")
    if when.request.upto_version:
        raise Usage("a version is a moment of one stream: give a position, such as orders/17, or a time")
    moments.say_if_future(when)
    async with servers.connected(options) as asked:
        cut = await _cut(asked, when)
        found = [await _in_cut(asked, stream, cut) for stream in options.streams]
    if options.json:
        told = [
            {"stream": each.stream, "version": each.version, "state": as_object(each.state)} for each in found
        ]
        print_json({"cut": cut, "streams": told})
        return OK
    out = console()
    ends = ", ".join(f"{log}/{position}" for log, position in cut.items())
    out.print(line(f"no effect without its cause: {ends}", "bold"), soft_wrap=True)
    for each in found:
        print_heading(out, each)
        out.print(plain(json.dumps(as_object(each.state), ensure_ascii=False)), soft_wrap=True)
    return OK


def print_heading(out: Console, found: pb.GetStreamResponse) -> None:
    """Which stream it is, and at which event."""
    last = found.events[-1]
    words = f"{found.stream} at version {found.version}, {last.address}, recorded {shown(last.recorded_at)}"
    out.print(line(words, "bold"), soft_wrap=True)


async def _cut(asked: Sequence[Server], when: Moment) -> Mapping[str, int]:
    """A position of each log, from any service that can tell."""
    request = history.GetCutRequest()
    if when.position:
        request.position.CopyFrom(LogPosition(log=when.log, position=when.position))
    elif when.request.HasField("upto_time"):
        request.time.CopyFrom(when.request.upto_time)
    answers, failures = await servers.ask_all(
        asked, lambda server: server.ask(HistoryServiceStub(server.channel).GetCut, request)
    )
    if not answers:
        raise max(failures, key=lambda each: each.code)
    widest = max((found for _, found in answers), key=lambda found: len(found.cut))
    return {each.log: each.position for each in widest.cut}


async def _in_cut(asked: Sequence[Server], stream: str, cut: Mapping[str, int]) -> pb.GetStreamResponse:
    now = await moments.stream_at(asked, stream, moments.NOW)
    log = now.events[-1].address.rpartition("/")[0]
    if log not in cut:
        raise Usage(
            f"log {log} of {stream} is not in the cut: name its service in TWINLOG_SERVICES of the others"
        )
    if not cut[log]:
        raise Usage(f"{stream} had not begun by then: log {log} ends before its first event")
    then = replace(moments.NOW, request=pb.GetStreamRequest(upto_position=cut[log]))
    return moments.with_state(await moments.stream_at(asked, stream, then))
