"""What is simulated, and what a seed decides of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, NamedTuple

from twinlog.model.forms import FLAG, SECONDS, Form, Forms, WrongForm, function_of, refuse_other, shown
from twinlog.testing.simulation.call import Call
from twinlog.testing.simulation.faults import (
    Fault,
    Kinds,
    draw,
    kinds_of,
    with_outsiders,
    with_unreadable_streams,
)
from twinlog.testing.simulation.hosted import Hosted, Survey, survey

_LEAST_FAULTY_SECONDS = 3
"""In less, nothing could go wrong and be over."""
_FORMS: Forms = {
    "services": Form(
        lambda given: callable(given) or (isinstance(given, Sequence) and not isinstance(given, str)),
        "services in a list, as [Hosted(SPEC, wire)], or a function of the options to them",
    ),
    "script": function_of("the seed's Random, which gives its calls"),
    "options": function_of("the seed's Random"),
    "kinds": function_of("all kinds of faults, which gives those that are wanted"),
    "faulty_seconds": Form(
        lambda given: SECONDS.holds(given) and given >= _LEAST_FAULTY_SECONDS,
        f"seconds, from {_LEAST_FAULTY_SECONDS}",
    ),
    "patience_seconds": SECONDS,
    "leases_expire": FLAG,
}


@dataclass(frozen=True)
class Scenario:
    """A domain to be simulated: its services, and what clients ask of them."""

    services: Sequence[Hosted] | Callable[[Any], Sequence[Hosted]]
    """The services; or a function to them from the options of a seed."""
    script: Callable[[Random], Sequence[Call]]
    """The commands of a seed, all of them within ``faulty_seconds``."""
    options: Callable[[Random], Any] = lambda _chance: None
    """What else differs between seeds, such as a deadline, or belongs to a world and to no service, such as a fake of a
    provider. Made anew for every run; invariants find it in ``scene.options``."""
    kinds: Callable[[Kinds], Kinds] = lambda kinds: kinds
    """Chooses, from everything that may go wrong, what does."""
    faulty_seconds: float = 12.0
    """Until then things go wrong; then what went wrong is put right, and the world has to come to rest."""
    patience_seconds: float = 240.0
    """How long that may take, in simulated time."""
    leases_expire: bool = False
    """Leases are rows that expire, as in Postgres, and a clock that is ahead may write them. Without this they are
    granted at will, also to several replicas at once, and take no steps."""

    def __post_init__(self) -> None:
        refuse_other("Scenario", self, _FORMS)

    def hosted(self, options: Any) -> Sequence[Hosted]:
        """The services of a seed."""
        return self.services(options) if callable(self.services) else self.services

    def surveyed(self, options: Any) -> Survey:
        """The same, and who follows which log."""
        return survey(self.hosted(options))


class Plan(NamedTuple):
    """Everything that a seed decides, besides how long messages take."""

    calls: Sequence[Call]
    faults: Sequence[Fault]
    options: Any
    optimistic_rounds: int
    """After how many lost races a writer shuts the others out."""


def planned(scenario: Scenario, seed: int) -> tuple[Plan, Survey]:
    """What a seed decides, and the services that its options make."""
    chance = Random(f"{seed}/plan")
    options = scenario.options(chance)
    calls = scenario.script(chance)
    survey = scenario.surveyed(options)
    _refuse_calls(calls, survey)
    every = kinds_of(survey, leases_expire=scenario.leases_expire)
    kinds = scenario.kinds(every)
    _refuse_kinds(kinds, every)
    faults = draw(kinds, chance, scenario.faulty_seconds)
    return Plan(calls, faults, options, chance.choice((1, 3))), survey


def _refuse_calls(calls: Sequence[Call], survey: Survey) -> None:
    """Raises WrongForm for calls that nobody would take, or that cannot be told apart."""
    given = [*calls] if isinstance(calls, Iterable) else calls
    if not isinstance(calls, Sequence) or not all(isinstance(each, Call) for each in given):
        raise WrongForm(
            of="Scenario", what=f"script gives {shown(calls)}; give calls, in a list, as [Call(…)]"
        )
    known: set[str] = set()
    for call in calls:
        if call.service not in survey.hosted:
            services = ", ".join(survey.hosted)
            raise WrongForm(
                of="Scenario", what=f"a call goes to {call.service!r}; its services are {services}"
            )
        if call.correlation_id in known:
            what = f"two calls have the correlation_id {call.correlation_id!r}; give each its own"
            raise WrongForm(of="Scenario", what=what)
        known.add(call.correlation_id)


def _refuse_kinds(kinds: Kinds, every: Kinds) -> None:
    """Raises WrongForm for unknown faults."""
    if not isinstance(kinds, Mapping):
        raise WrongForm(of="Scenario", what=f"kinds gives {shown(kinds)}; give some of what it is given")
    if unknown := sorted({*kinds} - {*with_outsiders(with_unreadable_streams(every))}):
        what = f"kinds names {unknown[0]!r}, and nothing goes wrong so; what does: {', '.join(every)}"
        raise WrongForm(of="Scenario", what=what)
