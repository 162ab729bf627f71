"""The shop as it is simulated: its services with the tally beside them, and its clients."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from random import Random

import customer_svc.app
import order_svc.app
import projector.app
import saga_orchestrator.app
from tests.simulation import tally
from tests.simulation.model import Model
from tests.simulation.workload import FAULTY_SECONDS, script
from twinlog.testing import Hosted, Kinds, Scenario, Simulation, Sweep, with_unreadable_streams


def services(order_deadline: float) -> Sequence[Hosted]:
    """The shop's, as their processes declare them; ``order_deadline``: seconds that an order may stay PENDING."""
    settings = order_svc.app.OrderSettings.model_construct(order_deadline_seconds=order_deadline)
    return [
        Hosted(order_svc.app.SPEC, order_svc.app.wire, settings=settings),
        Hosted(customer_svc.app.SPEC, customer_svc.app.wire),
        Hosted(saga_orchestrator.app.SPEC, saga_orchestrator.app.wire),
        Hosted(projector.app.SPEC, projector.app.feed),
    ]


def kinds(every: Kinds) -> Kinds:
    """What goes wrong: everything."""
    return every


SHOP = Simulation(
    Scenario(
        services=lambda deadline: [*services(deadline), tally.HOSTED],
        script=script,
        options=lambda chance: _deadline(chance),
        kinds=lambda every: kinds(every),  # looked up when it is called: a bug may plant another
        faulty_seconds=FAULTY_SECONDS,
    ),
    Model,
)


def unreadable(every: Kinds) -> Kinds:
    """What goes wrong where streams become unreadable: neither restores nor checkpoints that operators move."""
    return {
        name: kind
        for name, kind in with_unreadable_streams(every).items()
        if name not in ("set back", "replay")
    }


UNREADABLE = Simulation(
    Scenario(
        services=services,  # without the tally, which has to see every event in order
        script=script,
        options=lambda chance: _deadline(chance),
        kinds=unreadable,
        faulty_seconds=FAULTY_SECONDS,
    ),
    Model,
)


def sweep(seeds: Iterable[int], simulation: Simulation = SHOP) -> Sweep:
    """Runs seeds up to the first that fails."""
    return simulation.sweep(seeds)


def _deadline(chance: Random) -> float:
    return chance.choice((0.5, 3.0, 30.0))
