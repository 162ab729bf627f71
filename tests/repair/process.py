"""``twinlog repair``, killed right before the step that is named; it ends with its exit code.

Usage: ``python -m tests.repair.process <options of the repair as JSON> <file with the number of the step>``.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import asyncpg
from asyncpg.transaction import Transaction

from tests.forks import forking
from twinlog.jetstream.twin import JetStreamTwin
from twinlog.postgres import repair as postgres
from twinlog.postgres.named_queries import QUERIES
from twinlog.service.repair import Options, repair

STEPS: Sequence[tuple[Any, str]] = (
    (asyncpg.Connection, "execute"),
    (asyncpg.Connection, "copy_records_to_table"),
    (Transaction, "_Transaction__commit"),  # what both ``commit`` and the end of a block call
    (postgres, "set_back"),
    (JetStreamTwin, "delete"),
)
"""What changes something."""
_OWN = {QUERIES[name] for name in QUERIES if name.startswith("repair_")} | {
    QUERIES[name] for name in ("place_head", "note_lacking", "begin_chain", "note_unlinked", "seal_events")
}
"""Statements of repairs; others are executed to find out, or to make the tables of other databases."""


def killed_before(step: int) -> None:
    """Kills this process right before its step of that number."""
    taken = 0

    def counting(original: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def taking(*arguments: Any, **options: Any) -> Any:
            nonlocal taken
            if original is not execute or arguments[1] in _OWN:
                taken += 1
            if taken == step:
                os.kill(os.getpid(), signal.SIGKILL)
            return await original(*arguments, **options)

        return taking

    execute = asyncpg.Connection.execute
    for owner, name in STEPS:
        setattr(owner, name, counting(getattr(owner, name)))


def main(options: str, file: str) -> None:
    asked = Options(**json.loads(options))
    killed_before(int(Path(file).read_text()))
    os._exit(asyncio.run(repair(asked, lambda _line: None)))


if __name__ == "__main__":
    forking(lambda: main(*sys.argv[1:]))
