"""``python -m proof.auditor``: audits the running shop, or the data that `make run` left.

Exit codes: 0 without violations; 1 with violations; 2 where it could not audit or did not settle within ``--wait``.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from proof.auditor import renderer
from proof.auditor.auditor import CannotAudit, audit, open_auditor
from stack.attach import Running, only_one
from stack.console import console
from stack.topology import NAMESPACE, ROOT
from twinlog import ConfigurationError, Unavailable
from twinlog.audit import GRACE, Report, chain_options
from twinlog.dev import EmbeddedNats, EmbeddedPostgres, Misconfigured, StartFailed
from twinlog.testing.internals import configure_logging

CLEAN, VIOLATIONS, CANNOT = 0, 1, 2


class Servers(NamedTuple):
    """Where the shop's data is."""

    postgres_url: str
    nats_url: str
    at_rest: bool
    """Whether no service is running."""


@asynccontextmanager
async def servers(data: Path = ROOT / ".data") -> AsyncIterator[Servers]:
    """Those of POSTGRES_URL and NATS_URL; else those of the running stack; else embedded ones on the data it left.

    Raises CannotAudit where there are none.
    """
    postgres_url, nats_url = os.environ.get("POSTGRES_URL"), os.environ.get("NATS_URL")
    if not (postgres_url or nats_url) and (running := Running.read(data)):
        if running.twinlog_namespace != NAMESPACE:
            raise CannotAudit(
                why=f"the shop runs with TWINLOG_NAMESPACE={running.twinlog_namespace}; set it so"
            )
        postgres_url, nats_url = running.postgres_url, running.nats_url
    if postgres_url and nats_url:
        yield Servers(postgres_url, nats_url, at_rest=False)
    elif postgres_url or nats_url:
        raise CannotAudit(
            why=f"{'NATS_URL' if postgres_url else 'POSTGRES_URL'} is not set; set both, or neither"
        )
    elif (data / "run" / "postgres").exists():
        async with _embedded(data) as found:
            yield found
    else:
        why = "nothing runs and there is no data; `make run` first, or set POSTGRES_URL and NATS_URL"
        raise CannotAudit(why=why)


@asynccontextmanager
async def _embedded(data: Path) -> AsyncIterator[Servers]:
    """Servers on the data that `make run` left; no stack can start during the block."""
    async with AsyncExitStack() as stack:
        try:
            await stack.enter_async_context(only_one(data, "make audit"))
            postgres = await stack.enter_async_context(EmbeddedPostgres(data / "run" / "postgres"))
            nats = await stack.enter_async_context(EmbeddedNats(data / "run" / "nats"))
        except (StartFailed, Misconfigured) as error:
            raise CannotAudit(why=str(error)) from error
        yield Servers(postgres.url, nats.url, at_rest=True)


def main(arguments: Sequence[str] | None = None) -> int:
    options = _options(arguments)
    # Only what stops the audit is logged, beside the report.
    configure_logging("error")
    try:
        return asyncio.run(_watch(options) if options.watch else _once(options))
    except (CannotAudit, ConfigurationError, Unavailable) as error:
        print(" ".join(str(error).split()), file=sys.stderr)
        return CANNOT
    except KeyboardInterrupt:
        return CANNOT


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "python -m proof.auditor", description="Audits the shop; changes nothing."
    )
    parser.add_argument("--wait", type=float, default=0, metavar="SECONDS", help="wait until it is settled")
    parser.add_argument("--watch", action="store_true", help="audit what is new, again and again")
    parser.add_argument(
        "--every", type=float, default=2, metavar="SECONDS", help="seconds between two rounds; default: 2"
    )
    parser.add_argument("--grace", type=float, default=GRACE.total_seconds(), metavar="SECONDS")
    parser.add_argument("--rounds", type=int, default=0, help="end the watch after so many rounds")
    chain_options(parser)
    return parser.parse_args(arguments)


async def _once(options: argparse.Namespace) -> int:
    grace = timedelta(seconds=options.grace)
    async with servers() as at:
        if options.chain:
            async with open_auditor(at.postgres_url, at.nats_url) as auditor:
                return _told(await auditor.verify_chains(options.heads, options.key))
        report = await audit(
            at.postgres_url, at.nats_url, wait_seconds=options.wait, grace=grace, at_rest=at.at_rest
        )
    code = _told(report)
    return CANNOT if report.clean and options.wait and not report.settled else code


def _told(report: Report) -> int:
    for line in renderer.report(report):
        console.print(line)
    return _code(report)


async def _watch(options: argparse.Namespace) -> int:
    """Audits round by round until Ctrl-C; the first round reads everything."""
    code, rounds, told = CLEAN, 0, set()
    grace = timedelta(seconds=options.grace)
    try:
        async with (
            servers() as at,
            open_auditor(at.postgres_url, at.nats_url, grace=grace, at_rest=at.at_rest) as auditor,
        ):
            while not options.rounds or rounds < options.rounds:
                rounds, started = rounds + 1, time.monotonic()
                try:
                    report = await auditor.round()
                except Unavailable as error:
                    console.print(
                        f"{datetime.now():%H:%M:%S} {error}; retrying", style="yellow", markup=False
                    )
                else:
                    code = max(code, _code(report))
                    console.print(renderer.summary(report, datetime.now()))
                    for violation in report.violations:
                        if (key := (violation.check, *violation.ids, *violation.events)) not in told:
                            told.add(key)
                            for line in renderer.violation(violation):
                                console.print(line)
                console.file.flush()
                await asyncio.sleep(max(0, options.every - (time.monotonic() - started)))
    except asyncio.CancelledError:  # Ctrl-C
        print()
    return code


def _code(report: Report) -> int:
    return CLEAN if report.clean else VIOLATIONS


if __name__ == "__main__":
    sys.exit(main())
