"""What an error of the library means for the command."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from twinlog.cli.exits import OutOfReach, Usage
from twinlog.model.errors import TwinlogError, Unavailable, WrongSetting


@contextmanager
def told_in_a_line() -> Iterator[None]:
    """Raises what the block raises as Usage or OutOfReach, in one line."""
    try:
        yield
    except WrongSetting as error:
        raise Usage(_line(error)) from error
    except Unavailable as error:
        raise OutOfReach(_line(error)) from error
    except TwinlogError as error:
        raise Usage(_line(error)) from error


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
