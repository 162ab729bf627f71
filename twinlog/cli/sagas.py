"""``twinlog sagas list|show|retry|skip|abort``: the sagas of all services, by twinlog.v1.SagaService.

The service's own descriptors are used, by reflection: a newer one may have more to say.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Sequence
from typing import Any
from uuid import uuid4

import grpc
import grpc.aio
from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.message_factory import GetMessageClass

from twinlog.cli import servers
from twinlog.cli.exits import OK, WRONG, Failed, OutOfReach, Usage
from twinlog.cli.output import console, line, plain, print_json, table
from twinlog.cli.reflected import pool_of
from twinlog.cli.servers import Server
from twinlog.cli.values import span, whole_number

_SERVICE = "twinlog.v1.SagaService"
_PAGE = 1_000
_STATUS = "SAGA_STATUS_"
_STATUSES = ("running", "compensating", "completed", "compensated", "needs-attention")
_ORDERS = {"retry": "RetrySagas", "skip": "SkipSagaSteps", "abort": "AbortSagas"}


def arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    listing = actions.add_parser("list", help="newest first; exit code 1 where one needs attention")
    servers.arguments(listing)
    _filters(listing)
    listing.set_defaults(action=_list)
    showing = actions.add_parser("show", help="one: its steps, what is awaited and who owes it")
    servers.arguments(showing)
    showing.add_argument("saga_id", help="its id")
    showing.add_argument("--saga", default="", help="the name of its table, such as credit")
    showing.set_defaults(action=_show)
    for name, help in (
        ("retry", "send the awaited command once more, now"),
        ("skip", "no longer wait for an answer: the step counts as done, or as undone"),
        ("abort", "undo what was done"),
    ):
        order = actions.add_parser(name, help=help)
        servers.arguments(order)
        order.add_argument(
            "saga_id", nargs="?", default="", help="its id; without it, those that the filter finds"
        )
        _filters(order)
        order.add_argument(
            "--reason", default="", required=name != "retry", help="why, for those who read the log"
        )
        if name != "abort":
            order.add_argument("--step", default="", help="the step, where several are awaited at once")
        order.add_argument("--dry-run", action="store_true", help="only say which ones it would be done to")
        order.add_argument(
            "--limit", type=whole_number(0), default=0, help="how many at most, 1 to 1000; default: 50"
        )
        order.set_defaults(action=_order, order=name)


def _filters(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--saga", default="", help="of this table, such as credit")
    parser.add_argument("--status", choices=_STATUSES, help="with this status")
    parser.add_argument("--subject", default="", help="about this, such as the id of a customer")
    parser.add_argument(
        "--older-than", type=_age, metavar="AGE", help="started at least so long ago: 90s, 10m, 2h, 7d"
    )


def _age(text: str) -> int:
    if (ago := span(text)) is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no age: give one such as 90s, 10m, 2h or 7d")
    return round(ago.total_seconds())


def run(options: argparse.Namespace) -> int:
    return asyncio.run(_run(options))


async def _run(options: argparse.Namespace) -> int:
    async with servers.connected(options) as asked:
        reflected = await asyncio.gather(*(asyncio.to_thread(_descriptors, server) for server in asked))
        desks = [_Desk(server, found) for server, found in zip(asked, reflected, strict=True) if found]
        if not desks:
            raise Usage("none of these services has sagas; they are served as twinlog.v1.SagaService")
        return int(await options.action(options, desks))


def _descriptors(server: Server) -> Any:
    """The descriptor of a server's SagaService; None where it has none. Raises Failed."""
    try:
        with grpc.insecure_channel(server.address) as channel:
            grpc.channel_ready_future(channel).result(timeout=server.timeout_seconds)
            pool, names = pool_of(channel)
            return pool.FindServiceByName(_SERVICE) if _SERVICE in names else None
    except grpc.FutureTimeoutError as error:
        raise OutOfReach(f"{server.address} is out of reach") from error
    except grpc.RpcError as error:
        raise Failed(f"{server.address}: {error}") from error


class _Desk:
    """The SagaService of one server, called with dicts."""

    def __init__(self, server: Server, descriptor: Any) -> None:
        self.server = server
        self._methods = descriptor.methods_by_name

    async def __call__(self, method: str, request: dict[str, Any]) -> dict[str, Any]:
        """The answer of a method, as JSON has it. Raises Failed."""
        described = self._methods[method]
        answer = GetMessageClass(described.output_type)
        call = self.server.channel.unary_unary(
            f"/{_SERVICE}/{method}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=answer.FromString,
        )
        message = ParseDict(request, GetMessageClass(described.input_type)())
        return MessageToDict(
            await self.server.ask(call, message),
            preserving_proto_field_name=True,
            always_print_fields_with_no_presence=True,
        )


def _filter(options: argparse.Namespace) -> dict[str, Any]:
    made: dict[str, Any] = {"saga": options.saga, "subject": options.subject}
    if options.status:
        made["status"] = _STATUS + options.status.upper().replace("-", "_")
    if options.older_than is not None:
        made["older_than"] = f"{options.older_than}s"
    return made


async def _list(options: argparse.Namespace, desks: Sequence[_Desk]) -> int:
    sagas: list[dict[str, Any]] = []
    for desk in desks:
        token = ""
        while True:
            request = {"filter": _filter(options), "page_size": _PAGE, "page_token": token}
            page = await desk("ListSagas", request)
            sagas += page["sagas"]
            token = page["next_page_token"]
            if not token:
                break
    if options.json:
        print_json({"sagas": sagas})
    else:
        columns = ["saga", "id", "status", "subject", "reason", "started", "updated"]
        console().print(table("Sagas", columns, map(_row, sagas)) if sagas else "None.")
    attention = f"{_STATUS}NEEDS_ATTENTION"
    return WRONG if any(saga["status"] == attention for saga in sagas) else OK


def _row(saga: dict[str, Any]) -> list[object]:
    names = ("saga_id", "status", "subject", "reason", "started_at", "updated_at")
    return [saga["saga"], *(_short(saga.get(name, "")) for name in names)]


def _short(value: object) -> str:
    """An enum's value without its prefix, in small letters; other texts as they are."""
    text = str(value)
    for prefix in (_STATUS, "SAGA_STEP_STATUS_", "AWAITED_KIND_", "COMMAND_PROGRESS_"):
        if text.startswith(prefix):
            return text.removeprefix(prefix).lower().replace("_", "-")
    return text


async def _show(options: argparse.Namespace, desks: Sequence[_Desk]) -> int:
    request = {"saga_id": options.saga_id, "saga": options.saga}
    answers, failures = await servers.ask_all(desks, lambda desk: desk("GetSaga", request))
    if not answers:
        raise max(failures, key=lambda each: each.code)
    saga = answers[0][1]["saga"]
    if options.json:
        print_json(saga)
        return OK
    out = console()
    out.print(line(f"{saga['saga']} {saga['saga_id']}: {_short(saga['status'])}", "bold"))
    for name in ("subject", "version", "reason", "started_at", "updated_at"):
        if value := saga.get(name):
            out.print(plain(f"  {name}: {value}"))
    columns = ["step", "status", "attempts", "next retry", "deadline"]
    out.print(table("Steps", columns, map(_row_of_step, saga["steps"])))
    if saga["awaited"]:
        columns = ["step", "awaited", "from", "progress", "lag", "problem"]
        out.print(table("Awaited", columns, map(_row_of_awaited, saga["awaited"])))
    for remaining in saga["remaining"]:
        out.print(plain(f"  then: {remaining}"))
    return OK


def _row_of_step(step: dict[str, Any]) -> list[object]:
    times = (step.get("next_retry", ""), step.get("deadline", ""))
    return [step["name"], _short(step["status"]), step["attempts"], *times]


def _row_of_awaited(awaited: dict[str, Any]) -> list[object]:
    what = awaited["command"].rpartition(".")[2] or _short(awaited.get("kind", ""))
    lag = awaited["lag"] if awaited["lag_known"] else "?"
    problem = awaited["problem"] or awaited["unknown_because"]
    return [awaited["step"], what, awaited["owner"], _short(awaited["progress"]), lag, problem]


async def _order(options: argparse.Namespace, desks: Sequence[_Desk]) -> int:
    filter = _filter(options)
    if not options.saga_id and not any(filter.values()):
        raise Usage("which sagas? give an id, or --saga, --status, --subject or --older-than")
    by = {"saga": options.saga, "saga_id": options.saga_id} if options.saga_id else {"filter": filter}
    request = {
        "request_id": str(uuid4()),
        "selection": by,
        "reason": options.reason,
        "dry_run": options.dry_run,
        "limit": options.limit,
        **({"step": options.step} if getattr(options, "step", "") else {}),
    }
    answers, failures = await servers.ask_all(desks, lambda desk: desk(_ORDERS[options.order], request))
    if answers and options.saga_id:
        failures = [each for each in failures if not isinstance(each, Usage)]
    if options.json:
        answered = [{"server": desk.server.address, **answer} for desk, answer in answers]
        print_json({"answers": answered, "failures": [str(each) for each in failures]})
    else:
        _tell(options, answers, failures)
    refused = any(outcome["problem"] for _, answer in answers for outcome in answer["outcomes"])
    return servers.worst(failures) or (WRONG if refused else OK)


def _tell(
    options: argparse.Namespace,
    answers: Sequence[tuple[_Desk, dict[str, Any]]],
    failures: Sequence[Failed],
) -> None:
    out, dry = console(), " (dry run)" if options.dry_run else ""
    for desk, answer in answers:
        counts = f"selected {answer['selected']}, applied {answer['applied']}{dry}"
        out.print(plain(f"{desk.server.address}: {counts}"))
        for outcome in answer["outcomes"]:
            out.print(plain(f"  {outcome['saga_id']}: {outcome['problem'] or 'done'}"), soft_wrap=True)
    servers.print_failures(failures)
