"""What has become of an awaited command, told by the service that owes the answer; or why that is not known."""

from __future__ import annotations

import pytest

from tests.saga_service.desk import RENEWALS, Desk, customer_svc, desk
from tests.waiting import until
from twinlog.v1 import saga_service_pb2 as pb


async def awaited(at: Desk, id: str) -> pb.AwaitedAnswer:
    """What the one saga of a process waits for, once its command is in the stream."""
    await until(lambda: at.twin.last == len(at.log.events))
    return await told(at, id)


async def told(at: Desk, id: str) -> pb.AwaitedAnswer:
    answer: pb.AwaitedAnswer
    [answer] = (await at.sagas.GetSaga(pb.GetSagaRequest(saga_id=id))).saga.awaited
    return answer


async def test_a_command_that_waits_its_turn_is_queued_and_the_lag_is_told() -> None:
    async with customer_svc() as owner, desk(services={"customer_svc": owner.address}) as at:
        await at.begin("a")
        owner.inspection.consumer.position, owner.inspection.consumer.lag = 1, 7
        owner.inspection.consumer.lag_known = True
        answer = await awaited(at, "a")
    assert (answer.progress, answer.lag, answer.lag_known) == (pb.COMMAND_PROGRESS_QUEUED, 7, True)
    assert (answer.problem, answer.unknown_because) == ("", "")


async def test_what_keeps_the_consumer_is_told() -> None:
    async with customer_svc() as owner, desk(services={"customer_svc": owner.address}) as at:
        await at.begin("a")
        owner.inspection.consumer.problem = "no leader"
        answer = await awaited(at, "a")
    assert (answer.progress, answer.problem) == (pb.COMMAND_PROGRESS_QUEUED, "no leader")


async def test_a_command_that_was_handled_is_told_from_one_that_was_not() -> None:
    async with customer_svc() as owner, desk(services={"customer_svc": owner.address}) as at:
        await at.begin("a")
        owner.inspection.consumer.position = 2
        assert (await awaited(at, "a")).progress == pb.COMMAND_PROGRESS_HANDLED


@pytest.mark.parametrize("inspected", [True, False])
async def test_a_dead_letter_is_told_with_its_error_and_one_behind_it_with_its_place(inspected: bool) -> None:
    async with (
        customer_svc(lambda command: command.customer_id != "ada", inspected=inspected) as owner,
        desk(services={"customer_svc": owner.address}) as at,
    ):
        await at.begin("a")
        await at.begin("b")
        await at.begin("c", "bob")
        await owner.take(at.log)
        owner.inspection.consumer.position = 6
        first, behind, other = [await awaited(at, id) for id in "abc"]
    assert (first.progress, first.problem) == (
        pb.COMMAND_PROGRESS_DEAD_LETTER,
        "LookupError: no such customer: ada",
    )
    assert (behind.progress, first.dead_letters) == (pb.COMMAND_PROGRESS_DEAD_LETTER, 2)
    assert "behind sagas/2" in behind.problem
    if inspected:
        assert (other.progress, other.unknown_because) == (pb.COMMAND_PROGRESS_HANDLED, "")
    else:
        assert other.progress == pb.COMMAND_PROGRESS_UNSPECIFIED
        assert "serves no twinlog.v1.InspectionService" in other.unknown_because


async def test_a_command_that_is_not_in_the_stream_yet_is_told_without_asking_anybody() -> None:
    async with desk() as at:
        await at.begin("a")
        await until(lambda: at.twin.last == len(at.log.events))
        at.twin.last = 1
        answer = await told(at, "a")
    assert (answer.progress, answer.unknown_because) == (pb.COMMAND_PROGRESS_RECORDED, "")


async def test_what_cannot_be_known_is_said_with_the_way_out() -> None:
    async with desk() as at:
        await at.begin("a")
        assert "add customer_svc=host:port" in (await awaited(at, "a")).unknown_because
    async with desk(services={"customer_svc": "127.0.0.1:1"}) as at:
        await at.begin("a")
        assert "customer_svc at 127.0.0.1:1 does not answer" in (await awaited(at, "a")).unknown_because
    async with desk(RENEWALS) as at:
        await at.renew("a")
        assert "give it the option (twinlog.v1.tagged)" in (await awaited(at, "a")).unknown_because


async def test_a_service_without_the_consumer_is_told_by_name() -> None:
    async with desk() as other:
        address = other.service.environment.endpoint.address
        async with desk(services={"customer_svc": address}) as at:
            await at.begin("a")
            answer = await awaited(at, "a")
    assert f"customer_svc at {address} has no consumer customer_svc.sagas" in answer.unknown_because
