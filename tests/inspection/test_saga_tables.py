"""The tables of sagas, as a process describes them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from tests.inspection.conftest import inspection
from tests.memory_shop import MemoryShop
from tests.saga.tables import kind, message, step, table
from twinlog import Parallel, Step, saga_aggregate
from twinlog.rpc.saga_tables import saga_tables
from twinlog.v1 import inspection_pb2 as pb


async def test_the_credit_saga_is_told_whole(shop: MemoryShop) -> None:
    async with inspection(shop.saga_orchestrator) as stub:
        described = await stub.Describe(pb.DescribeRequest())
    [credit] = described.saga_tables
    assert (credit.saga, credit.aggregate, credit.version, credit.newest) == (
        "credit",
        "credit_saga",
        1,
        True,
    )
    assert credit.starts_with == "shop.orders.v1.OrderCreated"
    reserve, approve = credit.steps
    assert (reserve.name, reserve.kind) == ("reserve credit", pb.SAGA_STEP_KIND_COMMAND)
    assert (reserve.command, reserve.owner) == ("shop.sagas.v1.ReserveCredit", "customer_svc")
    assert reserve.refused == "shop.customers.v1.CreditReservationFailed"
    assert (reserve.undo, reserve.undone) == (
        "shop.sagas.v1.ReleaseCredit",
        "shop.customers.v1.CreditReleased",
    )
    assert reserve.deadline_from_trigger
    assert not reserve.HasField("deadline")
    assert (approve.owner, approve.can_be_undone) == ("order_svc", False)
    assert credit.on_compensated.command == "shop.sagas.v1.RejectOrder"
    assert "shop.orders.v1.OrderCancelled" in credit.interrupted_by
    assert credit.backoff.first.seconds == 5
    assert len(credit.fingerprint) == 16
    assert [(each.consumer, each.log) for each in described.consumers][:1] == [
        ("saga_orchestrator.customers", "customers")
    ]


def test_everything_that_a_step_may_say_is_told() -> None:
    steps = [
        Parallel(step(0, deadline=timedelta(seconds=4)), step(1, retries=2, transient=lambda _refusal: True)),
        Step("manager agrees", done=kind("Done", 2), when=lambda _context: True),
        Step("a while", lasts=timedelta(days=2)),
        Step("until then", lasts=lambda _trigger: datetime(2026, 1, 1, tzinfo=UTC)),
        Step("capture", send=_capture, done=kind("Done", 3), no_return=True),
    ]
    old, new = table([step(0)], version=1), table(steps, version=2, sources={"answers": [kind("Done", 2)]})
    first, second = saga_tables([saga_aggregate(new, old)])
    assert [(each.version, each.newest) for each in (first, second)] == [(1, False), (2, True)]
    zero, one, agrees, a_while, until, capture = second.steps
    assert zero.group == one.group == zero.name
    assert zero.deadline.seconds == 4
    assert (one.retries, one.some_refusals_pass, one.can_be_undone) == (2, True, True)
    assert (agrees.kind, agrees.conditional, agrees.answered_by) == (
        pb.SAGA_STEP_KIND_SIGNAL,
        True,
        "answers",
    )
    assert (a_while.kind, a_while.lasts.seconds) == (pb.SAGA_STEP_KIND_TIME, 2 * 86_400)
    assert until.lasts_from_trigger
    assert capture.no_return
    assert not capture.command  # its function does not say what it makes
    assert not capture.owner


def _capture(_context: Any) -> Any:
    return message("Send", 3)
