"""A story as pages show it: its drawings, what is said of each event, and who has yet to do something because of it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from twinlog.console.changes import changes_of
from twinlog.console.lanes import Lanes, anchor, lanes
from twinlog.console.looks import Look
from twinlog.console.pending import Owing, by_service, parked, pending
from twinlog.console.services import Services, at_once
from twinlog.console.story import Story, log_of, story_of
from twinlog.model.messages import as_object
from twinlog.v1 import inspection_pb2 as pb

_KERNEL = "twinlog.v1."
_GOES_BACK = ("Failed", "Interrupted", "Compensated", "Aborted")


@dataclass(frozen=True)
class Told:
    id: str
    event: pb.LoggedEvent
    service: str
    address: str
    """Where that service serves."""
    cause: str
    """The id of what is said of its cause; empty where that is not shown."""
    effects: Sequence[pb.LoggedEvent]
    change: pb.StreamState | None
    kind: str

    @property
    def payload(self) -> Any:
        return as_object(self.event.payload)

    @property
    def shown(self) -> bytes:
        """What is told of the change: other bytes where that is something else, as after an erasure."""
        return self.change.SerializeToString(deterministic=True) if self.change else b""

    @property
    def state(self) -> Any:
        """What the stream came to, as JSON has it; None where that is not known."""
        known = self.change and self.change.HasField("state")
        return as_object(self.change.state) if self.change and known else None


@dataclass(frozen=True)
class StoryView:
    story: Story
    told: Sequence[Told]
    wide: Lanes
    narrow: Lanes
    owing: Sequence[Owing]
    """What services have set aside or have yet to do; those that keep views among them."""
    addresses: Sequence[str]
    """Where all services with a log serve, for commands that look into each."""

    def without_states(self) -> StoryView:
        """The same without what the events changed, which has personal texts in plain: it may be kept."""
        return replace(self, told=[replace(told, change=None) for told in self.told])


async def view_of(
    services: Services,
    look: Look,
    known: Iterable[pb.LoggedEvent],
    tables: Sequence[pb.SagaTable] = (),
) -> StoryView:
    """The story that some events are part of; ``tables``: of its saga, if it is one's."""
    with at_once():
        story = await story_of(services, look, known)
        changes, aside = await asyncio.gather(
            changes_of(services, story.services, story.events), parked(services, look, story.events)
        )
    kinds = _kinds(story, tables or look.saga_tables)
    waiting = pending(look, story.events)
    drawn = [*waiting, *aside]
    return StoryView(
        story,
        [*_told(story, look, kinds, changes)],
        lanes(story, kinds, drawn),
        lanes(story, kinds, drawn, narrow=True),
        by_service([*aside, *waiting]),
        [said.address for said in look.logs.values()],
    )


def _told(
    story: Story, look: Look, kinds: Mapping[str, str], changes: Mapping[str, pb.StreamState]
) -> Iterable[Told]:
    addresses = {event.address for event in story.events}
    effects: dict[str, list[pb.LoggedEvent]] = {}
    for event in story.events:
        effects.setdefault(event.cause, []).append(event)
    for event in story.events:
        service = story.services.get(log_of(event), "")
        said = look.services.get(service)
        yield Told(
            anchor(event.address),
            event,
            service,
            said.address if said else "",
            anchor(event.cause) if event.cause in addresses else "",
            effects.get(event.address, []),
            changes.get(event.event_id),
            kinds[event.address],
        )


def _kinds(story: Story, tables: Sequence[pb.SagaTable]) -> dict[str, str]:
    """What color each event has."""
    aggregates = {table.aggregate for table in tables}
    steps = [step for table in tables for step in (*table.steps, table.on_compensated)]
    refused = {step.refused for step in steps} | {step.transient for step in steps}
    undone = (
        {step.undone for step in steps}
        | {step.undo for step in steps}
        | {event for table in tables for event in table.interrupted_by}
        | {table.on_compensated.command for table in tables}
    )
    return {event.address: _kind(event, aggregates, refused - {""}, undone - {""}) for event in story.events}


def _kind(event: pb.LoggedEvent, aggregates: set[str], refused: set[str], undone: set[str]) -> str:
    types = {event.type, *(each.type for each in event.read_as.events)}
    if types & refused or event.type.endswith("NeedsAttention"):
        return "bad"
    if types & undone:
        return "undo"
    if event.type.startswith(_KERNEL):
        return "undo" if event.type.endswith(_GOES_BACK) else "saga"
    return "command" if event.stream.partition("/")[0] in aggregates else "event"
