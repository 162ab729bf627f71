"""The aggregate whose streams are a saga's instances."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING

from google.protobuf.message import Message

from twinlog.model.aggregate import Aggregate, Events
from twinlog.model.errors import ConfigurationError, UnknownSagaVersion
from twinlog.model.forms import WrongForm, shown
from twinlog.model.saga import Command, SagaInstance, Wake
from twinlog.model.saga_table import Saga, WrongSagaTable
from twinlog.v1 import saga_pb2 as pb

if TYPE_CHECKING:
    from twinlog.model.saga_decider import SagaDecider


@dataclass(frozen=True)
class SagaAggregate(Aggregate[SagaInstance, Command]):
    """A kind of stream whose streams are instances of a saga."""

    versions: Mapping[int, Saga] = field(default_factory=dict, compare=False)
    """Its tables, by version."""
    begin_with: int = field(default=0, compare=False)
    """The version that new instances start with."""

    @property
    def current(self) -> Saga:
        """The table that new instances start with."""
        return self.versions[self.begin_with]


def saga_aggregate(*versions: Saga, begin_with: int | None = None) -> SagaAggregate:
    """The aggregate of a saga's instances; give every version that still has instances, in any order.

    New instances start with the version ``begin_with``, None: the current. With an older one, every replica learns the
    newest table before the next deployment begins with it. The aggregate's name is ``<saga>_saga``. Raises
    ConfigurationError where the tables are not versions of one saga, or none has that version.
    """
    _refuse_mixed(versions)
    tables = {saga.version: saga for saga in versions}
    if begin_with is None:
        begin_with = max(tables)
    if begin_with not in tables:
        what = "new instances are to begin with it, and it has no table; put it beside the others"
        raise WrongSagaTable(saga=versions[0].name, version=begin_with, what=what)
    current = tables[begin_with]

    @cache
    def deciders() -> Mapping[int, SagaDecider]:
        # Who only declares a saga loads no more than its table.
        from twinlog.model.saga_decider import SagaDecider

        return {saga.version: SagaDecider(saga) for saga in versions}

    def decide(instance: SagaInstance, command: Command) -> Events:
        known = deciders()
        return (known.get(instance.version) or known[current.version]).decide(instance, command)

    def evolve(instance: SagaInstance, event: Message) -> SagaInstance:
        known = deciders()
        if isinstance(event, pb.SagaStarted):
            if event.version not in known:
                raise UnknownSagaVersion(saga=current.name, version=event.version)
            return known[event.version].evolve(instance, event)
        return (known.get(instance.version) or known[current.version]).evolve(instance, event)

    return SagaAggregate(
        name=f"{current.name}_saga",
        initial=SagaInstance(),
        decide=decide,
        evolve=evolve,
        partition_key=lambda instance: current.partition_key(instance.trigger),
        due=lambda instance: instance.deadline,
        on_due=lambda _instance, now: Wake(now),
        versions=tables,
        begin_with=begin_with,
    )


def _refuse_mixed(versions: tuple[Saga, ...]) -> None:
    if not versions:
        raise ConfigurationError("saga_aggregate needs the tables of a saga: give it at least one")
    seen: set[int] = set()
    for saga in versions:
        if not isinstance(saga, Saga):
            raise WrongForm(
                of="saga_aggregate",
                what=f"{shown(saga)} is no Saga; give its tables, as in saga_aggregate(V1, V2)",
            )
        if saga.name != versions[0].name:
            what = f"it is put together with saga {versions[0].name}; make one saga_aggregate of each"
            raise WrongSagaTable(saga=saga.name, version=saga.version, what=what)
        if saga.version in seen:
            what = "two tables have this version; give the newer one the next number"
            raise WrongSagaTable(saga=saga.name, version=saga.version, what=what)
        seen.add(saga.version)
