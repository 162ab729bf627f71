"""How far the streams of a process reach: asked once for all concerns of a scrape."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress

from twinlog.log.twin import Twin, TwinDamaged, TwinMissing, TwinState
from twinlog.model.errors import Unavailable
from twinlog.rpc.inspection import Inspected


class Streams:
    """Asks for the states of the own log's stream and of those that are followed."""

    def __init__(self, inspected: Inspected) -> None:
        self._inspected = inspected
        self._asking: asyncio.Task[Mapping[str, TwinState]] | None = None

    async def states(self) -> Mapping[str, TwinState]:
        """By log; a stream that is not to be had is left out. Callers that ask at the same time share the answer."""
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._ask())
        return await asyncio.shield(self._asking)

    async def _ask(self) -> Mapping[str, TwinState]:
        inspected = self._inspected
        twins = {each.consumer.source: each.twin for each in inspected.followed}
        twins[inspected.log.name] = inspected.twin
        states = await asyncio.gather(*(_state(twin) for twin in twins.values()))
        return {name: state for name, state in zip(twins, states, strict=True) if state is not None}


async def _state(twin: Twin) -> TwinState | None:
    with suppress(TwinMissing, TwinDamaged, Unavailable):
        return await twin.state()
    return None
