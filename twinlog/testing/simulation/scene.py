"""What can be seen of a world: its logs, streams and views, and the states that their events fold to."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, TypeVar

from google.protobuf.message import Message

from twinlog.log.personal import opened_with
from twinlog.memory.keys import MemoryKeys
from twinlog.memory.log import MemoryLog
from twinlog.memory.twin import MemoryTwin
from twinlog.memory.views import MemoryViews
from twinlog.model.aggregate import Aggregate, AnyAggregate
from twinlog.model.event import Recorded, StreamId
from twinlog.model.view import View
from twinlog.testing.fakes import START
from twinlog.testing.simulation.hosted import Survey

State = TypeVar("State")
Row = TypeVar("Row")


class Scene:
    """A world as tests and invariants look at it, beside its services and without a wait."""

    def __init__(self, survey: Survey, seconds: Callable[[], float], options: Any = None) -> None:
        """``seconds`` by the clock of the stores, since START. ``options``: the scenario's, of this seed."""
        self.survey = survey
        self.options = options
        self._seconds = seconds
        self.logs = {name: MemoryLog(name) for name in survey.logs}
        """The logs, by name."""
        self.twins = {name: MemoryTwin(name) for name in survey.logs}
        """Their streams."""
        self.views = {
            name: MemoryViews(self.logs[each.spec.log], each.queries)
            for name, each in sorted(survey.hosted.items())  # the same in every world
        }
        """The stores of projections, by service."""
        self.requested: Mapping[str, list[Recorded]] = defaultdict(list)
        """The events that clients' commands led to, by correlation id."""
        self.keys = MemoryKeys()
        """Those of persons, which the services share. States and messages are given opened; rows as they are stored."""
        self._log_of = {
            aggregate.name: each.spec.log
            for each in survey.hosted.values()
            for aggregate in each.spec.aggregates
        }
        self._schemas = {each.spec.log: each.spec.schema for each in survey.hosted.values()}

    def seconds(self) -> float:
        """How long it has been since START, by the clock of the stores."""
        return self._seconds()

    def now(self) -> datetime:
        """What time it is by the clock of the stores."""
        return START + timedelta(seconds=self._seconds())

    def decoded(self, event: Recorded) -> Any:
        """The message of an event; the last, where an upcaster makes several of it."""
        return self._decoded(event)[-1]

    def as_stored(self, event: Recorded) -> Sequence[Any]:
        """The messages of an event with their personal fields sealed, as projections are given them."""
        return self._schemas[event.log].decode(event)

    def messages(self, log: str) -> Sequence[Any]:
        """The messages of all events of a log, in order."""
        return [message for event in self.logs[log].events for message in self._decoded(event)]

    def state(self, aggregate: Aggregate[State, Any], id: str) -> State:
        """The state of an aggregate; the initial one where it has no events."""
        log = self._log(aggregate)
        events = self.logs[log].streams.get(StreamId(aggregate.name, id), ())
        return aggregate.fold([message for event in events for message in self._decoded(event)])

    def states(self, aggregate: Aggregate[State, Any]) -> Mapping[str, State]:
        """The states of all aggregates of a kind, by id."""
        streams = self.logs[self._log(aggregate)].streams
        ids = [stream.id for stream in streams if stream.type == aggregate.name]
        return {id: self.state(aggregate, id) for id in ids}

    def rows(self, view: View[Row]) -> Mapping[str, Row]:
        """The rows of a view, by key, as its projections have stored them."""
        stored = (store.tables[view.name] for store in self.views.values() if view.name in store.tables)
        return next(stored, {})

    def _decoded(self, event: Recorded) -> Sequence[Message]:
        return self._schemas[event.log].decode(opened_with(self.keys.known(), event))

    def _log(self, aggregate: AnyAggregate) -> str:
        if aggregate.name not in self._log_of:
            raise LookupError(f"no service of this world has the aggregate {aggregate.name} in its spec")
        return self._log_of[aggregate.name]
