"""Runs a command that starts processes until it ends, or until a signal tells it to stop."""

from __future__ import annotations

import asyncio
import errno
import signal
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any

from twinlog.dev.process import StartFailed, kill_all
from twinlog.service.dump import Dump
from twinlog.service.runtime import heeded_signals

_REFUSED_FILES = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.ENOTDIR)
"""What the machine says of files that cannot be written, or not by this user."""
_FULL = (errno.ENOSPC, errno.EDQUOT)
_MAKE_ROOM = "; make room, then start again: df -h . /var/tmp shows where there is none"
"""/var/tmp, because root's Postgres keeps its data there, where its user may not enter the folder."""


class Told(Exception):
    """A signal has ended the command."""

    def __init__(self, signum: int) -> None:
        super().__init__(signal.Signals(signum).name)
        self.signum = signum


async def until_told(command: Coroutine[Any, Any, int]) -> int:
    """The command's exit code. A signal cancels it, which stops everything in order; the next one kills what is left.

    Prints that it stops, and that all has ended. Raises Told where a signal has ended it, and StartFailed where a file
    cannot be written. Under nohup it outlives its terminal.
    """
    loop, task = asyncio.get_running_loop(), asyncio.ensure_future(command)
    told: list[int] = []

    def on_signal(signum: int) -> None:
        told.append(signum)
        if len(told) == 1:
            task.cancel()
            _say("\nStopping …")  # after the ^C of a terminal
        else:
            kill_all()

    heeded = heeded_signals()
    for signum in heeded:
        # Not loop.add_signal_handler, which would restore a handler that ends the last Ctrl-C in a traceback.
        signal.signal(signum, lambda number, _frame: loop.call_soon_threadsafe(on_signal, number))
    try:
        with Dump().on_signal():  # asked what it does, as its services are, it goes on
            return await task
    except asyncio.CancelledError:
        if not told:
            raise
        _say("Everything has stopped.")
        raise Told(told[0]) from None
    except OSError as error:
        if error.errno not in _REFUSED_FILES:
            raise
        said = f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror)
        raise StartFailed(said + (_MAKE_ROOM if error.errno in _FULL else "")) from error
    finally:
        kill_all()
        for signum in heeded:
            signal.signal(signum, signal.SIG_IGN)


def _say(line: str) -> None:
    with suppress(OSError):  # of a terminal that is gone
        print(line, flush=True)
