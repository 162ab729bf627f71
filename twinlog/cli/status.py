"""``twinlog status``: services, logs, twins, consumers, lag and problems on one screen."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, Never

from rich.console import Group, RenderableType
from rich.live import Live

from twinlog.cli import servers
from twinlog.cli.exits import OK, WRONG
from twinlog.cli.output import as_dict, console, line, print_json, table
from twinlog.cli.servers import Server
from twinlog.cli.values import since
from twinlog.v1 import inspection_pb2 as pb

_EVERY_SECONDS = 2.0


def arguments(parser: argparse.ArgumentParser) -> None:
    servers.arguments(parser)
    parser.set_defaults(action=_status)
    parser.add_argument(
        "--watch",
        nargs="?",
        type=float,
        const=_EVERY_SECONDS,
        metavar="SECONDS",
        help=f"again and again, every so many seconds; default: {_EVERY_SECONDS:g}",
    )


run = servers.act


async def _status(options: argparse.Namespace, asked: Sequence[Server]) -> int:
    if options.watch:
        await _watch(options, asked)
    found = await status(asked)
    if options.json:
        print_json(found)
    else:
        console().print(screen(found))
    return code(found)


async def _watch(options: argparse.Namespace, asked: Sequence[Server]) -> Never:
    if options.json:
        while True:
            print_json(await status(asked), one_line=True)
            await asyncio.sleep(options.watch)
    with Live(screen(await status(asked)), console=console(), screen=True, auto_refresh=False) as live:
        while True:
            await asyncio.sleep(options.watch)
            live.update(screen(await status(asked)), refresh=True)


async def status(asked: Sequence[Server]) -> dict[str, Any]:
    """The state of all servers, as JSON has it."""
    answers, failures = await servers.ask_all(asked, _service)
    return {
        "services": [service for _, service in answers],
        "failures": [{"problem": str(each), "exit_code": each.code} for each in failures],
    }


async def _service(server: Server) -> dict[str, Any]:
    stub = server.inspection
    described = await server.ask(stub.Describe, pb.DescribeRequest())
    consumers = await server.ask(stub.ListConsumers, pb.ListConsumersRequest())
    return {"address": server.address, **as_dict(described), **as_dict(consumers)}


def code(found: dict[str, Any]) -> int:
    """The exit code of a state."""
    worst = max((each["exit_code"] for each in found["failures"]), default=OK)
    return worst or (WRONG if any(_problems(found)) else OK)


def screen(found: dict[str, Any]) -> RenderableType:
    """A state for people."""
    services = found["services"]
    out_of_reach = [line(each["problem"], "bold red") for each in found["failures"]]
    if not services:
        return Group(*out_of_reach)
    parts: list[RenderableType] = [
        *out_of_reach,
        table("Services", ["service", "address", "twinlog", "up", "state"], map(_row_of_service, services)),
        table(
            "Logs",
            ["log", "service", "events", "in stream", "to copy", "state"],
            [_row_of_log(each, log) for each in services for log in each["logs"] if log["own"]],
            right=["events", "in stream", "to copy"],
        ),
        table(
            "Consumers",
            ["consumer", "log", "position", "lag", "dead letters", "handled by", "state"],
            [_row_of_consumer(each) for service in services for each in service["consumers"]],
            right=["position", "lag", "dead letters"],
        ),
    ]
    # Two parts of a service may tell of the same.
    wrong = list(dict.fromkeys(_problems(found)))
    if wrong:
        parts.append(line("Problems", "bold red"))
    elif not out_of_reach:
        parts.append(line("All is well.", "bold green"))
    parts += [line(f"  {problem}") for problem in wrong]
    return Group(*parts)


def _problems(found: dict[str, Any]) -> Iterator[str]:
    for service in found["services"]:
        for problem in service["problems"]:
            signal = f" ({problem['signal']})" if problem["signal"] else ""
            yield f"{service['service']} at {service['address']}{signal}: {problem['problem']}"
        for log in service["logs"]:
            if log["problem"]:
                yield f"{service['service']} at {service['address']}: log {log['log']}: {log['problem']}"


def _row_of_service(service: dict[str, Any]) -> list[object]:
    up = datetime.now(UTC) - datetime.fromisoformat(service["started_at"])
    serving = not any(not problem["signal"] for problem in service["problems"])
    state = (
        line("NOT_SERVING", "red")
        if not serving
        else (line("attention", "yellow") if service["problems"] else line("ok", "green"))
    )
    named = [service[name] for name in ("service", "address", "twinlog_version")]
    return [*named, since(up.total_seconds()), state]


def _row_of_log(service: dict[str, Any], log: dict[str, Any]) -> list[object]:
    to_copy = max(0, log["head"] - log["last"])
    state = log["problem"] or ("ok" if log["stream_exists"] else "no stream yet")
    if log["holes"]:
        state = f"{log['holes']} messages are missing"
    return [log["log"], service["service"], log["head"], log["last"], to_copy, state]


def _row_of_consumer(consumer: dict[str, Any]) -> list[object]:
    lag: object = consumer["lag"] if consumer["lag_known"] else "?"
    holder = consumer["holder"] or ("this process" if consumer["here"] else "?")
    dead = consumer["dead_letters"]
    named = [consumer[name] for name in ("consumer", "log", "position")]
    return [*named, lag, line(dead, "red" if dead else ""), holder, consumer["problem"] or "ok"]
