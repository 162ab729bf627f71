"""``twinlog erasure``: the keys of personal data, and the proof that a text is in no store any more."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from pathlib import Path
from typing import Any

from twinlog.cli.exits import OK, WRONG, Usage, told_in_a_line
from twinlog.cli.output import console, print_json, table
from twinlog.cli.project import check_postgres_url, keys_of_persons

_BATCH = 500
_TRIES, _PAUSE_SECONDS = 20, 0.5
"""A session that was killed in the middle may hold keys for some more seconds."""


def arguments(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(metavar="WHAT", required=True)
    keys = commands.add_parser("keys", help="how many keys there are, what wraps them, and who is erased")
    rewrap = commands.add_parser(
        "rewrap", help="wrap all keys anew, by the first of PERSONAL_WRAPPING_KEYS; events stay as they are"
    )
    report = commands.add_parser(
        "report",
        help="look for texts, one a line of stdin, in every table, stream and given file; 1 where one is found",
    )
    report.add_argument(
        "--files",
        action="append",
        type=Path,
        default=[],
        metavar="PATH",
        help="a file or folder, such as of archives",
    )
    for each, action in ((keys, _keys), (rewrap, _rewrap), (report, _report)):
        each.set_defaults(action=action)
        each.add_argument(
            "--postgres-url", default=os.environ.get("POSTGRES_URL"), help="default: POSTGRES_URL"
        )
        each.add_argument("--json", action="store_true", help="print JSON, for programs")
    report.add_argument("--nats-url", default=os.environ.get("NATS_URL"), help="default: NATS_URL")


def run(options: argparse.Namespace) -> int:
    from twinlog.service.logging import configure_logging

    configure_logging("error", "pretty")
    with told_in_a_line():
        return int(asyncio.run(options.action(options)))


async def _keys(options: argparse.Namespace) -> int:
    async with _open(options) as keys:
        wrapped, erased = await keys.wrapped_by(), await keys.ever_destroyed()
    if options.json:
        at = {subject: when.isoformat() for subject, when in erased.items()}
        print_json({"keys": dict(wrapped), "erased": at})
        return OK
    out = console()
    rows = [(name or "nothing", count) for name, count in wrapped.items()]
    out.print(table("Keys", ["wrapped by", "keys"], rows, right=["keys"]))
    out.print(table("Erased", ["subject", "at"], [(who, f"{at:%F %T}Z") for who, at in erased.items()]))
    return OK


async def _rewrap(options: argparse.Namespace) -> int:
    """1 where some keys are left as they were: to take out their wrapping key then would lose them."""
    newest = _wrapping().newest
    async with _open(options) as keys:
        done = await _all_rewrapped(keys, newest)
        wrapped = await keys.wrapped_by()
    left = sum(count for name, count in wrapped.items() if name != newest)
    if options.json:
        print_json({"rewrapped": done, "keys": dict(wrapped)})
    else:
        now = (
            ", ".join(f"{count} by {name or 'nothing'}" for name, count in wrapped.items()) or "there is none"
        )
        print(f"{done} keys wrapped anew; now {now}")
    if left:
        why = "another session holds them, or a service makes new ones and was not restarted yet"
        print(
            f"{left} keys are NOT wrapped by {newest or 'nothing'!r}: {why}. Keep the old key, and run this again.",
            file=sys.stderr,
        )
    return WRONG if left else OK


async def _all_rewrapped(keys: Any, newest: str) -> int:
    """Wraps all keys anew, and waits a while for those that another session holds; returns how many."""
    done = 0
    for _ in range(_TRIES):
        while count := await keys.rewrap(_BATCH):
            done += count
        if not {*await keys.wrapped_by()} - {newest}:
            break
        await asyncio.sleep(_PAUSE_SECONDS)
    return done


async def _report(options: argparse.Namespace) -> int:
    from twinlog.audit.erasure import search

    texts = [line.strip() for line in sys.stdin.read().splitlines() if line.strip()]
    if not texts:
        raise Usage(
            "give the texts to look for on stdin, one a line; there they are in no history of commands"
        )
    if not (options.postgres_url or options.nats_url or options.files):
        raise Usage("set POSTGRES_URL and NATS_URL, or give --postgres-url, --nats-url or --files")
    done = await search(texts, options.postgres_url or "", options.nats_url or "", options.files)
    if options.json:
        print_json({**done._asdict(), "texts": len(texts), "found": [each._asdict() for each in done.found]})
    else:
        out = console()
        if done.found:
            rows = [(each.store, each.where, each.times, each.first) for each in done.found]
            out.print(table("Found", ["store", "where", "times", "first"], rows, right=["times"]))
        looked = f"{done.tables} tables, {done.messages} messages, {done.files} files"
        out.print(f"{len(texts)} texts: {'FOUND' if done.found else 'in none'} of {looked}")
    return WRONG if done.found else OK


def _open(options: argparse.Namespace) -> Any:
    """The keys, by the settings that services have. Raises Usage."""
    from twinlog.postgres.keys import open_keys

    url, database = keys_of_persons(options.postgres_url)
    if not url:
        raise Usage("set POSTGRES_URL, or give --postgres-url")
    check_postgres_url(url, "PERSONAL_KEYS_URL")
    return open_keys(url, database, _wrapping())


def _wrapping() -> Any:
    """What wraps the keys, as services have it. Raises Usage."""
    from twinlog.log.wrapping import Wrapping, wrapping_keys

    try:
        return Wrapping(wrapping_keys(os.environ.get("PERSONAL_WRAPPING_KEYS", "")))
    except ValueError as error:
        raise Usage(f"PERSONAL_WRAPPING_KEYS {error}") from error
