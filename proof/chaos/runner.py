"""Runs scenarios: load, fault, recovery, resolution, verdict."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from random import Random

import asyncpg

from proof.auditor import audit
from proof.chaos import rig
from proof.chaos.annotated import TYPE as ANNOTATED
from proof.chaos.ledger import Figures, Ledger
from proof.chaos.load import Clients, Load
from proof.chaos.rig import NotAvailable, Rig
from proof.chaos.scenarios import Scenario
from proof.chaos.stage import Say, Stage
from stack.topology import NAMES
from twinlog import TwinlogError
from twinlog.dev import StartFailed

_WARM_UP = _COOL_DOWN = 1.0
_FAULT_SECONDS = 600.0
_RECOVERY_SECONDS = 60.0
_AUDIT_SECONDS = 20.0
_SETTLE_SECONDS = 40.0


@dataclass(frozen=True)
class Run:
    """One run of scenarios."""

    seed: int
    logs: Path
    """Where the services' words go when a scenario fails."""
    say: Say

    async def all(self, scenarios: Sequence[Scenario]) -> dict[str, Figures]:
        """Runs them, those of one layout in one shop; a shop in which one failed is not used again."""
        results: dict[str, Figures] = {}
        for _, group in groupby(scenarios, lambda scenario: scenario.layout):
            left = list(group)
            while left:
                await self._in_one_shop(left, results)
        return results

    async def _in_one_shop(self, left: list[Scenario], results: dict[str, Figures]) -> None:
        """Takes scenarios off the list until one fails."""
        scenario = left[0]
        self.say(f"{scenario.name}: starts a shop")
        try:
            async with rig.running(scenario.layout) as shop:
                while left:
                    scenario = left.pop(0)
                    shop.lines.clear()
                    figures = results[scenario.name] = await self._one(shop, scenario)
                    if not figures.clean:
                        self.say(f"{scenario.name}: {figures.problems[0] if figures.problems else 'failed'}")
                        self._keep(shop.lines, scenario)
                        return
        except NotAvailable as why:
            results[scenario.name] = Figures(not_run=f"not run: {why}")
            del left[:1]
        except StartFailed as error:
            results.setdefault(scenario.name, Figures()).problems.append(str(error))
            if scenario in left:
                left.remove(scenario)

    async def _one(self, shop: Rig, scenario: Scenario) -> Figures:
        rng = Random(f"{self.seed}/{scenario.name}")
        problems: list[str] = []

        def say(what: str) -> None:
            self.say(f"{scenario.name}: {what}")

        addresses = {service: shop.addresses(service) for service in NAMES}
        async with AsyncExitStack() as stack:
            ledger = await stack.enter_async_context(Ledger(shop.postgres.url, shop.nats_url))
            clients = await stack.enter_async_context(Clients(addresses))
            load = Load(clients, f"{self.seed}/{scenario.name}", rate=scenario.rate)
            await load.prepare()
            stage = Stage(shop, load, rng, say, problems.append)
            async with load.running():
                await asyncio.sleep(_WARM_UP)
                recovery = await self._break(stage, scenario, problems)
                await asyncio.sleep(_COOL_DOWN)
            say("asks for unknown outcomes")
            await load.resolve()
            say("checks")
            figures = await _settled(ledger, load)
        figures.problems += await _audited(shop)
        figures.recovery = recovery
        figures.problems += problems
        figures.problems += _unexpected_codes(load, scenario)
        figures.problems += [line for line in shop.lines if _tells_of_a_defect(line)][:3]
        return figures

    async def _break(self, stage: Stage, scenario: Scenario, problems: list[str]) -> float:
        """Does the fault; gives the seconds until orders went through again."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(_FAULT_SECONDS):
                await scenario.fault(stage)
        except NotAvailable:
            raise
        except Exception as error:  # whatever it is, the other scenarios are still to be run
            problems.append(f"the fault did not end: {error!r}")
            stage.say(problems[-1])
        stage.say("recovers")
        healed = loop.time()
        while not await stage.load.goes_through():
            if loop.time() - healed > _RECOVERY_SECONDS:
                problems.append(f"no order went through in {_RECOVERY_SECONDS:g} s after the fault")
                break
            await asyncio.sleep(0.1)
        recovery = loop.time() - healed
        try:
            await stage.rig.ready()
        except StartFailed as error:
            problems.append(str(error))
        return recovery

    def _keep(self, lines: Iterable[str], scenario: Scenario) -> None:
        self.logs.mkdir(parents=True, exist_ok=True)
        (self.logs / f"{scenario.name}.log").write_text("\n".join(lines) + "\n")


async def _settled(ledger: Ledger, load: Load) -> Figures:
    """The figures once everything is at rest and right; what they are when time is up, otherwise."""
    loop = asyncio.get_running_loop()
    until = loop.time() + _SETTLE_SECONDS
    figures = Figures(problems=["the servers did not come back"])
    while True:
        try:
            async with asyncio.timeout(_SETTLE_SECONDS):
                figures = await ledger.look(load.sent)
            if figures.clean:
                return figures
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError, TwinlogError) as error:
            figures = Figures(problems=[f"could not check: {error!r}"])
        if loop.time() > until:
            return figures
        await asyncio.sleep(0.3)


async def _audited(shop: Rig) -> list[str]:
    """What the auditor, which knows nothing of the load, has against the shop."""
    try:
        report = await audit(shop.postgres.url, shop.nats_url, wait_seconds=_AUDIT_SECONDS)
    except TwinlogError as error:
        return [f"could not audit: {error}"]
    return [f"audit: {found.check}: {found.says} {' '.join(found.events)}" for found in report.violations]


def _tells_of_a_defect(line: str) -> bool:
    return ("Traceback" in line and ANNOTATED not in line) or "writer.failed" in line


def _unexpected_codes(load: Load, scenario: Scenario) -> list[str]:
    refusals = {"FAILED_PRECONDITION"}
    seen = {code for sent in load.sent for code in sent.codes if not sent.problem}
    return [f"clients saw {code}" for code in sorted(seen - refusals - scenario.codes)]
