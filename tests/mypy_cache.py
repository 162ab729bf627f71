"""mypy over projects that tests make: they share what it found out of everything that they import.

It tells by content whether something has changed; wherever a project lies, its own modules are checked anew.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stack.topology import ROOT

_FOLDER = ROOT / ".cache" / "mypy-of-tests"


@contextmanager
def shared() -> Iterator[Path]:
    """The folder for --cache-dir, for this process alone during the block."""
    _FOLDER.mkdir(parents=True, exist_ok=True)
    with (_FOLDER / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield _FOLDER
