"""``twinlog views``: the views of all services, how far each is, and their builds: rebuild, compare, switch, drop."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from twinlog.cli import again, servers
from twinlog.cli.exits import OK, WRONG, Failed, Usage
from twinlog.cli.output import as_dict, console, line, plain, print_json, table
from twinlog.cli.servers import Server
from twinlog.cli.values import whole_number
from twinlog.v1 import inspection_pb2 as pb
from twinlog.v1 import view_service_pb2 as builds

_LONG_SECONDS = 3_600.0
"""A large view takes long to compare."""
_LOOK_EVERY_SECONDS = 1.0
_NEVER = ("1970", "2020-01-01")
"""What a build that nobody began says of when it was begun."""


def arguments(parser: argparse.ArgumentParser) -> None:
    servers.arguments(parser)
    parser.set_defaults(action=_list)
    actions = parser.add_subparsers(title="actions; without one: list", metavar="ACTION")
    _action(actions, "list", "every view and its consumers, and how far each is", _list)
    status = _action(actions, "status", "the builds of views: progress, rate, time left", _status)
    status.add_argument("view", metavar="VIEW", nargs="?", default="", help="only this one")
    rebuild = _of_view(actions, "rebuild", "fill a new build beside the live one, and compare them", _rebuild)
    rebuild.add_argument(
        "--version", type=whole_number(0), default=0, help="which declared version; default: the newest"
    )
    rebuild.add_argument(
        "--share",
        type=whole_number(0),
        default=0,
        metavar="PERCENT",
        help="how much of the time filling may take; default: 10",
    )
    rebuild.add_argument(
        "--detach", action="store_true", help="only begin; `twinlog views status` shows how far it is"
    )
    rebuild.add_argument("--dry-run", action="store_true", help="only check")
    compare = _of_view(actions, "compare", "compare a build with the live one, row by row", _compare)
    _build(compare)
    switch = _of_view(actions, "switch", "have queries read another build", _switch)
    _build(switch)
    switch.add_argument(
        "--confirm", action="store_true", help="the rows may differ from those that are read now"
    )
    _confirm_dead_letters(switch)
    switch.add_argument("--dry-run", action="store_true", help="only check and compare")
    back = _of_view(actions, "back", "have queries read again what they read before", _back)
    _confirm_dead_letters(back)
    back.add_argument("--dry-run", action="store_true", help="only check")
    drop = _of_view(actions, "drop", "drop a build that is not live: its rows and its consumers", _drop)
    drop.add_argument("build", metavar="BUILD", type=whole_number(0), help="its number, as `status` shows it")
    drop.add_argument("--dry-run", action="store_true", help="only check")


def _action(actions: Any, name: str, help: str, action: Callable[..., Any]) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = actions.add_parser(
        name, help=help, description=f"{help[0].upper()}{help[1:]}."
    )
    servers.arguments(parser)
    parser.set_defaults(action=action)
    return parser


def _of_view(actions: Any, name: str, help: str, action: Callable[..., Any]) -> argparse.ArgumentParser:
    parser = _action(actions, name, help, action)
    parser.add_argument("view", metavar="VIEW")
    return parser


def _build(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--build", type=whole_number(0), default=0, help="its number; default: the newest")


def _confirm_dead_letters(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--confirm-dead-letters",
        action="store_true",
        help="events that only this build has set aside may wait",
    )


run = servers.act


# --- what there is ---


async def _list(options: argparse.Namespace, asked: Sequence[Server]) -> int:
    answers, failures = await servers.ask_all(asked, _views)
    views = [view for _, found in answers for view in found]
    if options.json:
        print_json({"views": views, "failures": [str(each) for each in failures]})
    else:
        out = console()
        servers.print_failures(failures)
        if answers:
            out.print(
                table(
                    "Views",
                    ["view", "service", "log", "position", "lag", "dead letters", "state"],
                    [_row(view, consumer) for view in views for consumer in view["consumers"]],
                    right=["position", "lag", "dead letters"],
                )
            )
    wrong = any(each["problem"] or each["dead_letters"] for view in views for each in view["consumers"])
    return servers.worst(failures) or (WRONG if wrong else OK)


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
    standing = [consumer["log"], consumer["position"], lag, consumer["dead_letters"]]
    return [view["view"], view["service"], *standing, consumer["problem"] or "ok"]


async def _status(options: argparse.Namespace, asked: Sequence[Server]) -> int:
    answers, failures = await servers.ask_all(asked, _listed)
    found = [
        {"address": server.address, **as_dict(view)}
        for server, listed in answers
        for view in listed.views
        if options.view in ("", view.view)
    ]
    if options.view and not found:
        raise max(failures, key=lambda each: each.code, default=_unknown(options.view))
    if options.json:
        print_json({"views": found, "failures": [str(each) for each in failures]})
    else:
        out = console()
        columns = ["view", "build", "version", "state", "table", "percent", "events/s", "left"]
        columns += ["dead letters", "begun at"]
        servers.print_failures(failures)
        rows = [_build_row(each) for view in found for each in view["builds"]]
        if answers:
            out.print(table("Builds of views", columns, rows, right=["build", "percent", "events/s", "left"]))
        for build in (each for view in found for each in view["builds"]):
            for one in build["progress"]:
                if one["problem"]:
                    out.print(line(f"{one['consumer']}: {one['problem']}", "red"))
    return servers.worst(failures)


async def _listed(server: Server) -> builds.ListViewsResponse:
    try:
        answer: builds.ListViewsResponse = await server.ask(server.views.ListViews, builds.ListViewsRequest())
    except Failed as failed:
        if "UNIMPLEMENTED" in str(failed.__cause__) or "does not serve" in str(failed):
            return builds.ListViewsResponse()  # a service without views
        raise
    return answer


def _build_row(build: dict[str, Any]) -> list[object]:
    return [
        build["view"],
        build["build"],
        build["version"],
        _state(build),
        build["table"],
        f"{build['percent']:.1f}",
        f"{build['events_per_second']:,.0f}" if build["events_per_second"] else "",
        _left(build),
        sum(each["dead_letters"] for each in build["progress"]),
        "" if build["begun_at"].startswith(_NEVER) else build["begun_at"],
    ]


def _state(build: dict[str, Any]) -> str:
    return str(build["state"]).removeprefix("VIEW_BUILD_STATE_").lower()


def _left(build: dict[str, Any]) -> str:
    seconds = build["seconds_left"]
    return "?" if seconds < 0 else "" if not seconds else f"{seconds:,.0f} s"


# --- what is done ---


async def _owner(options: argparse.Namespace, asked: Sequence[Server]) -> Server:
    """The server that keeps the view. Raises Failed."""
    answers, failures = await servers.ask_all(asked, _listed)
    for server, listed in answers:
        if any(view.view == options.view for view in listed.views):
            return server
    raise max(failures, key=lambda each: each.code, default=_unknown(options.view))


def _unknown(view: str) -> Failed:
    return Usage(
        f"no service that was asked keeps a view {view!r}; `twinlog views` lists those that there are"
    )


async def _rebuild(options: argparse.Namespace, asked: Sequence[Server]) -> int:
    server = await _owner(options, asked)
    request = builds.RebuildViewRequest(
        view=options.view, version=options.version, share=options.share, dry_run=options.dry_run
    )
    answer = await server.ask(server.views.RebuildView, request)
    if options.dry_run or options.detach:
        return _told(
            options, {"build": as_dict(answer.build)}, "would be begun" if options.dry_run else "is begun"
        )
    await _followed(options, server, answer.build.build)
    options.build = answer.build.build
    return await _compared(options, server)


async def _followed(options: argparse.Namespace, server: Server, number: int) -> None:
    """Shows how far a build is until it has caught up."""
    request = builds.GetRebuildRequest(view=options.view, build=number)
    while True:
        build = as_dict((await server.ask(server.views.GetRebuild, request)).build)
        if options.json:
            print_json({"build": build}, one_line=True)
        else:
            handled = sum(each["position"] for each in build["progress"])
            rate = f", {build['events_per_second']:,.0f} events/s" if build["events_per_second"] else ""
            left = f", {left} left" if (left := _left(build)) else ""
            console().print(
                plain(
                    f"build {number} of {options.view}: {build['percent']:.1f} %, {handled:,} events{rate}{left}"
                )
            )
        if _state(build) != "filling":
            return
        await asyncio.sleep(_LOOK_EVERY_SECONDS)


async def _compare(options: argparse.Namespace, asked: Sequence[Server]) -> int:
    return await _compared(options, await _owner(options, asked))


async def _compared(options: argparse.Namespace, server: Server) -> int:
    request = builds.CompareViewRequest(view=options.view, build=options.build)
    answer = as_dict(await server.ask(server.views.CompareView, request, seconds=_LONG_SECONDS))
    number, comparison = answer["build"]["build"], answer["comparison"]
    if options.json:
        print_json(answer, one_line=True)
    else:
        _print_comparison(comparison, f"Build {number} of {options.view}")
        confirm = " --confirm" if _differs(comparison) else ""
        views, at = f"{again.command()} views", again.at(server.address)
        console().print(plain(f"next: {views} switch {options.view} --build {number}{confirm}{at}"))
        console().print(plain(f"  or: {views} drop {options.view} {number}{at}"))
    return WRONG if _differs(comparison) else OK


def _differs(comparison: dict[str, Any]) -> bool:
    return any(
        comparison[of] for of in ("changed", "missing", "added", "unsettled", "columns_added", "columns_gone")
    )


def _print_comparison(comparison: dict[str, Any], what: str) -> None:
    out = console()
    if not _differs(comparison):
        out.print(plain(f"{what} is the same as the live one: {comparison['compared']:,} rows compared"))
        return
    out.print(
        plain(
            f"{what} differs from the live one: {comparison['compared']:,} rows compared, "
            f"{comparison['changed']:,} changed, {comparison['missing']:,} missing, {comparison['added']:,} added, "
            f"{comparison['unsettled']:,} not settled"
        )
    )
    for of in ("added", "gone"):
        if columns := comparison[f"columns_{of}"]:
            out.print(plain(f"columns {of}: {', '.join(columns)}"))
    if comparison["examples"]:
        rows = [[each["key"], each["difference"]] for each in comparison["examples"]]
        out.print(table("Differences", ["key", "live → new"], rows))


async def _switch(options: argparse.Namespace, asked: Sequence[Server]) -> int:
    server = await _owner(options, asked)
    request = builds.SwitchViewRequest(
        view=options.view,
        build=options.build,
        confirm_differences=options.confirm,
        confirm_dead_letters=options.confirm_dead_letters,
        dry_run=options.dry_run,
    )
    answer = as_dict(await server.ask(server.views.SwitchView, request, seconds=_LONG_SECONDS))
    if not options.json:
        _print_comparison(answer["comparison"], f"Build {answer['build']['build']} of {options.view}")
    return _told(options, answer, "could be switched to" if options.dry_run else "is live")


async def _back(options: argparse.Namespace, asked: Sequence[Server]) -> int:
    server = await _owner(options, asked)
    request = builds.SwitchViewBackRequest(
        view=options.view, confirm_dead_letters=options.confirm_dead_letters, dry_run=options.dry_run
    )
    answer = as_dict(await server.ask(server.views.SwitchViewBack, request, seconds=_LONG_SECONDS))
    return _told(options, answer, "could be switched back to" if options.dry_run else "is live again")


async def _drop(options: argparse.Namespace, asked: Sequence[Server]) -> int:
    server = await _owner(options, asked)
    request = builds.DropViewBuildRequest(view=options.view, build=options.build, dry_run=options.dry_run)
    answer = as_dict(await server.ask(server.views.DropViewBuild, request, seconds=_LONG_SECONDS))
    return _told(options, answer, "would be dropped" if options.dry_run else "is dropped")


def _told(options: argparse.Namespace, answer: dict[str, Any], what: str) -> int:
    if options.json:
        print_json(answer)
    else:
        number = answer["build"]["build"]
        named = f"build {number} of {options.view}" if number else f"a build of {options.view}"
        console().print(plain(f"{named} {what}"))
    return OK
