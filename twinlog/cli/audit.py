"""``twinlog audit``: see :mod:`twinlog.audit`."""

from __future__ import annotations

import argparse
import asyncio
import importlib
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from twinlog.cli.dev import specs
from twinlog.cli.exits import OK, WRONG, Usage
from twinlog.cli.output import console, print_json
from twinlog.cli.project import Project, servers
from twinlog.cli.refusals import told_in_a_line


def arguments(parser: argparse.ArgumentParser) -> None:
    from twinlog.audit.options import chain_options

    parser.add_argument(
        "--wait", type=float, default=0.0, metavar="SECONDS", help="audit again until it is settled"
    )
    parser.add_argument(
        "--grace",
        type=float,
        default=15.0,
        metavar="SECONDS",
        help="how long anything may be overdue; default: 15",
    )
    parser.add_argument("--at-rest", action="store_true", help="no service is running, so deadlines may pass")
    chain_options(parser)
    parser.add_argument("--json", action="store_true", help="print JSON, for programs")


def run(options: argparse.Namespace) -> int:
    from twinlog.audit.renderer import report as lines
    from twinlog.service.logging import configure_logging

    project = Project.required()
    if not project.services:
        raise Usage("[tool.twinlog.services] in pyproject.toml names no service")
    configure_logging("error", "pretty")
    with told_in_a_line(), _set(servers(project)):
        report = asyncio.run(_audited(options, _mains(project), _domain(project)))
    if options.json:
        print_json(_as_dict(report))
    else:
        out = console()
        for line in lines(report):
            out.print(line, soft_wrap=True)
    return OK if report.clean and (report.settled or not options.wait) else WRONG


async def _audited(options: argparse.Namespace, mains: Mapping[str, Any], domain: Any) -> Any:
    from twinlog.audit.project import open_auditor

    grace = timedelta(seconds=options.grace)
    async with open_auditor(mains, grace=grace, at_rest=options.at_rest, domain=domain) as auditor:
        if options.chain:
            return await auditor.verify_chains(options.heads, options.key)
        return await auditor.until_settled(options.wait)


def _mains(project: Project) -> Mapping[str, Any]:
    """The ``main`` of each service's program, by its package. Raises Usage."""
    from twinlog.service.program import main_of

    mains: dict[str, Any] = {}
    for package, spec in specs(project).items():
        module = importlib.import_module(f"{package}.app")
        if not hasattr(module, "main") and not hasattr(module, "wire"):
            what = "has neither wire(service, views) nor main(shutdown), which say how the service is wired"
            raise Usage(f"{package}: app.py {what}")
        mains[package] = module.main if hasattr(module, "main") else main_of(spec, module.wire)
    return mains


def _domain(project: Project) -> Any:
    """What the project adds to the audit. Raises Usage."""
    from twinlog.audit.domain import Domain

    if not project.audit:
        return None
    domain = project.object(project.audit, "audit")()
    if not isinstance(domain, Domain):
        raise Usage(f"{project.audit}: audit in [tool.twinlog] is to make a twinlog.audit.Domain")
    return domain


def _as_dict(report: Any) -> Mapping[str, Any]:
    figures = report.figures
    return {
        "clean": report.clean,
        "settled": report.settled,
        "violations": [each._asdict() for each in report.violations],
        "counts": dict(report.counts),
        "in_flight": list(report.in_flight),
        "notes": list(report.notes),
        "figures": {name: getattr(figures, name) for name in figures.__dataclass_fields__},
        "took_seconds": report.took.total_seconds(),
    }


@contextmanager
def _set(settings: Mapping[str, str]) -> Iterator[None]:
    """Sets environment variables for a block: the services' settings are read from there."""
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
