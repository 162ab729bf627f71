"""``twinlog doctor``: checks settings and servers against what services check at their start, and says what to do."""

from __future__ import annotations

import argparse
import asyncio
import os
import socket
from collections.abc import Mapping

import grpc
import grpc.aio

from twinlog.cli.dev import specs
from twinlog.cli.exits import OK, OUT_OF_REACH, USAGE, WRONG
from twinlog.cli.output import console, line, print_json, table
from twinlog.cli.project import Project
from twinlog.service.doctor import Finding, State, examine
from twinlog.service.logging import configure_logging
from twinlog.service.spec import ServiceSpec
from twinlog.v1.inspection_pb2 import DescribeRequest
from twinlog.v1.inspection_pb2_grpc import InspectionServiceStub

_CODES = {State.WRONG: WRONG, State.SETTING: USAGE, State.AWAY: OUT_OF_REACH}
_STYLES = {State.OK: "green", State.NOTE: "cyan"}
_ASK_SECONDS = 2.0


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON, for programs")


def run(options: argparse.Namespace) -> int:
    configure_logging("error")
    project = Project.here()
    services = specs(project) if project else {}
    findings = asyncio.run(_examined(services, project.services if project else {}))
    if options.json:
        print_json({"findings": [{**each._asdict(), "state": each.state.value} for each in findings]})
    else:
        rows = [
            (line(each.state.value, _STYLES.get(each.state, "bold red")), *each[::2]) for each in findings
        ]
        console().print(table("Doctor", ["", "what", "finding"], rows))
        if not project:
            console().print("No project here, so only what every service needs was checked.")
    return max((_CODES.get(each.state, OK) for each in findings), default=OK)


async def _examined(services: Mapping[str, ServiceSpec], addresses: Mapping[str, str]) -> list[Finding]:
    findings = await examine([*services.values()])
    for package, spec in services.items():
        address = os.environ.get(spec.address_setting) or addresses[package]
        findings.append(await _address(spec, address))
    return findings


async def _address(spec: ServiceSpec, address: str) -> Finding:
    """Whether the service can listen there, or does already."""
    subject = f"address of {spec.name}"
    async with grpc.aio.insecure_channel(address) as channel:
        try:
            asked = InspectionServiceStub(channel).Describe(DescribeRequest(), timeout=_ASK_SECONDS)
            there = (await asked).service
        except grpc.aio.AioRpcError:
            there = ""
    if there == spec.name:
        return Finding(subject, State.OK, f"it serves at {address}")
    host, _, port = address.rpartition(":")
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        socket.create_server((host.strip("[]"), int(port)), family=family).close()
    except OSError as error:
        who = f"; {there} serves there" if there else ""
        return Finding(
            subject,
            State.SETTING,
            f"{spec.address_setting}: cannot listen on {address} ({os.strerror(error.errno or 0)}{who}); stop what "
            f"uses it or set {spec.address_setting} to another host:port",
        )
    return Finding(subject, State.OK, f"{address} is free")
