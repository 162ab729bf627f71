"""Sagas with parallel groups and steps that wait for a person, as twinlog.v1.SagaService shows and moves them."""

from __future__ import annotations

import grpc
import grpc.aio
import pytest
from google.protobuf.wrappers_pb2 import BoolValue, Int64Value, StringValue

from shop.sagas.v1 import commands_pb2 as commands
from tests.saga_service.desk import Desk, desk
from twinlog import Begin, Parallel, Reply, Saga, Step, saga_aggregate
from twinlog.v1 import saga_service_pb2 as pb

TRIPS = saga_aggregate(
    Saga(
        "trip",
        version=1,
        starts_with=StringValue,
        steps=[
            Parallel(
                Step("hold room", send=lambda trip: commands.ApproveOrder(order_id="room"), done=Int64Value),
                Step("hold seat", send=lambda trip: commands.ApproveOrder(order_id="seat"), done=BoolValue),
            ),
            Step("agree", done=StringValue),
        ],
        partition_key=lambda trigger: str(trigger.value),
    )
)


async def begun(at: Desk) -> None:
    await at.do(TRIPS, "t", Begin(StringValue(value="ada"), at.clock.now()))


async def shown(at: Desk) -> pb.Saga:
    saga: pb.Saga = (await at.sagas.GetSaga(pb.GetSagaRequest(saga_id="t"))).saga
    return saga


async def test_each_answer_of_a_group_is_awaited_to_its_own_command() -> None:
    async with desk(TRIPS) as at:
        await begun(at)
        saga = await shown(at)
    assert [(each.step, each.address, each.owner) for each in saga.awaited] == [
        ("hold room", "sagas/2", "order_svc"),
        ("hold seat", "sagas/3", "order_svc"),
    ]
    assert [*saga.remaining] == ["hold room", "hold seat", "agree"]


async def test_of_a_group_an_order_names_the_step() -> None:
    async with desk(TRIPS) as at:
        await begun(at)
        one = pb.SagaSelection(saga_id="t")
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await at.sagas.SkipSagaSteps(pb.SkipSagaStepsRequest(selection=one, reason="by phone"))
        assert refused.value.code() == grpc.StatusCode.FAILED_PRECONDITION
        request = pb.SkipSagaStepsRequest(selection=one, reason="by phone", step="hold seat")
        assert (await at.sagas.SkipSagaSteps(request)).applied == 1
        saga = await shown(at)
    assert [each.step for each in saga.awaited] == ["hold room"]


async def test_what_waits_for_a_person_was_sent_to_nobody() -> None:
    async with desk(TRIPS) as at:
        await begun(at)
        for answer in (Int64Value(value=1), BoolValue(value=True)):
            await at.do(TRIPS, "t", Reply(answer, at.clock.now()))
        [awaited] = (await shown(at)).awaited
    assert (awaited.step, awaited.kind) == ("agree", pb.AWAITED_KIND_SIGNAL)
    assert (awaited.command, awaited.owner, awaited.progress, awaited.unknown_because) == ("", "", 0, "")
