"""A second opinion on the load generator: h2load where it is installed, else several client processes of our own."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from proof.bench import clients, h2load
from proof.bench.load import Load
from proof.bench.report import Row
from proof.bench.rounds import BesideBaseline
from proof.bench.systems import EVENTS_OF_ORDER, METHOD, System

_CLIENTS = 256
_AT_REST_SECONDS = 120.0


async def rows(systems: Sequence[System], rounds: int, count: int) -> list[Row]:
    """What the other gets answered of ``count`` calls, and our generator beside it, turn by turn.

    h2load repeats one call, so here none carries a request id; what it is refused it does not ask again.
    """
    name, ask = ("h2load", h2load.ask) if h2load.installed() else (clients.NAME, clients.ask)
    theirs = BesideBaseline(systems, f"{{}}: CreateOrder accepted, asked by {name}", "calls/s")
    ours = {
        system.name: Row(f"{system.name}: the same, asked by the bench's generator", "calls/s", name)
        for system in systems
    }
    for _ in range(rounds):
        for system in systems:
            assert isinstance(system.load, Load)
            message = system.request(system.customers[0])
            before = await system.position()
            answered = await ask(system.load.address, METHOD, message, count, _CLIENTS)
            accepted = await _approved(system, before)
            theirs.add(system, answered * accepted / count)
            before += EVENTS_OF_ORDER * accepted
            await system.view.reached(before)
            calls = await system.load.closed([message] * count, _CLIENTS)
            rate = count / (max(call.answered for call in calls) - calls[0].due)
            ours[system.name].add(rate, theirs[system.name].values[-1])
            await system.view.reached(before + EVENTS_OF_ORDER * count)
    return [*theirs.rows, *ours.values()]


async def _approved(system: System, after: int) -> int:
    """How many orders were accepted after a position, once all are approved: h2load counts refusals as answers.

    Raises TimeoutError.
    """
    async with asyncio.timeout(_AT_REST_SECONDS):
        while True:
            approved = len(await system.approved(after))
            if await system.position() == after + EVENTS_OF_ORDER * approved:
                return approved
            await asyncio.sleep(0.1)
