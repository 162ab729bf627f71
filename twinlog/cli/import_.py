"""``twinlog import LOG FILE``: see :mod:`twinlog.service.export`."""

from __future__ import annotations

import argparse

from twinlog.cli import log_files
from twinlog.cli.log_files import asked


def arguments(parser: argparse.ArgumentParser) -> None:
    log_files.arguments(parser)


def run(options: argparse.Namespace) -> int:
    from twinlog.service.export import import_file

    done = log_files.done(import_file, asked(options), options.json)
    return log_files.tell(done, f"Log {done.log} is in database {done.database}", options.json)
