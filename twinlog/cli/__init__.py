"""The ``twinlog`` command."""

from twinlog.cli.command import main

__all__ = ["main"]
