"""``twinlog export LOG FILE``: see :mod:`twinlog.service.export`."""

from __future__ import annotations

import argparse

from twinlog.cli import log_files
from twinlog.cli.log_files import asked


def arguments(parser: argparse.ArgumentParser) -> None:
    log_files.arguments(parser)
    parser.add_argument(
        "--without-requests",
        action="store_true",
        help="leave out the outcomes of requests: a client that repeats one is answered anew",
    )


def run(options: argparse.Namespace) -> int:
    from twinlog.service.export import export_log

    done = log_files.done(export_log, asked(options, requests=not options.without_requests), options.json)
    return log_files.tell(done, f"Log {done.log} is in {options.file}", options.json)
