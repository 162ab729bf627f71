"""An event of a log, printed for people."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from twinlog.cli.output import as_dict, console, line, plain
from twinlog.cli.values import shown
from twinlog.v1 import inspection_pb2 as pb


def show(event: pb.LoggedEvent, before: str = "") -> None:
    """Prints an event for people, with something before its address."""
    out = console()
    kind = event.type.rpartition(".")[2]
    head = plain(f"{before}{event.address}  {shown(event.recorded_at)}  ")
    head.append_text(line(kind, "bold"))
    head.append_text(line(f"  {event.stream} v{event.version}", "cyan"))
    out.print(head, soft_wrap=True)
    if event.HasField("payload"):
        text = json.dumps(as_dict(event)["payload"], ensure_ascii=False)
    else:
        text = "(not decoded: the service does not know this type, or its bytes are none of it)"
    out.print(plain(f"    {text}"), soft_wrap=True)
    for said in read_as(as_dict(event)):
        out.print(plain(f"    {said}"), soft_wrap=True)
    why = f"    by {event.actor or '?'} because of {event.cause or '?'}, correlation {event.correlation_id}"
    if event.extra:
        why += ", " + ", ".join(f"{name}={event.extra[name]}" for name in sorted(event.extra))
    out.print(line(why, "dim"), soft_wrap=True)
    sys.stdout.flush()


def read_as(event: Mapping[str, Any]) -> Sequence[str]:
    """What an event, as JSON has it, is read as, in words; empty where it is read as it is stored."""
    if not (said := event.get("read_as")):
        return []
    if said["problem"]:
        return [f"not readable: {said['problem']}"]
    return [
        f"read as {each['type'].rpartition('.')[2]} {json.dumps(each['payload'], ensure_ascii=False)}"
        for each in said["events"]
    ] or ["read as nothing: its type was dropped"]
