"""What the bench compares reads with gives the same answers as the projector."""

from __future__ import annotations

import pytest

from proof.bench import servers
from proof.bench.reads import compare, made
from shop.orders.v1.saga_mode_pb2 import SAGA_MODE_CHOREOGRAPHY, SAGA_MODE_ORCHESTRATION
from tests.e2e.client import Client

pytestmark = pytest.mark.asyncio(loop_scope="package")


async def test_the_least_program_gives_the_same_answers(client: Client) -> None:
    customer = await client.customer("100")
    chosen = await client.create(customer, "1", SAGA_MODE_CHOREOGRAPHY)
    orchestrated = await client.create(customer, "1.5", SAGA_MODE_ORCHESTRATION)
    # Nothing is under way any more: what is compared is read by one after the other.
    await client.approved(chosen.order_id, SAGA_MODE_CHOREOGRAPHY)
    await client.approved(orchestrated.order_id, SAGA_MODE_ORCHESTRATION)
    await client.reserves(customer, "2.5")
    reads = made([chosen.order_id], [orchestrated.order_id], [customer], chosen.consistency_token)
    async with servers.least(client.shop) as least:
        for read in reads:
            await compare(read, (least, servers.projector(client.shop)))
