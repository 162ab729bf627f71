"""The past of the shop over gRPC: orders, customers and sagas as they were, and all of them at one moment."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from shop.orders.v1.order_pb2 import ORDER_STATE_APPROVED, ORDER_STATE_PENDING
from shop.orders.v1.saga_mode_pb2 import SAGA_MODE_CHOREOGRAPHY, SAGA_MODE_ORCHESTRATION
from shop.queries.v1 import moment_query_service_pb2 as moments
from shop.queries.v1.customer_query_service_pb2 import GetCustomerRequest
from shop.queries.v1.moment_query_service_pb2_grpc import MomentQueryServiceStub
from shop.queries.v1.order_query_service_pb2 import GetOrderRequest, TimelineEntry
from shop.sagas.v1 import saga_service_pb2 as sagas
from tests.controls import new_id
from tests.e2e.client import PATIENCE, Client, refusal, refusal_of
from twinlog.v1 import history_service_pb2 as history
from twinlog.v1.history_service_pb2_grpc import HistoryServiceStub
from twinlog.v1.moment_pb2 import LogPosition, Moment
from twinlog.v1.saga_service_pb2 import SAGA_STATUS_COMPLETED, GetSagaRequest
from twinlog.v1.saga_service_pb2_grpc import SagaServiceStub as KernelSagaServiceStub

pytestmark = pytest.mark.asyncio(loop_scope="package")


async def story(client: Client, mode: Any = SAGA_MODE_ORCHESTRATION) -> tuple[str, str, list[TimelineEntry]]:
    """An approved order: its customer, itself, and its events."""
    customer = await client.customer("15")
    order = (await client.order(customer, "10", mode)).order_id
    return customer, order, await client.approved(order, mode)


def found(entries: list[TimelineEntry], kind: str) -> TimelineEntry:
    return next(entry for entry in entries if entry.type.endswith(kind))


async def get_moment(client: Client, order: str, at: Moment) -> moments.GetMomentResponse:
    async with grpc.aio.insecure_channel(client.shop.queries) as channel:
        stub: Any = MomentQueryServiceStub(channel)
        request = moments.GetMomentRequest(order_id=order, at=at)
        response: moments.GetMomentResponse = await stub.GetMoment(request, timeout=PATIENCE)
        return response


async def get_moment_if_any(
    client: Client, order: str, at: Moment, created: TimelineEntry
) -> moments.GetMomentResponse | None:
    """The moment; None where the cut of its time ends before the order.

    Services know the time as well as their stores answer in time: where the cause of an event seems to be younger than
    an order that was created after that event, the order is not in the cut of its own time.
    """
    there = not at.HasField("time") or await position_by(client, at.time) >= created.position
    try:
        return await get_moment(client, order, at)
    except grpc.aio.AioRpcError as error:
        # The cut of a time never shrinks; it grows while a clock that is behind is recorded by.
        if there or refusal_of(error).reason != "ORDER_NOT_FOUND":
            raise
        return None


async def position_by(client: Client, time: Timestamp) -> int:
    """The position of the orders' log in the cut of a time."""
    async with grpc.aio.insecure_channel(client.shop.orders) as channel:
        stub: Any = HistoryServiceStub(channel)
        given = (await stub.GetCut(history.GetCutRequest(time=time), timeout=PATIENCE)).cut
        return next(int(each.position) for each in given if each.log == "orders")


async def has_customer(client: Client, customer: str, position: int) -> bool:
    """Whether there was a customer at a position of its log."""
    if not position:
        return False
    request = GetCustomerRequest(customer_id=customer, as_of=Moment(position=position))
    try:
        await client.customer_queries.GetCustomer(request, timeout=PATIENCE)
    except grpc.aio.AioRpcError as error:
        if refusal_of(error).reason != "CUSTOMER_NOT_FOUND":
            raise
        return False
    return True


async def test_an_order_as_of_a_version_a_position_and_a_time(client: Client) -> None:
    _, order, entries = await story(client)
    created, approved = found(entries, "OrderCreated"), found(entries, "OrderApproved")
    # Two replicas may have recorded them, or one whose clock was measured anew in between.
    in_order = created.recorded_at.ToNanoseconds() < approved.recorded_at.ToNanoseconds()
    now = (await client.order_queries.GetOrder(GetOrderRequest(order_id=order))).order
    for moment, state in (
        (Moment(version=1), ORDER_STATE_PENDING),
        (Moment(version=now.version), ORDER_STATE_APPROVED),
        (Moment(position=created.position), ORDER_STATE_PENDING),
        (Moment(position=approved.position - 1), ORDER_STATE_PENDING),
        (Moment(position=approved.position), ORDER_STATE_APPROVED),
        (Moment(time=created.recorded_at), ORDER_STATE_PENDING if in_order else ORDER_STATE_APPROVED),
        (Moment(time=approved.recorded_at), ORDER_STATE_APPROVED),
    ):
        request = GetOrderRequest(order_id=order, as_of=moment)
        then = (await client.order_queries.GetOrder(request, timeout=PATIENCE)).order
        assert then.state == state, moment
        assert then == now or then.version == 1
    before = GetOrderRequest(order_id=order, as_of=Moment(time=Timestamp(seconds=1)))
    assert (await refusal(client.order_queries.GetOrder(before))).reason == "ORDER_NOT_FOUND"
    both = GetOrderRequest(order_id=order, as_of=Moment(version=-1), consistency_token="orders:1")
    assert (await refusal(client.order_queries.GetOrder(both))).fields == {
        "as_of.version",
        "consistency_token",
    }


async def test_a_customer_and_a_saga_as_of_a_moment(client: Client) -> None:
    customer, order, entries = await story(client)
    reserved = found(entries, "CreditReserved")
    for position, held in ((reserved.position - 1, 0), (reserved.position, 10)):
        request = GetCustomerRequest(customer_id=customer, as_of=Moment(position=position))
        then = (await client.customer_queries.GetCustomer(request, timeout=PATIENCE)).customer
        assert (then.name, then.credit_limit.units, then.reserved.units) == ("Ada", 15, held)
    started = found(entries, "SagaStarted")
    for moment, status in (
        (Moment(version=1), sagas.SAGA_STATUS_RUNNING),
        (Moment(position=started.position), sagas.SAGA_STATUS_RUNNING),
        (Moment(), sagas.SAGA_STATUS_COMPLETED),
    ):
        asked = sagas.GetSagaRequest(order_id=order, as_of=moment)
        assert (await client.sagas.GetSaga(asked, timeout=PATIENCE)).saga.status == status
    async with grpc.aio.insecure_channel(client.shop.sagas) as channel:
        kernel: Any = KernelSagaServiceStub(channel)
        id = (await client.saga(order)).saga_id
        for at, done in ((Moment(version=1), False), (Moment(), True)):
            shown = (await kernel.GetSaga(GetSagaRequest(saga_id=id, as_of=at), timeout=PATIENCE)).saga
            assert (shown.status == SAGA_STATUS_COMPLETED) == done
    early = sagas.GetSagaRequest(order_id=order, as_of=Moment(position=started.position - 1))
    assert (await refusal(client.sagas.GetSaga(early))).reason == "SAGA_NOT_FOUND"


@pytest.mark.parametrize("mode", [SAGA_MODE_ORCHESTRATION, SAGA_MODE_CHOREOGRAPHY])
async def test_no_effect_is_at_a_moment_without_its_cause(client: Client, mode: Any) -> None:
    """At the position of each event of the order's own log, and at the time of every event that has the order."""
    customer, order, entries = await story(client, mode)
    created = found(entries, "OrderCreated")
    asked = [Moment(time=entry.recorded_at) for entry in entries]
    asked += [Moment(position=entry.position) for entry in entries if entry.log == "orders"]
    for moment in (*asked, Moment(version=1), Moment()):
        if not (then := await get_moment_if_any(client, order, moment, created)):
            continue
        cut = {each.log: each.position for each in then.cut}
        assert {"orders", "customers", "sagas", "projector"} == cut.keys()
        if moment.position:
            assert cut["orders"] == moment.position
        shown = {f"{entry.log}/{entry.position}" for entry in then.entries}
        assert shown == {
            f"{entry.log}/{entry.position}" for entry in entries if entry.position <= cut[entry.log]
        }
        for entry in then.entries:
            assert entry.cause in shown or not entry.cause.startswith(("orders/", "customers/", "sagas/"))
        kinds = {entry.type.rpartition(".")[2] for entry in then.entries}
        if then.HasField("customer"):
            assert then.customer.customer_id == customer
        else:  # no event of the order was caused by its customer yet, whose clock may be ahead
            assert not await has_customer(client, customer, cut["customers"])
        assert then.customer.reserved.units == 10 * ("CreditReserved" in kinds)
        assert (then.order.state == ORDER_STATE_APPROVED) == ("OrderApproved" in kinds)
        assert then.HasField("saga") == ("SagaStarted" in kinds)
        assert (then.saga.status == sagas.SAGA_STATUS_COMPLETED) == ("SagaCompleted" in kinds)


@pytest.mark.parametrize("mode", [SAGA_MODE_ORCHESTRATION, SAGA_MODE_CHOREOGRAPHY])
async def test_moments_at_the_ends_of_time(client: Client, mode: Any) -> None:
    """What has not come yet is now; before the beginning is nothing; what is no moment is refused by its field."""
    customer, order, _ = await story(client, mode)
    queries, far = client.order_queries, Timestamp(seconds=253_402_300_799)
    now = (await queries.GetOrder(GetOrderRequest(order_id=order))).order
    latest = (Moment(version=2**31 - 1), Moment(position=2**63 - 1), Moment(time=far))
    for to_come in (Moment(version=now.version + 5), *latest):
        then = await queries.GetOrder(GetOrderRequest(order_id=order, as_of=to_come), timeout=PATIENCE)
        assert then.order == now
    assert (await get_moment(client, order, Moment(time=far))).order == now
    for early in (Timestamp(seconds=1), Timestamp(seconds=-62_135_596_800)):
        request = GetOrderRequest(order_id=order, as_of=Moment(time=early))
        with pytest.raises(grpc.aio.AioRpcError, match="no such order by then"):
            await queries.GetOrder(request, timeout=PATIENCE)
        of_customer = GetCustomerRequest(customer_id=customer, as_of=Moment(time=early))
        with pytest.raises(grpc.aio.AioRpcError, match="no such customer by then"):
            await client.customer_queries.GetCustomer(of_customer, timeout=PATIENCE)
        assert (await refusal(get_moment(client, order, Moment(time=early)))).reason == "ORDER_NOT_FOUND"
    for wrong, field in (
        (Moment(version=0), "version"),
        (Moment(position=-1), "position"),
        (Moment(time=Timestamp(seconds=10**15)), "time"),
        (Moment(time=Timestamp(nanos=-1)), "time"),
    ):
        for asked in (
            queries.GetOrder(GetOrderRequest(order_id=order, as_of=wrong)),
            client.customer_queries.GetCustomer(GetCustomerRequest(customer_id=customer, as_of=wrong)),
            client.sagas.GetSaga(sagas.GetSagaRequest(order_id=order, as_of=wrong)),
        ):
            assert (await refusal(asked)).fields == {f"as_of.{field}"}
        assert (await refusal(get_moment(client, order, wrong))).fields == {f"at.{field}"}


async def test_what_a_moment_cannot_be_is_said(client: Client) -> None:
    order = new_id()
    for moment, reason in (
        (Moment(version=1), "ORDER_NOT_FOUND"),
        (Moment(position=10**12), "EVENT_NOT_FOUND"),
        (Moment(), "ORDER_NOT_FOUND"),
        (Moment(position=-1), "INVALID_ARGUMENT"),
    ):
        assert (await refusal(get_moment(client, order, moment))).reason == reason


async def test_any_service_gives_a_cut(client: Client) -> None:
    await story(client)
    async with grpc.aio.insecure_channel(client.shop.sagas) as channel:
        stub: Any = HistoryServiceStub(channel)
        now = await stub.GetCut(history.GetCutRequest(), timeout=PATIENCE)
        assert [each.log for each in now.cut] == ["customers", "orders", "projector", "sagas"]
        closed = await stub.CloseCut(history.CloseCutRequest(cut=now.cut))
        assert closed.position == next(each for each in now.cut if each.log == "sagas")
        early = [LogPosition(log="sagas", position=closed.position.position), LogPosition(log="orders")]
        assert (await stub.CloseCut(history.CloseCutRequest(cut=early))).position.position == 0
        assert (await refusal(stub.CloseCut(history.CloseCutRequest()))).fields == {"cut"}
        nowhere = history.GetCutRequest(position=LogPosition(log="nowhere", position=1))
        refused = await refusal(stub.GetCut(nowhere))
        assert (refused.code, refused.reason) == (
            grpc.StatusCode.FAILED_PRECONDITION,
            "HISTORY_OUT_OF_REACH",
        )
