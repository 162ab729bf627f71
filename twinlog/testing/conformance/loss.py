"""How a delivery ends where something of its stream is gone, or is no event."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial

import pytest

from twinlog.log.twin import Delivery, DeliveryLost, Twin, TwinDamaged
from twinlog.log.wire import to_wire
from twinlog.testing.conformance.batches import recorded
from twinlog.testing.conformance.damage import Damage, created_again, follow, lost, take
from twinlog.testing.waiting import until

_FILTERED_OR_NOT = pytest.mark.parametrize("types", [(), ("Int64Value",)])


@asynccontextmanager
async def _under_way(
    twin: Twin, types: Sequence[str], *, published: int, taken: int
) -> AsyncIterator[Delivery]:
    """A delivery from a new stream with so many events, of which some were taken."""
    await twin.create(1)
    await twin.publish(recorded(twin.name, published))
    async with twin.deliver(0, types) as delivery:
        await take(delivery, taken)
        yield delivery


class Loss:
    @_FILTERED_OR_NOT
    async def test_the_consumer_is_deleted(self, twin: Twin, damage: Damage, types: Sequence[str]) -> None:
        async with _under_way(twin, types, published=3, taken=3) as delivery:
            await damage.delete_consumers()
            await lost(delivery, 3)

    @_FILTERED_OR_NOT
    async def test_the_stream_is_deleted(self, twin: Twin, types: Sequence[str]) -> None:
        async with _under_way(twin, types, published=3, taken=3) as delivery:
            await twin.delete()
            await lost(delivery, 3)

    @_FILTERED_OR_NOT
    async def test_the_stream_is_made_anew(self, twin: Twin, types: Sequence[str]) -> None:
        async with _under_way(twin, types, published=3, taken=2) as delivery:
            await twin.delete()
            await until(partial(created_again, twin))
            await twin.publish(recorded(twin.name, 9))
            await lost(delivery, 2)

    @_FILTERED_OR_NOT
    async def test_the_stream_is_purged_of_what_was_not_delivered_yet(
        self, twin: Twin, damage: Damage, types: Sequence[str]
    ) -> None:
        async with _under_way(twin, types, published=3000, taken=10) as delivery:
            await damage.purge()
            await twin.publish(recorded(twin.name, 1, after=3000))
            assert "gone" in await lost(delivery, 10)

    @_FILTERED_OR_NOT
    async def test_the_stream_was_purged_before(
        self, twin: Twin, damage: Damage, types: Sequence[str]
    ) -> None:
        """Nor are later events taken for the missing ones, whether they are there already or come then."""
        await twin.create(1)
        await twin.publish(recorded(twin.name, 10))
        await damage.purge()

        for _ in range(2):
            with pytest.raises(DeliveryLost, match="gone"):
                await follow(twin, 5, types)
            await twin.publish(recorded(twin.name, 1, after=(await twin.state()).last))
            await damage.purge(keep=1)

    @_FILTERED_OR_NOT
    async def test_events_are_gone_from_its_midst(
        self, twin: Twin, damage: Damage, types: Sequence[str]
    ) -> None:
        async with _under_way(twin, types, published=3000, taken=10) as delivery:
            await damage.remove(2900)
            await lost(delivery, 10)
        with pytest.raises(DeliveryLost):
            await follow(twin, 2890, types)

    @_FILTERED_OR_NOT
    async def test_the_messages_are_no_events(self, twin: Twin, damage: Damage, types: Sequence[str]) -> None:
        for foreign in (b"\xff\xff", b"", to_wire(recorded(twin.name, 1, after=8)[0])):
            await until(partial(created_again, twin))
            async with twin.deliver(0, types) as delivery:
                await damage.put("1.Int64Value.-", foreign)
                with pytest.raises(TwinDamaged, match="message 1 is not event 1"):
                    await lost(delivery, 0)
            await twin.delete()
