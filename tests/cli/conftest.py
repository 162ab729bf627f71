"""The shop in memory, each of its services on a real server, and the command that asks them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from tests.memory_shop import MemoryShop, Node
from twinlog.cli import main, servers
from twinlog.rpc import PageTokens, serve
from twinlog.rpc.dead_letter_service import DeadLetterService
from twinlog.rpc.history_service import HistoryService
from twinlog.rpc.inspection_service import InspectionService
from twinlog.rpc.registrations import registrations
from twinlog.rpc.snapshot_service import SnapshotService


@dataclass(frozen=True)
class Said:
    """What the command printed, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one value that it printed."""
        return json.loads(self.out)

    @property
    def lines(self) -> list[Any]:
        """The values that it printed, one a line."""
        return [json.loads(line) for line in self.out.splitlines()]


class Terminal:
    """Runs the command as a user does, beside the servers that it asks."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    async def __call__(self, *arguments: str) -> Said:
        self._capsys.readouterr()
        try:
            code = await asyncio.to_thread(main, arguments)
        except SystemExit as error:  # argparse
            code = int(error.code or 0)
        said = self._capsys.readouterr()
        return Said(code, said.out, said.err)


@dataclass(frozen=True)
class Served:
    """A shop in memory, and where its services answer."""

    shop: MemoryShop
    addresses: dict[str, str]

    def at(self, *services: str) -> list[str]:
        """The options that name these services, or all."""
        return [word for name in services or self.addresses for word in ("--at", self.addresses[name])]


@pytest.fixture
def twinlog(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Terminal:
    """The command, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TWINLOG_ADDRESSES", raising=False)
    # The servers that it asks share a machine that may have much to do, and this process.
    monkeypatch.setattr(servers, "ANSWER_SECONDS", 60.0)
    return Terminal(capsys)


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    with capture_logs():  # what the shop says in between is not said by the command
        async with MemoryShop() as shop, AsyncExitStack() as stack:
            yield await _served(shop, stack)


async def _served(shop: MemoryShop, stack: AsyncExitStack) -> Served:
    addresses = {}
    for node in shop.nodes:
        server = await stack.enter_async_context(_serving(node))
        addresses[node.name] = server.address
    return Served(shop, addresses)


def _serving(node: Node) -> Any:
    node.inspected.parts = node.watched
    return serve(
        [
            *registrations(InspectionService(node.inspected)),
            *registrations(DeadLetterService(node.dead_letters, PageTokens(b"key"))),
            *registrations(SnapshotService(node.inspected, PageTokens(b"key"))),
            *registrations(HistoryService(node.log, node.peers)),
        ],
        domain="shop",
    )
