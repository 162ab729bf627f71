"""``twinlog dead-letters list|show|replay|discard``: the events that could not be handled."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from typing import Any

import grpc.aio

from twinlog.cli import servers
from twinlog.cli.exits import OK, WRONG, Failed, Usage
from twinlog.cli.log_events import read_as
from twinlog.cli.output import as_dict, console, line, plain, print_json, table
from twinlog.cli.servers import Server, failure
from twinlog.v1 import dead_letter_service_pb2 as pb

_PAGE = 1_000
_CHOICE = "select events: give LOG/POSITION, --error KIND, --key KEY, or --all"


def arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    listing = actions.add_parser(
        "list", help="all, by consumer and position; exit code 1 where there are any"
    )
    servers.arguments(listing)
    listing.add_argument("--consumer", default="", help="only this consumer's")
    listing.add_argument("--error", default="", help="only those with this kind of error")
    listing.add_argument("--key", default="", help="only those of this key")
    listing.set_defaults(action=_list)
    showing = actions.add_parser("show", help="one, with its payload")
    servers.arguments(showing)
    showing.add_argument("address", metavar="LOG/POSITION")
    showing.add_argument("--consumer", default="", help="this consumer's")
    showing.set_defaults(action=_show)
    replaying = actions.add_parser("replay", help="handle them now")
    _selection(replaying)
    replaying.add_argument(
        "--per-second", type=float, default=0.0, help="at most so many a second; default: no limit"
    )
    replaying.set_defaults(action=_replay)
    discarding = actions.add_parser("discard", help="give them up")
    _selection(discarding)
    discarding.add_argument("--reason", required=True, help="why, for those who read the log later")
    discarding.set_defaults(action=_discard)


def _selection(parser: argparse.ArgumentParser) -> None:
    servers.arguments(parser)
    which = parser.add_mutually_exclusive_group()
    which.add_argument("address", metavar="LOG/POSITION", nargs="?", default="", help="this event")
    which.add_argument("--error", default="", help="those with this kind of error")
    which.add_argument("--key", default="", help="those of this key")
    which.add_argument("--all", action="store_true", help="all of them")
    parser.add_argument("--consumer", default="", help="only this consumer's")
    parser.add_argument("--dry-run", action="store_true", help="only count them")


run = servers.act


async def _list(options: argparse.Namespace, asked: Sequence[Server]) -> int:
    answers, failures = await servers.ask_all(asked, lambda server: _letters(server, options))
    failures = _without_strangers(options, answers, failures)
    rows = [{"server": server.address, **as_dict(each)} for server, found in answers for each in found]
    if options.json:
        print_json({"dead_letters": rows, "failures": [str(each) for each in failures]})
    else:
        out = console()
        columns = ["event", "consumer", "type", "error_type", "error", "behind", "key", "parked_at"]
        if rows or not failures:
            out.print(table("Dead letters", columns, [_row(each) for each in rows]) if rows else "None.")
        servers.print_failures(failures)
    return servers.worst(failures) or (WRONG if rows else OK)


def _row(letter: dict[str, Any]) -> list[object]:
    kind = str(letter["type"]).rpartition(".")[2]
    names = ("error_type", "error", "behind", "key", "parked_at")
    return [letter["address"], letter["consumer"], kind, *(letter[name] for name in names)]


async def _letters(server: Server, options: argparse.Namespace) -> list[pb.DeadLetter]:
    """All that fit. Raises Failed."""
    request = pb.ListDeadLettersRequest(
        consumer=options.consumer, key=options.key, error_type=options.error, page_size=_PAGE
    )
    pages = server.pages(server.dead_letters.ListDeadLetters, request)
    return [letter async for page in pages for letter in page.dead_letters]


async def _show(options: argparse.Namespace, asked: Sequence[Server]) -> int:
    request = pb.GetDeadLetterRequest(address=options.address, consumer=options.consumer)
    answers, failures = await servers.ask_all(
        asked, lambda server: server.ask(server.dead_letters.GetDeadLetter, request)
    )
    if not answers:
        raise max(failures, key=lambda each: each.code)
    found = [{"server": server.address, **as_dict(answer)} for server, answer in answers]
    if options.json:
        print_json({"dead_letters": found})
        return OK
    out = console()
    for each in found:
        out.print(line(f"{each['dead_letter']['address']} of {each['dead_letter']['consumer']}", "bold"))
        for name, value in (*each["dead_letter"].items(), *_fields(each)):
            out.print(plain(f"  {name}: {value}"), soft_wrap=True)
        out.print(plain(_payload(each)), soft_wrap=True)
        for said in read_as(each):
            out.print(plain(f"  {said}"), soft_wrap=True)
        for said in each["traceback"].splitlines():
            out.print(plain(said), soft_wrap=True)
    return OK


def _fields(found: dict[str, Any]) -> list[tuple[str, Any]]:
    names = ("server", "stream", "recorded_at", "cause", "correlation_id", "actor")
    return [(name, found.get(name, "")) for name in names]


def _payload(found: dict[str, Any]) -> str:
    if text := found["payload_json"]:
        return "  payload: " + json.dumps(json.loads(text), ensure_ascii=False)
    return f"  payload: not decoded; base64: {found['payload']}"


async def _replay(options: argparse.Namespace, asked: Sequence[Server]) -> int:
    selection = _selected(options)

    async def replay(server: Server) -> pb.ReplayDeadLettersResponse:
        last = pb.ReplayDeadLettersResponse()
        try:
            async for last in server.dead_letters.ReplayDeadLetters(
                pb.ReplayDeadLettersRequest(
                    selection=selection, dry_run=options.dry_run, per_second=options.per_second
                )
            ):
                if last.address and not options.json:
                    what = f"failed: {last.error_type}: {last.error}" if last.error_type else "handled"
                    console().print(plain(f"{last.address} {what}"), soft_wrap=True)
        except grpc.aio.AioRpcError as error:
            raise failure(server.address, error) from error
        return last

    answers, failures = await servers.ask_all(asked, replay)
    failures = _without_strangers(options, answers, failures)
    _tell(options, [(server, as_dict(answer)) for server, answer in answers], failures)
    return servers.worst(failures) or (WRONG if any(answer.failed for _, answer in answers) else OK)


async def _discard(options: argparse.Namespace, asked: Sequence[Server]) -> int:
    request = pb.DiscardDeadLettersRequest(
        selection=_selected(options), reason=options.reason, dry_run=options.dry_run
    )
    answers, failures = await servers.ask_all(
        asked, lambda server: server.ask(server.dead_letters.DiscardDeadLetters, request)
    )
    failures = _without_strangers(options, answers, failures)
    _tell(options, [(server, as_dict(answer)) for server, answer in answers], failures)
    return servers.worst(failures)


def _selected(options: argparse.Namespace) -> pb.DeadLetterSelection:
    selection = pb.DeadLetterSelection(consumer=options.consumer)
    if options.address:
        selection.address = options.address
    elif options.error:
        selection.error_type = options.error
    elif options.key:
        selection.key = options.key
    elif options.all:
        selection.all = True
    else:
        raise Usage(_CHOICE)
    return selection


def _tell(
    options: argparse.Namespace,
    answers: Sequence[tuple[Server, dict[str, Any]]],
    failures: Sequence[Failed],
) -> None:
    if options.json:
        done = [{"server": server.address, **answer} for server, answer in answers]
        print_json({"answers": done, "failures": [str(each) for each in failures]})
        return
    out = console()
    for server, answer in answers:
        counts = ", ".join(
            f"{name} {answer[name]}"
            for name in ("selected", "replayed", "failed", "discarded")
            if name in answer
        )
        out.print(plain(f"{server.address}: {counts}{' (dry run)' if options.dry_run else ''}"))
    servers.print_failures(failures)


def _without_strangers(
    options: argparse.Namespace, answers: Sequence[Any], failures: list[Failed]
) -> list[Failed]:
    """Without the servers that do not have the consumer or the event, where another one does."""
    if answers and (options.consumer or getattr(options, "address", "")):
        return [each for each in failures if not isinstance(each, Usage)]
    return failures
