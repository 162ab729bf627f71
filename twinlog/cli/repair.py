"""``twinlog repair LOG``: see :mod:`twinlog.service.repair`."""

from __future__ import annotations

import argparse
import asyncio
import os

from twinlog.cli.exits import OK, Usage, told_in_a_line
from twinlog.cli.output import print_json
from twinlog.cli.project import keys_of_persons
from twinlog.service.logging import configure_logging
from twinlog.service.repair import Options, repair


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("log", help="the log, such as orders")
    parser.add_argument("--dry-run", action="store_true", help="only say what would be done")
    parser.add_argument("--all", action="store_true", help="list every event, not only the first 20")
    parser.add_argument(
        "--chain", action="store_true", help="make links of the chain again that are gone, and nothing else"
    )
    parser.add_argument(
        "--give-up", action="store_true", help="let go of events that neither log nor stream has"
    )
    parser.add_argument(
        "--database", default="", help="the log's database; by default it is found by the log's events"
    )
    parser.add_argument(
        "--postgres-url", default=os.environ.get("POSTGRES_URL"), help="default: POSTGRES_URL"
    )
    parser.add_argument("--nats-url", default=os.environ.get("NATS_URL"), help="default: NATS_URL")
    parser.add_argument("--json", action="store_true", help="one JSON value, for programs")


def run(options: argparse.Namespace) -> int:
    if not (options.postgres_url and options.nats_url):
        raise Usage(
            "set POSTGRES_URL and NATS_URL, or give --postgres-url and --nats-url; no `twinlog dev` runs here"
        )
    configure_logging("error", "pretty")
    keys_url, keys = keys_of_persons(options.postgres_url)
    asked = Options(
        options.log,
        options.postgres_url,
        options.nats_url,
        options.database,
        options.dry_run,
        options.give_up,
        os.environ.get("TWINLOG_NAMESPACE", ""),
        options.chain,
        options.all,
        keys if keys_url == options.postgres_url else "",
    )
    said: list[str] = []
    with told_in_a_line():
        code = asyncio.run(repair(asked, said.append if options.json else print))
    if options.json:
        told = {"log": asked.log, "dry_run": asked.dry_run, "left": code != OK, "says": said}
        print_json(told, one_line=True)
    return code
