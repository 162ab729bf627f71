"""What runs in a world: services as their processes declare them, and what their wiring tells about them."""

from __future__ import annotations

from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from twinlog.consume import Consumer, ConsumerWrapper
from twinlog.consume.effects import EffectConsumer
from twinlog.consume.policies import PolicyConsumer
from twinlog.consume.projection import Projection
from twinlog.log.lease import ALWAYS_HELD
from twinlog.memory.log import MemoryLog
from twinlog.memory.twin import MemoryTwin
from twinlog.memory.views import MemoryQueries, MemoryViews
from twinlog.model.event import Recorded
from twinlog.model.forms import (
    FLAG,
    Form,
    Forms,
    WrongForm,
    function_of,
    one,
    optional,
    refuse,
    refuse_other,
    shown,
)
from twinlog.postgres.urls import parted
from twinlog.rpc.registrations import registered
from twinlog.service.environment import Environment
from twinlog.service.mistakes import in_registrations
from twinlog.service.mistakes import refuse as refuse_all
from twinlog.service.service import Service
from twinlog.service.settings import Settings
from twinlog.service.spec import ServiceSpec
from twinlog.service.spec_mistakes import in_spec
from twinlog.service.wiring import Wire, servicers
from twinlog.testing.fakes import CountedIds, ManualClock

_FORMS: Forms = {
    "spec": one(ServiceSpec, "the SPEC of its process, a ServiceSpec"),
    "wire": function_of("the service and its views"),
    "replays": FLAG,
    "settings": optional(one(Settings, "the settings themselves, no class")),
    "queries": Form(lambda given: isinstance(given, Mapping), "functions by the name of the query"),
}


@dataclass(frozen=True)
class Hosted:
    """A service in a world: what it is, and how it is wired."""

    spec: ServiceSpec
    """Its SPEC, as its process has it."""
    wire: Wire
    """Subscribes policies, projections, effects and sagas, and returns the servicer, a tuple of several, or None, as
    for :func:`twinlog.run`. It is called with the service and a store for its projections, once for every start of
    every replica."""
    replays: bool = True
    """Whether its policies may see events again, as after an operator has moved a checkpoint back: what they do is
    idempotent."""
    settings: Settings | None = None
    """What its wiring finds as ``service.settings``; by default the settings' own defaults."""

    queries: MemoryQueries = field(default_factory=dict)
    """What stands for its queries in SQL, by name: a function of the tables (rows by view and key) and the arguments,
    as ``{"stays_of_guest": lambda tables, guest: [row for row in tables["stays"].values() if row.guest == guest]}``."""

    def __post_init__(self) -> None:
        refuse_other("Hosted", self, _FORMS)
        if self.settings is not None and not isinstance(self.settings, self.spec.settings):
            raise WrongForm(
                of=f"Hosted {self.name}",
                what=f"settings is {shown(self.settings)}; give {self.spec.settings.__name__}, as its spec says",
            )
        refuse(
            f"Hosted {self.name}",
            (
                f"queries has {shown(query)} for {name!r}; give a function of the tables and the arguments"
                for name, query in self.queries.items()
                if not callable(query)
            ),
        )

    def configure(self, service: Service) -> None:
        service.settings = self.settings or self.spec.settings.model_construct()

    @property
    def name(self) -> str:
        return self.spec.name


def is_wanted(by: Consumer, event: Recorded) -> bool:
    """Whether a consumer is sent an event."""
    of_type = not by.types or event.type.rpartition(".")[2] in by.types
    return of_type and by.routing_key in ("", event.routing_key)


@dataclass
class Survey:
    """Services, and who follows which log."""

    hosted: Mapping[str, Hosted]
    """By service."""
    policies: dict[str, PolicyConsumer] = field(default_factory=dict)
    """By consumer."""
    effects: dict[str, EffectConsumer] = field(default_factory=dict)
    """By consumer."""
    projections: dict[str, Projection] = field(default_factory=dict)
    """By consumer."""
    consumers: dict[str, Consumer] = field(default_factory=dict)
    """All of them, by name."""

    @property
    def logs(self) -> Sequence[str]:
        """Those that hold aggregates, then the others."""
        specs = [each.spec for each in self.hosted.values()]
        return [*self.busy, *(spec.log for spec in specs if not spec.aggregates)]

    @property
    def busy(self) -> Sequence[str]:
        """The logs that hold aggregates."""
        return [each.spec.log for each in self.hosted.values() if each.spec.aggregates]

    @property
    def projecting(self) -> Sequence[str]:
        """The services that keep views."""
        return sorted({self.host_of(name).name for name in self.projections})

    def owner(self, log: str) -> str:
        """The service whose log it is."""
        return next(name for name, each in self.hosted.items() if each.spec.log == log)

    def host_of(self, consumer: str) -> Hosted:
        """The service that a consumer belongs to."""
        return self.hosted[self._services[consumer]]

    def __post_init__(self) -> None:
        self._services: dict[str, str] = {}
        for each in self.hosted.values():
            _Surveyed(each, self)

    def note(self, service: str, consumer: Consumer) -> None:
        while isinstance(consumer, ConsumerWrapper):
            consumer = consumer.inner
        self._services[consumer.name] = service
        self.consumers[consumer.name] = consumer
        if isinstance(consumer, PolicyConsumer):
            self.policies[consumer.name] = consumer
        elif isinstance(consumer, EffectConsumer):
            self.effects[consumer.name] = consumer
        elif isinstance(consumer, Projection):
            self.projections[consumer.name] = consumer


def survey(hosted: Sequence[Hosted]) -> Survey:
    """Looks at the wiring of services.

    Raises ConfigurationError where one is put together wrongly or has another's database, as each does at its start,
    and ValueError where two have one name or one log, or where one follows a log that none of them has.
    """
    if not hosted or isinstance(hosted, Hosted) or not all(isinstance(each, Hosted) for each in hosted):
        raise WrongForm(
            of="a world",
            what=f"its services are {shown(hosted)}; give one at least, in a list, as [Hosted(SPEC, wire)]",
        )
    for what, names in (
        ("name", [each.name for each in hosted]),
        ("log", [each.spec.log for each in hosted]),
    ):
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two services have the {what} {', '.join(twice)}: give each its own")
    for each in hosted:
        refuse_all(list(in_spec(each.spec)), each.name)
    _refuse_shared_databases(hosted)
    found = Survey({each.name: each for each in hosted})
    for name, consumer in found.consumers.items():
        if (log := consumer.source) not in found.logs:
            raise ValueError(
                f"{name} follows the log {log}, which no service here has: add the one that has it"
            )
    return found


def _refuse_shared_databases(hosted: Sequence[Hosted]) -> None:
    logs: dict[str, str] = {}
    for each in hosted:
        database, log = each.spec.database, each.spec.log
        if (known := logs.setdefault(database, log)) != log:
            from twinlog.postgres.identity import AnotherLog  # a world needs no Postgres else

            raise AnotherLog(database=database, theirs=known, ours=log, place=parted(database)[0])


class _Surveyed(Service):
    """A service that never runs; it is only asked what it is wired to."""

    def __init__(self, hosted: Hosted, into: Survey) -> None:
        self._into = into
        log = MemoryLog(hosted.spec.log)
        super().__init__(
            hosted.name,
            log,
            Environment(
                twin=MemoryTwin,
                lease=lambda _work: ALWAYS_HELD,
                clock=ManualClock(),
                ids=CountedIds(),
                on_crash=lambda _task, _error: None,
            ),
            schema=hosted.spec.schema,
            aggregates=hosted.spec.aggregates,
        )
        hosted.configure(self)
        served = registered(
            servicers(hosted.wire(self, MemoryViews(log, hosted.queries)), hosted.name, hosted.wire)
        )
        # A world needs no proto of a servicer: it calls its methods by their names.
        generated = [each for each in served if isinstance(each, tuple)]
        refuse_all([*in_registrations(generated)], self.name)
        self.refuse_unfinished()

    def start(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        work.close()

    def _feed(self, consumer: Consumer, *_how: Any) -> Any:
        self._into.note(self.name, consumer)
