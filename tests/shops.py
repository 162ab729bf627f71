"""The running shop, as tests have it that do not say otherwise."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from stack.shop import Shop, running
from twinlog.dev import Console

_ORDER_SECONDS = "3600"


@asynccontextmanager
async def running_shop(
    data: Path,
    say: Callable[[str], None] = lambda _line: None,
    *,
    quiet: bool = False,
    console: Console | None = None,
    metrics: str = "",
) -> AsyncIterator[Shop]:
    """The four services in processes of their own, whose orders wait for ever, as it were, for an answer.

    What they say is printed, so that a test that fails shows it.

    By default they are rejected after half a minute, for which a machine that has much to do can stand still. Tests of
    deadlines have a replica with a short one: :func:`tests.e2e.client.hurried`.
    """

    def tell(line: str) -> None:
        print(line)
        say(line)

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ORDER_DEADLINE_SECONDS", _ORDER_SECONDS)
        async with running(tell, data=data, quiet=quiet, console=console, metrics=metrics) as shop:
            yield shop
