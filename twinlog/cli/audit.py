"""``twinlog audit``: see :mod:`twinlog.audit`.

What compares everything needs the services' own code, so a project. What verifies chains needs their logs only, and
services that are known by address say which those are.
"""

from __future__ import annotations

import argparse
import asyncio
import os
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from twinlog.cli import servers as asked
from twinlog.cli.dev import mains, specs
from twinlog.cli.exits import OK, WRONG, Usage, told_in_a_line
from twinlog.cli.output import console, print_json
from twinlog.cli.project import Project, environment, servers
from twinlog.log.installation import named
from twinlog.v1 import inspection_pb2 as pb

_URLS = ("POSTGRES_URL", "NATS_URL")


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
    asked.arguments(parser)


def run(options: argparse.Namespace) -> int:
    from twinlog.audit.renderer import report as lines
    from twinlog.service.logging import configure_logging

    configure_logging("error", "pretty")
    with told_in_a_line():
        report = asyncio.run(_by_address(options)) if _is_by_address(options) else _of_project(options)
    if options.json:
        print_json(_as_dict(report))
    else:
        out = console()
        for line in lines(report):
            out.print(line, soft_wrap=True)
    return OK if report.clean and (report.settled or not options.wait) else WRONG


def _is_by_address(options: argparse.Namespace) -> bool:
    """Whether services by address are what is meant. Raises Usage."""
    if options.at and not options.chain:
        raise Usage(
            "--at goes with --chain: whatever else is compared needs the services' own code; "
            "leave it out and go to their project's folder"
        )
    return bool(options.chain and (options.at or Project.here() is None))


def _of_project(options: argparse.Namespace) -> Any:
    project = Project.required()
    if not project.services:
        raise Usage("[tool.twinlog.services] in pyproject.toml names no service")
    with environment(servers(project)):
        return asyncio.run(_audited(options, mains(project, specs(project)), _domain(project)))


async def _by_address(options: argparse.Namespace) -> Any:
    """The chains of the services that are asked where their logs are."""
    from twinlog.audit.by_address import known_by_name, open_chain_auditor

    async with asked.connected(options) as to_ask:
        told = [await each.ask(each.inspection.Describe, pb.DescribeRequest()) for each in to_ask]
    settings = [{each.name: each.value for each in one.settings} for one in told]
    urls = _urls(settings)
    logs = {}
    for one, its, server in zip(told, settings, to_ask, strict=True):
        if not its.get("POSTGRES_DATABASE"):
            raise Usage(
                f"{server.address}: {one.service} does not say in which database its log is; it runs an earlier "
                "version, so go to its project's folder"
            )
        database = named(its.get("TWINLOG_NAMESPACE", ""), its["POSTGRES_DATABASE"])
        logs[database] = known_by_name(one.service, one.logs[0].log, database)
    namespaces = {its.get("TWINLOG_NAMESPACE", "") for its in settings}
    if len(namespaces) > 1:
        raise Usage("these services are of several installations; ask about each by itself")
    async with open_chain_auditor([*logs.values()], *urls, namespace=namespaces.pop()) as auditor:
        return await auditor.verify_chains(options.heads, options.key)


def _urls(settings: Sequence[Mapping[str, str]]) -> Sequence[str]:
    """Those of Postgres and NATS. Raises Usage: services tell where they are, and no passwords."""
    if missing := [name for name in _URLS if not os.environ.get(name)]:
        at = ", ".join(f"{name} at {settings[0].get(name) or 'a place it does not tell'}" for name in missing)
        raise Usage(
            f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} not set: chains are read from where "
            f"they are stored. Set {'it' if len(missing) == 1 else 'both'} as for the services, with the login: {at}"
        )
    return [os.environ[name] for name in _URLS]


async def _audited(options: argparse.Namespace, mains: Mapping[str, Any], domain: Any) -> Any:
    from twinlog.audit.project import open_auditor

    grace = timedelta(seconds=options.grace)
    async with open_auditor(mains, grace=grace, at_rest=options.at_rest, domain=domain) as auditor:
        if options.chain:
            return await auditor.verify_chains(options.heads, options.key)
        return await auditor.until_settled(options.wait)


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
