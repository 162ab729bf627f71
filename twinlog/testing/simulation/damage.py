"""What happens to stores: streams that lose messages, databases that are set back and repaired."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from functools import partial
from random import Random
from typing import TYPE_CHECKING

from twinlog.log.repair import difference, plan
from twinlog.log.snapshots import StateCodec
from twinlog.memory.twin import MemoryTwin
from twinlog.model.event import Recorded
from twinlog.testing.fakes import SeededIds
from twinlog.testing.simulation.faults import Damage, Fault

if TYPE_CHECKING:
    from twinlog.testing.simulation.run import Run

_IN_A_BACKUP = ("events", "checkpoints", "handled", "timers")
"""Not the outcomes of requests, which no repair can restore: their clients would be answered anew."""


def damage(world: Run, twin: MemoryTwin, fault: Fault) -> None:
    """Takes messages from a stream."""
    if twin.messages is None or twin.name in world.promises.forked:
        return
    match fault.kind:
        case "wipe":
            twin.messages = None
        case "purge":
            twin.messages.clear()
            twin.wake_deliveries()
            return
        case "roll back":
            twin.last = max(0, twin.last - fault.size)
            twin.messages = {n: message for n, message in twin.messages.items() if n <= twin.last}
    twin.delete_consumers()


def damage_snapshots(world: Run, fault: Fault) -> None:
    """Makes every snapshot of a log useless."""
    log, survey = world.scene.logs[fault.target], world.scene.survey
    known = {each.name: each for each in survey.hosted[survey.owner(log.name)].spec.aggregates}
    for stream, snapshot in log.snapshots.items():
        state, last = snapshot.state, len(log.streams.get(stream, ()))
        match Damage(fault.size):
            case Damage.CUT_OFF:
                changed = snapshot._replace(state=state[: len(state) // 2])
            case Damage.GARBAGE:
                changed = snapshot._replace(state=state[::-1])
            case Damage.AHEAD:
                changed = snapshot._replace(version=last + 1)
            case Damage.OF_ANOTHER_SCHEMA:
                aggregate = known.get(stream.type)
                other = StateCodec(aggregate).encode(aggregate.initial) if aggregate else b"{}"
                changed = snapshot._replace(schema="another", state=other)
        log.snapshots[stream] = changed


def set_back_later(world: Run, fault: Fault) -> None:
    """Makes a backup of a database, and puts it back later."""
    log = world.scene.logs[fault.target]
    kept = {name: copy(getattr(log, name)) for name in _IN_A_BACKUP}
    service = world.scene.survey.owner(log.name)
    views = world.scene.views[service]
    tables = {name: dict(rows) for name, rows in views.tables.items()}
    checkpoints = dict(views.positions)

    def put_back() -> None:
        twin, head = world.scene.twins[log.name], len(log.events)
        whole = twin.messages is not None and len(twin.messages) == twin.last == head
        if log.name in world.promises.forked or not whole:
            return  # what the stream does not have either would be gone for good
        if log.events[: len(kept["events"])] != kept["events"]:
            return  # it is of a fork, and a repair has ended that
        world.note("fault", f"{log.name} is set back from {head} to {len(kept['events'])}")
        lost = log.events[len(kept["events"]) :][: fault.size]
        for name, value in kept.items():
            setattr(log, name, value)
        views.tables, views.positions = tables, checkpoints
        world.logs[log.name].failovers += 1
        world.promises.set_back(log.name, service)
        if lost:
            world.note(
                "fault", f"somebody writes {len(lost)} other events in the place of those that were lost"
            )
        log.events += _written_instead(lost, Random(f"{world.seed}/{fault.at}"))
        log.streams = {}
        for event in log.events:
            log.streams.setdefault(event.stream, []).append(event)
        world.later(0.5 + world.chance.random() * 3, partial(_repair, world, log.name))

    world.later(fault.seconds, put_back)


def _written_instead(lost: Sequence[Recorded], chance: Random) -> Sequence[Recorded]:
    """What somebody writes who does not compare the log with its stream, as no service does."""
    ids = SeededIds(chance)
    return [event._replace(event_id=ids.uuid7()) for event in lost]


def _repair(world: Run, name: str) -> None:
    if name in world.promises.forked:
        world.loop.start(_repairing(world, name))


async def _repairing(world: Run, name: str) -> None:
    try:
        log = world.scene.logs[name]
        found = await difference(log, world.scene.twins[name])
        if found.since:
            before, ours = log.events[: found.since - 1], log.events[found.since - 1 :]
            versions = {event.stream: event.version for event in before}
            replies = dict(log.replies)  # of what is restored: they were not set back
            log.repair(plan(ours, found.theirs, versions, log.checkpoints))
            log.replies = replies
        world.note(name, f"is repaired from {found.since} on")
        world.promises.repaired(name)
    except Exception as error:
        world.fail(error)
