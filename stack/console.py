"""What the commands print: at most 100 columns, with color on a terminal only."""

from __future__ import annotations

import sys

from rich.console import Console

WIDTH = 100

if hasattr(sys.stdout, "reconfigure"):
    sys.stdout.reconfigure(errors="replace")  # a terminal without arrows and ticks


class _Console(Console):
    def on_broken_pipe(self) -> None:
        raise


console = _Console(highlight=False, soft_wrap=True)


def say(text: str = "") -> None:
    """Prints a line, with rich's markup."""
    console.print(text)
    console.file.flush()


def fail(error: BaseException | str, code: int) -> int:
    """Prints an error on stderr; returns ``code``."""
    Console(stderr=True, highlight=False, soft_wrap=True, style="red").print(str(error), markup=False)
    return code
