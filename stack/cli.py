"""The commands of `python -m stack`, their signals and exit codes."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import grpc
import grpc.aio

from stack.attach import Running, only_one
from stack.clients import Unexpected
from stack.console import console, fail, say
from stack.demo import demo, orders_of_a_burst
from stack.preflight import is_about_data
from stack.run import stay_up
from stack.shop import running
from stack.topology import CONSOLE_PAGES, ROOT
from twinlog.dev import FIRST_METRICS, Console, Misconfigured, Refused, StartFailed, Told, until_told

Main = Callable[[], Coroutine[Any, Any, int]]

USAGE = "usage: python -m stack demo | run"
OK, FAILED, MISCONFIGURED = 0, 1, 2
_DATA = ROOT / ".data"


def main(arguments: Sequence[str]) -> int:
    """The exit code: 0 for success, 1 for failure, 2 where the setup is wrong, 128 + n after signal n."""
    commands: dict[tuple[str, ...], Main] = {("demo",): _demo, ("run",): _run}
    command = commands.get(tuple(arguments))
    if command is None:
        print(USAGE, file=sys.stderr)
        return MISCONFIGURED
    try:
        return asyncio.run(_until_told(command))
    except BrokenPipeError:
        # The reader of the output is gone; this keeps the interpreter from flushing to it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED


async def _demo() -> int:
    orders_of_a_burst()  # rather told now than in the middle
    async with only_one(_DATA, "make demo") as told:
        say("[bold]Starting Postgres, NATS and the four services …[/]")
        async with running(say, data=_DATA / "demo", fresh=True, quiet=True) as shop:
            told(Running.of(shop))
            try:
                held = await shop.while_up(demo(shop))
            except Exception:
                for line in shop.supervisor.last_words():
                    print(line)
                raise
            say("\nStopping …")
    return OK if held else FAILED


async def _run() -> int:
    async with only_one(_DATA, "make run") as told:
        say("Starting Postgres, NATS, the four services and the console …")
        try:
            async with running(
                _echo,
                data=_DATA / "run",
                fixed_ports=True,
                metrics=FIRST_METRICS,
                console=Console(pages=CONSOLE_PAGES),
            ) as shop:
                told(Running.of(shop))
                await shop.while_up(stay_up(shop))
        except Refused as error:
            if is_about_data(str(error)) and not os.environ.get("POSTGRES_URL"):
                raise Misconfigured(f"{error} Or start from nothing: rm -rf .data/run") from error
            raise
    return OK


def _echo(line: str) -> None:
    print(line, flush=True)


async def _until_told(command: Main) -> int:
    try:
        return await until_told(command())
    except Told as told:
        return OK if command is _run and told.signum == signal.SIGINT else 128 + told.signum
    except Misconfigured as error:
        return fail(error, MISCONFIGURED)
    except (StartFailed, Unexpected) as error:
        return fail(error, FAILED)
    except grpc.aio.AioRpcError as error:
        return fail(f"a call failed: {error.code().name}, {error.details()}", FAILED)
    finally:
        console.show_cursor()
