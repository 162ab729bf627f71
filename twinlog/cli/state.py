"""``twinlog state``: what an aggregate is, or was at any moment, and what changed since another."""

from __future__ import annotations

import argparse
import asyncio
import json

from twinlog.cli import moments, servers
from twinlog.cli.diff import changes_between, print_changes
from twinlog.cli.exits import OK
from twinlog.cli.output import console, plain, print_json
from twinlog.cli.together import print_heading, show_together
from twinlog.model.messages import as_object


def arguments(parser: argparse.ArgumentParser) -> None:
    servers.arguments(parser, when=moments.WHEN)
    parser.add_argument(
        "streams",
        nargs="+",
        metavar="TYPE/ID",
        type=moments.stream,
        help="the aggregate, such as order/01890a5d-ac96-774b-bcce-b302099a8057; of several, no effect "
        "is shown without its cause",
    )
    parser.add_argument("--as-of", metavar="WHEN", type=moments.parsed, help="same as --at WHEN")
    parser.add_argument(
        "--since",
        metavar="WHEN",
        type=moments.parsed,
        help=f"with what has changed since then: {moments.WHEN}",
    )


def run(options: argparse.Namespace) -> int:
    return asyncio.run(_run(options))


async def _run(options: argparse.Namespace) -> int:
    when = moments.taken(options) or moments.NOW
    if len(options.streams) > 1:
        return await show_together(options, when)
    [stream] = options.streams
    async with servers.connected(options) as asked:
        before = await moments.stream_since(asked, stream, options.since) if options.since else None
        since = before.version if before else 0
        found = moments.with_state(await moments.stream_at(asked, stream, when, since_version=since))
    state = as_object(found.state)
    if options.json:
        told = {
            "stream": found.stream,
            "version": found.version,
            "event": found.events[-1].address,
            "state": state,
        }
        if before:
            told["since_version"] = before.version
            told["changes"] = [as_object(change) for change in changes_between(before, found)]
        print_json(told)
        return OK
    out = console()
    print_heading(out, found)
    out.print(plain(json.dumps(state, ensure_ascii=False)), soft_wrap=True)
    if before:
        print_changes(out, before, found)
    return OK
