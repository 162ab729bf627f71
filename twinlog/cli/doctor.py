"""``twinlog doctor``: checks settings, servers and programs as services do at their start, and says what to do."""

from __future__ import annotations

import argparse
import asyncio
import os
from collections.abc import Sequence
from itertools import groupby

from twinlog.cli.dev import mains, specs
from twinlog.cli.exits import OK, OUT_OF_REACH, USAGE, WRONG
from twinlog.cli.output import console, line, print_json, table
from twinlog.cli.project import Project, environment, servers_of_dev
from twinlog.service.doctor import examine
from twinlog.service.doctor_findings import Finding, State
from twinlog.service.logging import configure_logging

_CODES = {State.WRONG: WRONG, State.SETTING: USAGE, State.AWAY: OUT_OF_REACH}
_STYLES = {State.OK: "green", State.NOTE: "cyan"}


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON, for programs")


def run(options: argparse.Namespace) -> int:
    configure_logging("error")
    project = Project.here()
    findings = asyncio.run(_examined(project) if project else examine([]))
    if options.json:
        print_json({"findings": [{**each._asdict(), "state": each.state.value} for each in findings]})
    else:
        rows = [
            (line(each.state.value, _STYLES.get(each.state, "bold red")), *each[::2])
            for each in _together(findings)
        ]
        console().print(table("Doctor", ["", "what", "finding"], rows))
        if not project:
            console().print("No project here, so only what every service needs was checked.")
    return max((_CODES.get(each.state, OK) for each in findings), default=OK)


async def _examined(project: Project) -> list[Finding]:
    services = specs(project)
    programs = {services[package].name: main for package, main in mains(project, services).items()}
    settings = {spec.address_setting: project.services[package] for package, spec in services.items()}
    where = {name: at for name, at in settings.items() if not os.environ.get(name)}
    with environment({**where, **servers_of_dev(project)}):
        return await examine([*services.values()], programs)


def _together(findings: Sequence[Finding]) -> list[Finding]:
    """What is in order of one subject in a row, in one line."""
    rows = []
    for (subject, state), some in groupby(findings, key=lambda each: each[:2]):
        texts = [each.text for each in some]
        rows += [
            Finding(subject, state, text) for text in ([", ".join(texts)] if state is State.OK else texts)
        ]
    return rows
