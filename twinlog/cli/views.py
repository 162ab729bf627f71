"""``twinlog views``: the views of all services, and how far each is in the logs that it follows."""

from __future__ import annotations

import argparse
import asyncio
from typing import Any

from twinlog.cli import servers
from twinlog.cli.exits import WRONG
from twinlog.cli.output import as_dict, console, line, print_json, table
from twinlog.cli.servers import Server
from twinlog.v1 import inspection_pb2 as pb


def arguments(parser: argparse.ArgumentParser) -> None:
    servers.arguments(parser)


def run(options: argparse.Namespace) -> int:
    return asyncio.run(_run(options))


async def _run(options: argparse.Namespace) -> int:
    async with servers.connected(options) as asked:
        answers, failures = await servers.ask_all(asked, _views)
    views = [view for _, found in answers for view in found]
    if options.json:
        print_json({"views": views, "failures": [str(each) for each in failures]})
    else:
        out = console()
        out.print(
            table(
                "Views",
                ["view", "service", "log", "position", "lag", "dead letters", "state"],
                [_row(view, consumer) for view in views for consumer in view["consumers"]],
                right=["position", "lag", "dead letters"],
            )
        )
        for each in failures:
            out.print(line(each, "red"))
    wrong = any(each["problem"] or each["dead_letters"] for view in views for each in view["consumers"])
    return servers.worst(failures) or (WRONG if wrong else 0)


async def _views(server: Server) -> list[dict[str, Any]]:
    stub = server.inspection
    described = await server.ask(stub.Describe, pb.DescribeRequest())
    listed = await server.ask(stub.ListConsumers, pb.ListConsumersRequest())
    by_name = {consumer.consumer: as_dict(consumer) for consumer in listed.consumers}
    return [
        {
            "view": view.view,
            "service": described.service,
            "address": server.address,
            "consumers": [by_name[name] for name in view.consumers],
        }
        for view in described.views
    ]


def _row(view: dict[str, Any], consumer: dict[str, Any]) -> list[object]:
    lag: object = consumer["lag"] if consumer["lag_known"] else "?"
    return [
        view["view"],
        view["service"],
        consumer["log"],
        consumer["position"],
        lag,
        consumer["dead_letters"],
        consumer["problem"] or "ok",
    ]
