"""The exit codes of the command, and the errors that lead to them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from twinlog.model.errors import TwinlogError, Unavailable, WrongSetting

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


@contextmanager
def told_in_a_line() -> Iterator[None]:
    """Raises what the block raises of the library's errors as Usage or OutOfReach, in one line."""
    try:
        yield
    except TwinlogError as error:
        away = isinstance(error, Unavailable) and not isinstance(error, WrongSetting)
        raise (OutOfReach if away else Usage)(" ".join(str(error).split())) from error
