"""Operators' calls over gRPC: sagas and dead letters of the running shop."""

from __future__ import annotations

import grpc
import grpc.aio
import pytest
from google.protobuf.duration_pb2 import Duration

from shop.orders.v1.saga_mode_pb2 import SAGA_MODE_ORCHESTRATION
from shop.sagas.v1 import saga_service_pb2 as pb
from shop.sagas.v1.saga_service_pb2_grpc import SagaServiceStub
from tests.e2e.client import PATIENCE, Client
from tests.waiting import until
from twinlog.v1 import dead_letter_service_pb2 as letters
from twinlog.v1.dead_letter_service_pb2_grpc import DeadLetterServiceStub

pytestmark = pytest.mark.asyncio(loop_scope="package")


async def test_a_filter_selects_sagas_by_status_customer_and_age(client: Client) -> None:
    customer = await client.customer()
    order = await client.order(customer, "12", SAGA_MODE_ORCHESTRATION)
    await client.happened(order.order_id, "SagaCompleted")
    async with grpc.aio.insecure_channel(client.shop.sagas) as channel:
        sagas = SagaServiceStub(channel)
        done = pb.SagaFilter(status=pb.SAGA_STATUS_COMPLETED, customer_id=customer)

        async def selected(chosen: pb.SagaFilter) -> int:
            request = pb.RetrySagasRequest(selection=pb.SagaSelection(filter=chosen), dry_run=True)
            count: int = (await sagas.RetrySagas(request, timeout=PATIENCE)).selected
            return count

        async def listed() -> bool:
            return await selected(done) == 1

        await until(listed)
        assert await selected(pb.SagaFilter(customer_id=customer)) == 0
        done.older_than.CopyFrom(Duration(seconds=86_400))
        assert await selected(done) == 0
        ended = pb.AbortSagasRequest(selection=pb.SagaSelection(order_id=order.order_id), reason="late")
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await sagas.AbortSagas(ended, timeout=PATIENCE)
    assert refused.value.code() == grpc.StatusCode.FAILED_PRECONDITION


async def test_every_service_shows_its_dead_letters(client: Client) -> None:
    for address in (client.shop.orders, client.shop.customers, client.shop.sagas, client.shop.queries):
        async with grpc.aio.insecure_channel(address) as channel:
            ask = DeadLetterServiceStub(channel).GroupDeadLetters
            assert (await ask(letters.GroupDeadLettersRequest(), timeout=PATIENCE)).count == 0
