"""The command line: which subcommands there are, and what their exit codes mean.

A subcommand is a module of this package with ``arguments``, which declares what it takes, and ``run``, which gives its
exit code. It is imported when it is asked for: ``--version`` stays light.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Collection, Sequence
from io import TextIOWrapper
from typing import Any

import twinlog
from twinlog.cli.exits import OK, WRONG, Failed
from twinlog.cli.project import fill_in_servers

COMMANDS = {
    "new": ("new", "make a project that runs and passes its tests"),
    "proto": ("proto", "generate the Python code of a project's protos"),
    "dev": ("dev", "run a project's services on embedded servers"),
    "console": ("console", "services, sagas, dead letters, logs and views in the browser"),
    "status": ("status", "services, logs, consumers and problems on one screen"),
    "log": ("log", "events of a log, decoded"),
    "state": ("state", "what an aggregate is, or was at any moment, and what changed"),
    "diff": ("diff", "what changed in an aggregate between two moments, and by which events"),
    "snapshots": ("snapshots", "snapshots of versions long past: list, drop, rebuild"),
    "dead-letters": ("dead_letters", "events that could not be handled: list, show, replay, discard"),
    "sagas": ("sagas", "sagas: list, show, retry, skip, abort"),
    "views": ("views", "views, and how far each is; rebuild one beside the old, compare, switch, drop"),
    "dashboards": ("dashboards", "write Grafana dashboards and Prometheus alert rules into a folder"),
    "doctor": ("doctor", "check servers and settings, and say what to do"),
    "audit": ("audit", "compare logs, streams, views, consumers and sagas, event by event"),
    "simulate": ("simulate", "run a project's services in simulated worlds in which everything goes wrong"),
    "repair": ("repair", "mend a log whose history is not the one in its stream"),
    "erasure": ("erasure", "keys of personal data: count, wrap anew, and prove that a text is nowhere"),
    "export": ("export", "write a log into a file"),
    "import": ("import_", "fill an empty log from a file"),
    "archive": ("archive", "move old events of a log into files"),
    "completion": ("completion", "what makes the shell complete this command"),
}
"""The module of each subcommand, and what it does."""

_EXITS = "exit codes: 0 fine, 1 something is wrong there, 2 usage or settings, 3 out of reach"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command with these arguments, or the process's, and returns its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    _bear_any_text()
    parser = parser_for(given[:1])
    options = parser.parse_args(given)
    if "run" not in options:
        parser.print_help()
        return OK
    try:
        fill_in_servers(options)
        return int(options.run(options))
    except Failed as failed:
        print(failed, file=sys.stderr)
        return failed.code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader of the output is gone; this keeps the interpreter from flushing to it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return WRONG


def parser_for(commands: Collection[str]) -> argparse.ArgumentParser:
    """The parser, whole for these subcommands; of others it has the names."""
    parser = argparse.ArgumentParser(
        "twinlog",
        description="The tool of Twinlog, event sourcing for Python services.",
        epilog=_EXITS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"twinlog {twinlog.__version__}")
    subparsers: Any = parser.add_subparsers(title="commands", metavar="COMMAND")
    for name, (module, help) in COMMANDS.items():
        wanted = name in commands
        subparser = subparsers.add_parser(
            name,
            help=help,
            description=f"{help[0].upper()}{help[1:]}.",
            epilog=_EXITS,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        if wanted:
            command = importlib.import_module(f"twinlog.cli.{module}")
            command.arguments(subparser)
            subparser.set_defaults(run=command.run)
    return parser


def _bear_any_text() -> None:
    """Has a terminal that lacks a character, as one that is not of UTF-8, show a question mark in its place."""
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
