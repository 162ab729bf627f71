"""``twinlog diff``: what changed in an aggregate between two moments, and by which events."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from rich.console import Console

from twinlog.cli import moments, servers
from twinlog.cli.exits import OK
from twinlog.cli.output import console, line, plain, print_json
from twinlog.cli.servers import Server
from twinlog.cli.values import shown
from twinlog.model.differences import differences
from twinlog.model.messages import as_object
from twinlog.v1 import inspection_pb2 as pb

_MOST_EVENTS = 100


def arguments(parser: argparse.ArgumentParser) -> None:
    servers.arguments(parser)
    parser.set_defaults(action=_diff)
    parser.add_argument(
        "stream", help="the aggregate, type/id, such as order/01890a5d-ac96-774b-bcce-b302099a8057"
    )
    parser.add_argument("since", metavar="FROM", type=moments.parsed, help=moments.WHEN)
    parser.add_argument("until", metavar="TO", type=moments.parsed, nargs="?", help="like FROM; default: now")


run = servers.act


async def _diff(options: argparse.Namespace, asked: Sequence[Server]) -> int:
    before = await moments.stream_since(asked, options.stream, options.since)
    until = options.until or moments.NOW
    after = await moments.stream_at(asked, options.stream, until, _MOST_EVENTS, since_version=before.version)
    moments.with_state(before), moments.with_state(after)
    between = [event for event in after.events if event.version > before.version]
    if options.json:
        print_json(
            {
                "stream": after.stream,
                "from_version": before.version,
                "to_version": after.version,
                "events": [event.address for event in between],
                "changes": [as_object(change) for change in changes_between(before, after)],
            }
        )
        return OK
    out = console()
    words = f"{after.stream} from version {before.version} to version {after.version}"
    out.print(line(words, "bold"), soft_wrap=True)
    if (more := after.version - before.version - len(between)) > 0:
        out.print(line(f"    {more:,} events, and", "dim"), soft_wrap=True)
    for event in between:
        at = shown(event.recorded_at)
        out.print(plain(f"    {at}  {event.address}  {event.type.rpartition('.')[2]}"), soft_wrap=True)
    print_changes(out, before, after)
    return OK


def changes_between(before: pb.GetStreamResponse, after: pb.GetStreamResponse) -> Sequence[pb.StateChange]:
    """The values that differ between two states of a stream, by path; the service knows those of large maps, too."""
    if before.version:
        return after.changes
    return list(differences(as_object(before.state), as_object(after.state)))


def print_changes(out: Console, before: pb.GetStreamResponse, after: pb.GetStreamResponse) -> None:
    """What has changed since a moment, a line for each value."""
    changes = changes_between(before, after)
    words = "what has changed" if changes else "nothing has changed"
    out.print(line(f"since version {before.version}: {words}", "bold"), soft_wrap=True)
    for change in changes:
        was, now = change.before or "(none)", change.after or "(none)"
        out.print(line(f"    {change.path}: {was} → {now}", "green"), soft_wrap=True)
    if after.more_changes:
        out.print(line(f"    and {after.more_changes:,} more", "green"), soft_wrap=True)
