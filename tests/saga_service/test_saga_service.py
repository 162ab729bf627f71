"""twinlog.v1.SagaService as operators call it: lists, one saga, and what may be ordered."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.duration_pb2 import Duration

from saga_orchestrator.credit_saga import CREDIT_SAGAS
from tests.controls import new_id
from tests.kernel.edge import rich
from tests.saga_service.desk import RENEWALS, Desk, desk
from twinlog import Abort
from twinlog.testing import START
from twinlog.v1 import saga_service_pb2 as pb


async def listed(at: Desk, page_size: int = 0, **filters: Any) -> list[str]:
    await at.listed()
    request = pb.ListSagasRequest(filter=pb.SagaFilter(**filters), page_size=page_size)
    return [saga.saga_id for saga in (await at.sagas.ListSagas(request)).sagas]


async def one(at: Desk, id: str, saga: str = "") -> pb.Saga:
    found: pb.Saga = (await at.sagas.GetSaga(pb.GetSagaRequest(saga_id=id, saga=saga))).saga
    return found


async def refused(call: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await call
    return error.value


async def test_lists_by_state_age_and_subject_newest_first() -> None:
    async with desk() as at:
        await at.begin("a")
        await at.begin("b", "bob")
        at.clock.advance(timedelta(minutes=10))
        await at.begin("c")
        await at.complete("b")
        await at.do(CREDIT_SAGAS, "a", Abort("a typo", at.clock.now()))
        assert await listed(at) == ["c", "b", "a"]
        assert await listed(at, status=pb.SAGA_STATUS_RUNNING) == ["c"]
        assert await listed(at, status=pb.SAGA_STATUS_COMPLETED) == ["b"]
        assert await listed(at, subject="ada") == ["c", "a"]
        assert await listed(at, older_than=Duration(seconds=600)) == ["b", "a"]
        assert await listed(at, saga="credit", subject="ada", older_than=Duration(seconds=1)) == ["a"]
        request = pb.ListSagasRequest(filter=pb.SagaFilter(status=pb.SAGA_STATUS_COMPENSATING))
        [saga] = (await at.sagas.ListSagas(request)).sagas
    assert (saga.saga, saga.subject, saga.version, saga.reason) == ("credit", "ada", 1, "a typo")
    assert saga.started_at.ToDatetime() == START.replace(tzinfo=None)
    assert not saga.steps


async def test_lists_those_under_way_oldest_first_and_counts_all() -> None:
    async with desk() as at:
        for id in "abcd":
            await at.begin(id)
        await at.complete("b")
        await at.do(CREDIT_SAGAS, "c", Abort("a typo", at.clock.now()))
        await at.listed()
        request = pb.ListSagasRequest(oldest_first=True, not_ended=True, page_size=2)
        first = await at.sagas.ListSagas(request)
        assert [saga.saga_id for saga in first.sagas] == ["a", "c"]
        request.page_token = first.next_page_token
        assert [saga.saga_id for saga in (await at.sagas.ListSagas(request)).sagas] == ["d"]
        request.oldest_first = False
        error = await refused(at.sagas.ListSagas(request))
        assert "page_token" in str(rich(error).details)
        counted = (await at.sagas.CountSagas(pb.CountSagasRequest())).counts
        assert {pb.SagaStatus.Name(each.status): each.count for each in counted if each.count} == {
            "SAGA_STATUS_RUNNING": 2,
            "SAGA_STATUS_COMPLETED": 1,
            "SAGA_STATUS_COMPENSATING": 1,
        }
        filter = pb.SagaFilter(subject="nobody")
        counted = (await at.sagas.CountSagas(pb.CountSagasRequest(filter=filter))).counts
        assert not any(each.count for each in counted)


async def test_lists_in_pages_whose_tokens_belong_to_their_filter() -> None:
    async with desk() as at:
        for id in "abcde":
            await at.begin(id)
        await at.listed()
        found, token = list[str](), ""
        while True:
            page = await at.sagas.ListSagas(pb.ListSagasRequest(page_size=2, page_token=token))
            found += [saga.saga_id for saga in page.sagas]
            token = page.next_page_token
            if not token:
                break
            other = pb.ListSagasRequest(filter=pb.SagaFilter(subject="bob"), page_token=token)
            assert (await refused(at.sagas.ListSagas(other))).code() == grpc.StatusCode.INVALID_ARGUMENT
    assert found == [*"edcba"]


async def test_shows_steps_tries_deadlines_and_what_remains() -> None:
    async with desk() as at:
        await at.begin("a")
        saga = await one(at, "a")
        assert (saga.status, [step.status for step in saga.steps]) == (
            pb.SAGA_STATUS_RUNNING,
            [pb.SAGA_STEP_STATUS_RUNNING, pb.SAGA_STEP_STATUS_WAITING],
        )
        assert (saga.steps[0].attempts, saga.steps[1].attempts, [*saga.remaining]) == (
            1,
            0,
            ["reserve credit", "approve order"],
        )
        assert saga.steps[0].deadline.ToDatetime() == (START + timedelta(hours=1)).replace(tzinfo=None)
        assert not saga.steps[0].HasField("next_retry"), "the step has no retries"
        [awaited] = saga.awaited
        assert (awaited.step, awaited.kind, awaited.command, awaited.address) == (
            "reserve credit",
            pb.AWAITED_KIND_REPLY,
            "shop.sagas.v1.ReserveCredit",
            "sagas/2",
        )
        assert (awaited.owner, awaited.consumer) == ("customer_svc", "customer_svc.sagas")
        assert [*awaited.answers] == [
            "shop.customers.v1.CreditReserved",
            "shop.customers.v1.CreditReservationFailed",
        ]
        await at.do(CREDIT_SAGAS, "a", Abort("a typo", at.clock.now()))
        saga = await one(at, "a")
        assert (saga.status, saga.reason, [*saga.remaining]) == (
            pb.SAGA_STATUS_COMPENSATING,
            "a typo",
            ["undo: reserve credit", "reject order"],
        )
        assert saga.steps[0].HasField("next_retry"), "compensations are sent again without limit"
        assert (saga.awaited[0].kind, saga.awaited[0].command) == (
            pb.AWAITED_KIND_UNDOING,
            "shop.sagas.v1.ReleaseCredit",
        )
        await at.released("a")
        saga = await one(at, "a")
        assert (saga.awaited[0].step, saga.awaited[0].kind, [*saga.remaining]) == (
            "reject order",
            pb.AWAITED_KIND_CLOSING,
            ["reject order"],
        )
        await at.begin("b")
        await at.complete("b")
        saga = await one(at, "b")
    assert (saga.status, [*saga.awaited], [*saga.remaining]) == (pb.SAGA_STATUS_COMPLETED, [], [])


async def test_a_process_with_several_sagas_is_told_which() -> None:
    async with desk(CREDIT_SAGAS, RENEWALS) as at:
        await at.begin("a")
        await at.renew("a")
        assert (await one(at, "a", "renewal")).version == 3
        assert await listed(at, saga="renewal") == ["a"]
        assert await listed(at) == ["a", "a"]
        error = await refused(at.sagas.GetSaga(pb.GetSagaRequest(saga_id="a")))
        assert "give one of credit, renewal" in rich(error).message
        error = await refused(at.sagas.ListSagas(pb.ListSagasRequest(filter=pb.SagaFilter(saga="trip"))))
        assert "filter.saga" in (error.details() or "")
        renewal = await one(at, "a", "renewal")
        assert renewal.steps[0].HasField("next_retry"), "its first try is followed by another"
        selection = pb.SagaSelection(filter=pb.SagaFilter())
        done = await at.sagas.RetrySagas(pb.RetrySagasRequest(selection=selection))
    assert [(outcome.saga, outcome.problem) for outcome in done.outcomes] == [("credit", ""), ("renewal", "")]


async def test_retries_skips_and_aborts_one_with_its_reason_and_operator() -> None:
    async with desk() as at:
        for id in "abc":
            await at.begin(id)
        operator = (("x-actor", "eve"),)
        for id, call, request in (
            ("a", at.sagas.RetrySagas, pb.RetrySagasRequest),
            ("b", at.sagas.SkipSagaSteps, pb.SkipSagaStepsRequest),
            ("c", at.sagas.AbortSagas, pb.AbortSagasRequest),
        ):
            selection = pb.SagaSelection(saga_id=id)
            done = await call(request(selection=selection, reason="a typo"), metadata=operator)
            assert (done.selected, done.applied, done.outcomes[0].problem) == (1, 1, "")
            recorded = next(e for e in reversed(at.log.events) if e.type.startswith("twinlog.v1.Saga"))
            assert (recorded.stream.id, recorded.metadata.actor) == (id, "eve")
            assert b"a typo" in recorded.payload
        assert [(await one(at, id)).status for id in "abc"] == [
            pb.SAGA_STATUS_RUNNING,
            pb.SAGA_STATUS_RUNNING,
            pb.SAGA_STATUS_COMPENSATING,
        ]
        assert (await one(at, "b")).steps[0].status == pb.SAGA_STEP_STATUS_SKIPPED


async def test_a_filter_takes_the_oldest_up_to_the_limit_and_says_what_was_in_the_way() -> None:
    async with desk() as at:
        for id in "abcd":
            await at.begin(id)
        await at.reserved("b")  # what may have happened then cannot be undone
        await at.complete("d")
        await at.listed()
        selection = pb.SagaSelection(filter=pb.SagaFilter(subject="ada"))
        request = pb.AbortSagasRequest(selection=selection, reason="a recall", limit=2, dry_run=True)
        before = len(at.log.events)
        planned = await at.sagas.AbortSagas(request)
        assert len(at.log.events) == before
        request.dry_run = False
        done = await at.sagas.AbortSagas(request)
        assert (done.selected, done.applied) == (planned.selected, planned.applied) == (3, 1)
        assert [*done.outcomes] == [*planned.outcomes]
    assert [outcome.saga_id for outcome in done.outcomes] == ["a", "b"]
    assert "cannot be undone" in done.outcomes[1].problem


async def test_a_request_id_gets_the_first_answer_and_a_dry_run_uses_none_up() -> None:
    async with desk() as at:
        await at.begin("a")
        request = pb.AbortSagasRequest(
            request_id=new_id(), selection=pb.SagaSelection(saga_id="a"), reason="a typo", dry_run=True
        )
        assert (await at.sagas.AbortSagas(request)).applied == 1
        request.request_id, request.dry_run = new_id(), False
        first = await at.sagas.AbortSagas(request)
        assert await at.sagas.AbortSagas(request) == first
        again = pb.AbortSagasRequest(selection=request.selection, reason="a typo")
        assert (await refused(at.sagas.AbortSagas(again))).code() == grpc.StatusCode.FAILED_PRECONDITION


@pytest.mark.parametrize("by", ["saga_id", "subject"])
async def test_a_request_id_gets_the_first_answer_in_whatever_letter_case_ids_are(by: str) -> None:
    async with desk() as at:
        id, subject = new_id(), new_id()
        await at.begin(id, subject)
        await at.listed()

        async def abort(spelled: Callable[[str], str]) -> pb.AbortSagasResponse:
            chosen = pb.SagaSelection(saga_id=spelled(id))
            if by == "subject":
                chosen = pb.SagaSelection(filter=pb.SagaFilter(subject=spelled(subject)))
            request = pb.AbortSagasRequest(request_id=spelled(request_id), selection=chosen, reason="a typo")
            response: pb.AbortSagasResponse = await at.sagas.AbortSagas(request)
            return response

        request_id = new_id()
        first = await abort(str.upper)
        assert first.applied == 1
        assert await abort(str.lower) == first == await abort(str.upper)


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (pb.AbortSagasRequest(reason="x"), "selection"),
        (pb.AbortSagasRequest(selection=pb.SagaSelection(saga_id="a")), "reason"),
        (
            pb.AbortSagasRequest(selection=pb.SagaSelection(saga="trip", saga_id="a"), reason="x"),
            "selection.saga",
        ),
        (pb.AbortSagasRequest(selection=pb.SagaSelection(saga_id="a"), reason="x", limit=9999), "limit"),
        (
            pb.AbortSagasRequest(
                selection=pb.SagaSelection(filter=pb.SagaFilter(status=99)),  # type: ignore[arg-type]
                reason="x",
            ),
            "selection.filter.status",
        ),
    ],
)
async def test_a_wrong_request_is_refused_by_field(request_: pb.AbortSagasRequest, field: str) -> None:
    async with desk() as at:
        error = await refused(at.sagas.AbortSagas(request_))
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert field in (error.details() or "")


async def test_a_saga_that_is_not_there_is_not_found() -> None:
    async with desk() as at:
        for call in (
            at.sagas.GetSaga(pb.GetSagaRequest(saga_id="nobody")),
            at.sagas.RetrySagas(pb.RetrySagasRequest(selection=pb.SagaSelection(saga_id="nobody"))),
        ):
            error = await refused(call)
            assert (error.code(), rich(error).code) == (grpc.StatusCode.NOT_FOUND, 5)
