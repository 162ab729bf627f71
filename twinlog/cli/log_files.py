"""What `twinlog export` and `twinlog import` share: their arguments, and how they tell what was done."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from twinlog.cli.exits import OK, Usage, told_in_a_line
from twinlog.cli.output import print_json
from twinlog.service.logging import configure_logging


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("log", help="the log, such as orders")
    parser.add_argument("file", type=_path, help="the file, such as orders.twinlog")
    server(parser)


def server(parser: argparse.ArgumentParser) -> None:
    """Declares where the log is, and how the result is told."""
    parser.add_argument(
        "--database", default="", help="the log's database; needed where the server has several"
    )
    parser.add_argument(
        "--postgres-url", default=os.environ.get("POSTGRES_URL"), help="default: POSTGRES_URL"
    )
    parser.add_argument("--json", action="store_true", help="one JSON value, for programs")


def _path(text: str) -> Path:
    """Refuses a URL, which would be taken for a folder of that name."""
    if "://" in text:
        raise argparse.ArgumentTypeError(f"{text} is a URL: give a path, and copy the file to or from there")
    return Path(text)


def asked(options: argparse.Namespace, *, requests: bool = True) -> Any:
    """The options of the work. Raises Usage."""
    from twinlog.service.export import Options

    return Options(options.log, options.file, postgres_url(options), options.database, requests)


def postgres_url(options: argparse.Namespace) -> str:
    """Raises Usage where there is none."""
    if not options.postgres_url:
        raise Usage("set POSTGRES_URL, or give --postgres-url; no `twinlog dev` runs here")
    return str(options.postgres_url)


def done(work: Callable[..., Awaitable[Any]], options: Any, quiet: bool) -> Any:
    """Does it, and gives what it gives. Raises Failed."""
    configure_logging("error", "pretty")
    say = (lambda _line: None) if quiet else (lambda line: print(line, file=sys.stderr, flush=True))
    with told_in_a_line():
        return asyncio.run(work(options, say))  # type: ignore[arg-type]


def tell(done: Any, first: str, as_json: bool) -> int:
    """Says what was done."""
    if as_json:
        print_json(done._asdict())
        return OK
    fresh = done.events - done.resumed
    rate = f", {fresh / done.seconds:,.0f} a second" if done.seconds else ""
    before = f", {done.resumed:,} of them from an earlier run" if done.resumed else ""
    print(f"{first}: {done.events:,} events{before}, {done.bytes:,} bytes, {done.seconds:.1f} s{rate}.")
    print(f"SHA-256 chain: {done.digest}", flush=True)
    return OK
