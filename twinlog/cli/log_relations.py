"""``twinlog log --trace`` and ``--states``: causes and effects of an event, and what each of a stream changed."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from contextlib import suppress

from twinlog.cli import servers
from twinlog.cli.exits import OK, Usage
from twinlog.cli.log_events import show
from twinlog.cli.output import as_dict, console, line, print_json
from twinlog.cli.servers import Server
from twinlog.v1 import inspection_pb2 as pb

_STEPS = 100
"""Causes that are followed from log to log."""


async def states(server: Server, options: argparse.Namespace) -> int:
    """The events of a stream, each with what it changed."""
    request = pb.GetStreamRequest(
        stream=options.stream, newest=options.newest or 0, with_states=True, changes_only=not options.json
    )
    found = await server.ask(server.inspection.GetStream, request)
    if options.json:
        print_json(as_dict(found))
        return OK
    changed = {state.version: state for state in found.states}
    for event in found.events:
        show(event)
        state = changed.get(event.version, pb.StreamState())
        for change in state.changes:
            _print(f"    {change.path}: {change.before or '(none)'} → {change.after or '(none)'}", "green")
        if state.more_changes:
            _print(f"    and {state.more_changes} more", "dim")
    if found.without_state:
        _print(found.without_state, "yellow")
    return OK


async def trace(asked: Sequence[Server], options: argparse.Namespace) -> int:
    """An event between its causes and its direct effects, over all logs that the servers have."""
    event, causes, beyond = await _causes(asked, options.trace)
    request = pb.TraceEventRequest(address=event.address, recorded_at=event.recorded_at)
    answers, failures = await servers.ask_all(
        asked, lambda server: server.ask(server.inspection.TraceEvent, request)
    )
    effects = [effect for _, answer in answers for effect in answer.effects]
    if options.json:
        print_json(
            {
                "event": as_dict(event),
                "causes": [as_dict(each) for each in causes],
                "beyond": beyond,
                "effects": [as_dict(each) for each in effects],
                "failures": [str(each) for each in failures],
            }
        )
        return servers.worst(failures)
    _print(beyond, "dim")
    for cause in reversed(causes):
        show(cause, "↳ ")
    show(event, "● ")
    for effect in effects:
        show(effect, "  ↳ ")
    for each in failures:
        _print(f"not asked for effects: {each}", "yellow")
    return servers.worst(failures)


async def _causes(
    asked: Sequence[Server], address: str
) -> tuple[pb.LoggedEvent, Sequence[pb.LoggedEvent], str]:
    """The event, its causes from log to log, nearest first, and what was before the first of them."""
    first = await _traced(asked, address)
    if first is None:
        raise Usage(f"no service here has the event {address}; it must be log/position, such as orders/17")
    causes, beyond = [*first.causes], first.beyond
    while len(causes) < _STEPS and (traced := await _traced(asked, beyond)):
        causes += [traced.event, *traced.causes]
        beyond = traced.beyond
    return first.event, causes, beyond


async def _traced(asked: Sequence[Server], address: str) -> pb.TraceEventResponse | None:
    """What the service that has an event says of it; None: none here has it."""
    request = pb.TraceEventRequest(address=address)
    for server in asked:
        with suppress(Usage):  # it has another log, or not this event
            traced: pb.TraceEventResponse = await server.ask(server.inspection.TraceEvent, request)
            return traced
    return None


def _print(text: str, style: str) -> None:
    console().print(line(text, style), soft_wrap=True)
