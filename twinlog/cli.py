"""The ``twinlog`` command. A subcommand imports what it needs when it is run: ``--version`` stays light."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import twinlog


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command with these arguments, or the process's, and returns its exit code."""
    parser = argparse.ArgumentParser(
        "twinlog", description="The tool of Twinlog, event sourcing for Python services."
    )
    parser.add_argument("--version", action="version", version=f"twinlog {twinlog.__version__}")
    parser.parse_args(arguments)
    parser.print_help()
    return 0
