"""What the database cannot take, of one unit among many that are committed together: that unit fails, and no other."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from tests.kernel.counter import COUNTER
from tests.kernel.test_writer import add, writing
from twinlog import Metadata, Transaction, TwinlogError
from twinlog.testing.internals import CheckpointAdvance, PostgresLog

Work = Callable[[Transaction], Any]

WORKS: dict[str, tuple[Work, dict[str, Any]]] = {
    "an id that is no text, read": (lambda tx: tx.state(COUNTER, "a\0b"), {}),
    "an id that is no text, written": (add(1, "\ud800"), {"assume_empty": [(COUNTER, "\ud800")]}),
    "an id that no index takes": (add(1, "".join(map(chr, range(0x4E00, 0x9000)))), {}),
    "metadata that is no text": (add(1, "odd"), {"metadata": Metadata(actor="a\0b")}),
    "a checkpoint beyond all positions": (
        add(1, "odd"),
        {"advance": CheckpointAdvance("consumer", 0, 2**63)},
    ),
}


@pytest.mark.parametrize(("work", "options"), WORKS.values(), ids=WORKS)
async def test_one_unit_fails_and_the_others_are_committed(
    postgres_log: PostgresLog, work: Work, options: dict[str, Any]
) -> None:
    async with asyncio.timeout(60), writing(postgres_log) as writer:
        sound = [asyncio.create_task(writer.execute(add(1, str(number % 7)))) for number in range(20)]
        odd = asyncio.create_task(writer.execute(work, **options))
        sound += [asyncio.create_task(writer.execute(add(1, str(number % 7)))) for number in range(20)]
        failed = (await asyncio.gather(odd, return_exceptions=True))[0]
        positions = [outcome.position for outcome in await asyncio.gather(*sound)]
        assert isinstance(failed, Exception)
        assert not isinstance(failed, TwinlogError)
        assert sorted(positions) == list(range(1, 41)), "each is committed once"
        assert writer.problem is None
        await writer.execute(add(1, "odd"))
    assert len(await postgres_log.read(0, 100)) == 41
