"""What is simulated, and what a seed decides of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, NamedTuple

from twinlog.testing.simulation.call import Call
from twinlog.testing.simulation.faults import Fault, Kinds, draw, kinds_of
from twinlog.testing.simulation.hosted import Hosted, Survey, survey


def _everything(kinds: Kinds) -> Kinds:
    return kinds


def _no_options(_chance: Random) -> Any:
    return None


@dataclass(frozen=True)
class Scenario:
    """A domain to be simulated: its services, and what clients ask of them."""

    services: Sequence[Hosted] | Callable[[Any], Sequence[Hosted]]
    """The services; or a function to them from the options of a seed."""
    script: Callable[[Random], Sequence[Call]]
    """The commands of a seed, all of them within ``faulty_seconds``."""
    options: Callable[[Random], Any] = _no_options
    """What else differs between seeds, such as a deadline, or belongs to a world and to no service, such as a fake of a
    provider. Made anew for every run; invariants find it in ``scene.options``."""
    kinds: Callable[[Kinds], Kinds] = _everything
    """Chooses, from everything that may go wrong, what does."""
    faulty_seconds: float = 12.0
    """Until then things go wrong; then what went wrong is put right, and the world has to come to rest."""
    patience_seconds: float = 240.0
    """How long that may take, in simulated time."""
    leases_expire: bool = False
    """Leases are rows that expire, as in Postgres, and a clock that is ahead may write them. Without this they are
    granted at will, also to several replicas at once, and take no steps."""

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
    kinds = scenario.kinds(kinds_of(survey, leases_expire=scenario.leases_expire))
    faults = draw(kinds, chance, scenario.faulty_seconds)
    return Plan(calls, faults, options, chance.choice((1, 3))), survey
