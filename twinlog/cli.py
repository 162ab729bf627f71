"""The ``twinlog`` command. A subcommand imports what it needs when it is run: ``--version`` stays light."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

import twinlog

_MISCONFIGURED, _UNAVAILABLE = 2, 3


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command with these arguments, or the process's, and returns its exit code."""
    parser = argparse.ArgumentParser(
        "twinlog", description="The tool of Twinlog, event sourcing for Python services."
    )
    parser.add_argument("--version", action="version", version=f"twinlog {twinlog.__version__}")
    commands = parser.add_subparsers(title="commands")
    repair = commands.add_parser("repair", help="mend a log whose history is not the one in its stream")
    repair.add_argument("log", help="the log, such as orders")
    repair.add_argument("--dry-run", action="store_true", help="only say what would be done")
    repair.add_argument(
        "--give-up", action="store_true", help="let go of events that neither log nor stream has"
    )
    repair.add_argument(
        "--database", default="", help="that of the log; found by itself where the log has events"
    )
    repair.add_argument(
        "--postgres-url", default=os.environ.get("POSTGRES_URL"), help="default: POSTGRES_URL"
    )
    repair.add_argument("--nats-url", default=os.environ.get("NATS_URL"), help="default: NATS_URL")
    repair.set_defaults(run=_repair)
    options = parser.parse_args(arguments)
    if "run" not in options:
        parser.print_help()
        return 0
    return int(options.run(options))


def _repair(options: argparse.Namespace) -> int:
    import asyncio

    from twinlog.model.errors import TwinlogError, Unavailable
    from twinlog.service.logging import configure_logging
    from twinlog.service.repair import Options, repair

    if not (options.postgres_url and options.nats_url):
        print("set POSTGRES_URL and NATS_URL, or give --postgres-url and --nats-url", file=sys.stderr)
        return _MISCONFIGURED
    configure_logging("error", "pretty")
    asked = Options(
        options.log,
        options.postgres_url,
        options.nats_url,
        options.database,
        options.dry_run,
        options.give_up,
        os.environ.get("TWINLOG_NAMESPACE", ""),
    )
    try:
        return asyncio.run(repair(asked))
    except TwinlogError as error:
        print(error, file=sys.stderr)
        return _UNAVAILABLE if isinstance(error, Unavailable) else _MISCONFIGURED
