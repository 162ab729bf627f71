"""The servers that a command asks: their addresses, and calls to them whose failures have an exit code."""

from __future__ import annotations

import argparse
import asyncio
import os
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from math import inf
from typing import Any, TypeVar

import grpc
import grpc.aio

from twinlog.cli.exits import Failed, OutOfReach, Usage
from twinlog.cli.output import console, line
from twinlog.cli.project import Project
from twinlog.log.hosts import is_port
from twinlog.v1.dead_letter_service_pb2_grpc import DeadLetterServiceStub
from twinlog.v1.inspection_pb2_grpc import InspectionServiceStub
from twinlog.v1.view_service_pb2_grpc import ViewServiceStub

T = TypeVar("T")
S = TypeVar("S")
"""Whom to ask: a server, or one of its services."""
ANSWER_SECONDS = 5.0
"""How long each answer is waited for, unless --timeout says otherwise."""
_ADDRESS = re.compile(r"([^\s:/,]+|\[[0-9a-fA-F:.]+\]):[0-9]{1,5}")
_NOT_THERE = "failed to connect to all addresses"
"""gRPC itself would call another port instead of one that does not exist."""
_AWAY = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
_MISUSED = (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND)


def arguments(parser: argparse.ArgumentParser, *, when: str = "") -> None:
    """Declares which servers are asked, and for how long. ``when``: what else ``--at`` may be, a moment."""
    parser.add_argument(
        "--at",
        action="append",
        metavar="WHEN|HOST:PORT" if when else "HOST:PORT",
        default=None,
        help=(f"when: {when}; or " if when else "")
        + "a service's address, once for each; default: TWINLOG_ADDRESSES, or those of pyproject.toml",
    )
    parser.add_argument(
        "--timeout",
        type=_seconds,
        default=ANSWER_SECONDS,
        metavar="SECONDS",
        help=f"for each answer; default: {ANSWER_SECONDS:g}",
    )
    parser.add_argument("--json", action="store_true", help="print JSON, for programs")


def is_address(text: str) -> bool:
    """Whether it is host:port."""
    return bool(_ADDRESS.fullmatch(text)) and is_port(text.rpartition(":")[2])


def addresses(options: argparse.Namespace) -> list[str]:
    """The addresses to ask: those given, else those of the environment, else those of the project. Raises Usage."""
    given = options.at or [each for each in os.environ.get("TWINLOG_ADDRESSES", "").split(",") if each]
    if not given and (project := Project.here()):
        given = [*project.services.values()]
    if not given:
        raise Usage(
            "no service's address is known: give --at HOST:PORT, once for each, set TWINLOG_ADDRESSES to them, "
            "separated by commas, or go to the folder of a project that names them in its pyproject.toml"
        )
    for address in given:
        if not is_address(address):
            raise Usage(f"{address} is no address: it must be host:port, such as 127.0.0.1:50051")
    return list(dict.fromkeys(given))


def _seconds(text: str) -> float:
    with suppress(ValueError):
        if 0 < (seconds := float(text)) < inf:
            return seconds
    raise argparse.ArgumentTypeError(f"{text!r} must be a number of seconds above 0, such as 5 or 0.5")


@dataclass(frozen=True)
class Server:
    """A server to ask."""

    address: str
    channel: grpc.aio.Channel
    timeout_seconds: float

    @property
    def inspection(self) -> Any:
        """Its twinlog.v1.InspectionService."""
        return InspectionServiceStub(self.channel)

    @property
    def dead_letters(self) -> Any:
        """Its twinlog.v1.DeadLetterService."""
        return DeadLetterServiceStub(self.channel)

    @property
    def views(self) -> Any:
        """Its twinlog.v1.ViewService."""
        return ViewServiceStub(self.channel)

    async def ask(
        self, method: Callable[..., Awaitable[T]], request: Any, *, seconds: float | None = None
    ) -> T:
        """The answer of a unary method within ``seconds``, by default those that were given. Raises Failed."""
        try:
            return await method(request, timeout=seconds or self.timeout_seconds)
        except grpc.aio.AioRpcError as error:
            raise failure(self.address, error) from error

    async def pages(self, method: Callable[..., Awaitable[T]], request: Any) -> AsyncIterator[T]:
        """Every page of a list. Raises Failed."""
        while True:
            page: Any = await self.ask(method, request)
            yield page
            request.page_token = page.next_page_token
            if not request.page_token:
                return


def failure(address: str, error: grpc.aio.AioRpcError) -> Failed:
    """What a failed call means for the command."""
    code, details = error.code(), error.details() or error.code().name
    if code in _AWAY:
        return OutOfReach(f"{address} is out of reach: {_in_short(details)}")
    if code is grpc.StatusCode.UNIMPLEMENTED:
        return Failed(
            f"{address} does not serve this; is it a service of Twinlog, of this version? ({details})"
        )
    if code in _MISUSED:
        return Usage(f"{address}: {details}")
    return Failed(f"{address}: {code.name}: {details}")


def _in_short(details: str) -> str:
    """gRPC's words for a server that is not there, without the address, which is told already."""
    return details.rpartition(": ")[2] if details.startswith(_NOT_THERE) else details


def act(options: argparse.Namespace) -> int:
    """Runs the chosen action over the servers to ask; gives the exit code. Raises Failed."""

    async def acted() -> int:
        async with connected(options) as asked:
            return int(await options.action(options, asked))

    return asyncio.run(acted())


@asynccontextmanager
async def connected(options: argparse.Namespace) -> AsyncIterator[Sequence[Server]]:
    """The servers to ask, in the order of their addresses. Raises Usage."""
    async with AsyncExitStack() as stack:
        yield [
            Server(
                address,
                await stack.enter_async_context(grpc.aio.insecure_channel(address)),
                options.timeout,
            )
            for address in addresses(options)
        ]


async def ask_all(
    servers: Sequence[S], question: Callable[[S], Coroutine[Any, Any, T]]
) -> tuple[list[tuple[S, T]], list[Failed]]:
    """The answers of those that answer, and what went wrong with the others; each with who was asked."""
    outcomes = await asyncio.gather(*map(question, servers), return_exceptions=True)
    answers: list[tuple[S, T]] = []
    failures: list[Failed] = []
    for server, outcome in zip(servers, outcomes, strict=True):
        if isinstance(outcome, Failed):
            failures.append(outcome)
        elif isinstance(outcome, BaseException):
            raise outcome
        else:
            answers.append((server, outcome))
    return answers, failures


def print_failures(failures: Sequence[Failed]) -> None:
    """Tells a person of those that did not answer."""
    for each in failures:
        console().print(line(each, "red"))


def worst(failures: Sequence[Failed]) -> int:
    """The exit code for several failures; 0 for none."""
    return max((each.code for each in failures), default=0)
