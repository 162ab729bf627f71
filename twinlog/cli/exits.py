"""The exit codes of the command, and the errors that lead to them."""

from __future__ import annotations

OK = 0
WRONG = 1
"""Something is wrong in the system that was asked."""
USAGE = 2
"""The command, a setting or a project's file is wrong."""
OUT_OF_REACH = 3
"""A server does not answer."""


class Failed(Exception):
    """Ends the command: the text goes to stderr."""

    code = WRONG


class Usage(Failed):
    """The caller of the command can put it right."""

    code = USAGE


class OutOfReach(Failed):
    """A server does not answer."""

    code = OUT_OF_REACH
