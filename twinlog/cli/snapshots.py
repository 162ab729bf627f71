"""``twinlog snapshots list|drop|rebuild``: the snapshots that services keep of versions long past."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

import grpc
import grpc.aio

from twinlog.cli import servers
from twinlog.cli.exits import OK, WRONG, Usage
from twinlog.cli.output import as_dict, console, line, print_json, table
from twinlog.cli.servers import Server, failure
from twinlog.v1 import inspection_pb2 as inspection
from twinlog.v1 import snapshot_service_pb2 as pb
from twinlog.v1.snapshot_service_pb2_grpc import SnapshotServiceStub

_PAGE = 1_000
_VIEW = "view:"
_SECONDS = 24 * 3600.0
"""How long a rebuild of all streams may take."""


def arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    listing = actions.add_parser("list", help="by stream and version")
    servers.arguments(listing)
    listing.add_argument("stream", nargs="?", default="", help="only those of this stream, TYPE/ID, or TYPE")
    listing.set_defaults(action=_list)
    for name, action, help in (
        ("drop", _drop, "drop them; the next look at the past makes them anew"),
        (
            "rebuild",
            _rebuild,
            "make them anew, from the first event; exit code 1 where a stream cannot be read",
        ),
    ):
        added = actions.add_parser(name, help=help)
        servers.arguments(added)
        views = "; or the past rows of a view, view:NAME" if name == "drop" else ""
        added.add_argument(
            "stream", help=f"those of this stream, TYPE/ID, or of all streams of a TYPE{views}"
        )
        added.set_defaults(action=action)


run = servers.act


async def _list(options: argparse.Namespace, asked: Sequence[Server]) -> int:
    answers, failures = await servers.ask_all(asked, lambda server: _all(server, options.stream))
    if options.stream and not failures and not any(found for _, found in answers):
        await _owner(options.stream, asked)  # which refuses a type that there is not
    rows = [as_dict(each) for _, found in answers for each in found]
    if options.json:
        print_json({"snapshots": rows, "failures": [str(each) for each in failures]})
        return servers.worst(failures)
    out = console()
    columns = ["stream", "version", "position", "bytes", "kept_at", "stale"]
    shown = table(
        "Kept snapshots", columns, [[row[name] for name in columns] for row in rows], right=columns[1:4]
    )
    if rows or not failures:
        out.print(shown if rows else "None.")
    if rows:
        out.print(f"{len(rows):,} snapshots, {sum(row['bytes'] for row in rows):,} bytes")
    servers.print_failures(failures)
    return servers.worst(failures)


async def _all(server: Server, stream: str) -> list[pb.KeptSnapshot]:
    request = pb.ListSnapshotsRequest(stream=stream, page_size=_PAGE)
    return [
        each
        async for page in server.pages(_service(server).ListSnapshots, request)
        for each in page.snapshots
    ]


async def _drop(options: argparse.Namespace, asked: Sequence[Server]) -> int:
    server = await _owner(options.stream, asked)
    done = await server.ask(_service(server).DropSnapshots, pb.DropSnapshotsRequest(stream=options.stream))
    if options.json:
        print_json({"dropped": done.dropped})
    else:
        console().print(f"{done.dropped:,} dropped")
    return OK


async def _rebuild(options: argparse.Namespace, asked: Sequence[Server]) -> int:
    server, out = await _owner(options.stream, asked), console()
    made: list[dict[str, Any]] = []
    request = pb.RebuildSnapshotsRequest(stream=options.stream)
    try:
        async for each in _service(server).RebuildSnapshots(request, timeout=_SECONDS):
            made.append(as_dict(each))
            if not options.json:
                words = f"{each.stream}: {each.kept:,} kept up to version {each.version:,}"
                out.print(line(f"{words}; {each.problem}" if each.problem else words), soft_wrap=True)
    except grpc.aio.AioRpcError as error:
        raise failure(server.address, error) from error
    if options.json:
        print_json({"rebuilt": made})
    elif not made:
        out.print(f"No {options.stream} has so many events that one is kept.")
    return WRONG if any(each["problem"] for each in made) else OK


async def _owner(stream: str, asked: Sequence[Server]) -> Server:
    """The server whose log has the streams of a type. Raises Failed."""
    type = stream.partition("/")[0]

    async def aggregates(server: Server) -> Sequence[str]:
        described = await server.ask(server.inspection.Describe, inspection.DescribeRequest())
        return [*described.aggregates, *(f"{_VIEW}{view.view}" for view in described.views)]

    answers, failures = await servers.ask_all(asked, aggregates)
    for server, names in answers:
        if type in names:
            return server
    if failures:
        raise max(failures, key=lambda each: each.code)
    is_view = type.startswith(_VIEW)
    there = {each for _, names in answers for each in names if each.startswith(_VIEW) == is_view}
    known = ", ".join(sorted(each.removeprefix(_VIEW) for each in there))
    words = f"a view {type.removeprefix(_VIEW)}" if is_view else f"an aggregate {type}"
    raise Usage(f"no service here has {words}; they have {known or 'none'}") from None


def _service(server: Server) -> Any:
    return SnapshotServiceStub(server.channel)
