"""The shop amid outsiders: its snapshots are damaged, its streams are full, and somebody says what is not so."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from projector.app import SPEC, VIEWS, feed
from tests.simulation.model import Model
from tests.simulation.shop import services
from tests.simulation.workload import FAULTY_SECONDS, script
from twinlog import Service, Unavailable, ViewStore
from twinlog.rpc import ReadModel
from twinlog.testing import Hosted, Kinds, Scenario, Simulation, check, with_outsiders

_READ_EVERY_SECONDS = 0.1
_PATIENCE_SECONDS = 0.5


async def read_what_was_written(reads: ReadModel, scene: Any) -> None:
    """Reads over and over, each time by the token of the newest event of each log."""
    while True:
        for log in VIEWS:
            position = len(scene.logs[log].events)
            with suppress(Unavailable):
                await reads.after({log: position}, _PATIENCE_SECONDS)
                reached = scene.views[SPEC.name].positions.get(f"{SPEC.name}.{log}", 0)
                check(
                    reached >= position,
                    "own writes",
                    f"the views were said to have {log}/{position}, and they have {reached}",
                )
        await asyncio.sleep(_READ_EVERY_SECONDS)


def hosted(deadline: float) -> Sequence[Hosted]:
    """The shop, with a reader at its projector."""

    def wire(service: Service, views: ViewStore) -> None:
        reads = ReadModel(service, views, VIEWS)
        feed(service, views, reads.committed)
        if world := getattr(service, "_world", None):  # the survey looks at the wiring only
            service.start("reader", read_what_was_written(reads, world.scene))

    return [*(each for each in services(deadline) if each.name != SPEC.name), Hosted(SPEC, wire)]


def kinds(every: Kinds) -> Kinds:
    """What goes wrong, besides restores and checkpoints that operators move: a reader would see less than before."""
    return {name: kind for name, kind in with_outsiders(every).items() if name not in ("set back", "replay")}


OUTSIDE = Simulation(
    Scenario(
        services=hosted,
        script=script,
        options=lambda chance: chance.choice((0.5, 3.0, 30.0)),
        kinds=kinds,
        faulty_seconds=FAULTY_SECONDS,
    ),
    Model,
)
