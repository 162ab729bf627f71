"""At most one stack per checkout, and .data/stack.json, by which other tools find it."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

import psutil

from stack.shop import Shop, end_leftovers
from stack.topology import NAMESPACE, ROOT
from twinlog.dev import locked

_FOLDERS = ("demo", "run")


@dataclass(frozen=True)
class Running:
    """Where a running stack is. Its fields have the names of the settings that point a process at it."""

    pid: int
    """The supervisor's."""
    postgres_url: str
    nats_url: str
    twinlog_namespace: str
    orders_address: str
    customers_address: str
    sagas_address: str
    queries_address: str

    @classmethod
    def of(cls, shop: Shop) -> Self:
        """The stack of this process."""
        return cls(
            os.getpid(),
            shop.postgres_url,
            shop.nats_url,
            NAMESPACE,
            shop.orders,
            shop.customers,
            shop.sagas,
            shop.queries,
        )

    @classmethod
    def read(cls, data: Path = ROOT / ".data") -> Self | None:
        """The stack that runs in this checkout, or None. A killed one leaves its file behind."""
        try:
            stack = cls(**json.loads((data / "stack.json").read_text()))
        except FileNotFoundError:
            return None
        return stack if psutil.pid_exists(stack.pid) else None


@asynccontextmanager
async def only_one(data: Path, command: str) -> AsyncIterator[Callable[[Running], None]]:
    """Refuses a second stack in this checkout, and ends what a killed one left in ``data``.

    Yields the function that writes stack.json, which is removed when the block ends. Raises Misconfigured where a
    stack runs already.
    """
    with (
        locked(ROOT, data / "stack.pid"),
        _file(data / "stack.json") as attach,
        _file(data / "stack.pid") as pid,
    ):
        pid(f"pid {os.getpid()} ({command})")
        for folder in _FOLDERS:
            end_leftovers(data / folder)
        yield lambda stack: attach(json.dumps(asdict(stack), indent=2))


@contextmanager
def _file(path: Path) -> Iterator[Callable[[str], None]]:
    """Yields the function that writes a file, private since URLs may hold passwords; the file lasts for the block."""

    def write(text: str) -> None:
        path.parent.mkdir(exist_ok=True)
        new = path.with_suffix(".new")
        new.touch(0o600)
        new.write_text(f"{text}\n")
        new.replace(path)

    path.unlink(missing_ok=True)
    try:
        yield write
    finally:
        path.unlink(missing_ok=True)
