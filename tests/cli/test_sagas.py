"""`twinlog sagas`, on a process that serves twinlog.v1.SagaService."""

from __future__ import annotations

from tests.cli.conftest import Terminal
from tests.controls import new_id
from tests.kernel.edge import Edge, serving
from tests.saga_service.desk import Desk, desk


def at(one: Desk) -> list[str]:
    return ["--at", one.service.environment.endpoint.address]


async def test_sagas_are_listed_and_shown(twinlog: Terminal) -> None:
    saga_id = new_id()
    async with desk() as one:
        said = await twinlog("sagas", "list", *at(one))
        assert (said.code, said.out) == (0, "None.\n"), said.err
        await one.begin(saga_id, "ada")
        await one.listed()
        [saga] = (await twinlog("sagas", "list", "--json", "--subject", "ada", *at(one))).json["sagas"]
        assert (saga["saga_id"], saga["status"]) == (saga_id, "SAGA_STATUS_RUNNING")
        assert (await twinlog("sagas", "list", "--json", "--status", "completed", *at(one))).json[
            "sagas"
        ] == []
        said = await twinlog("sagas", "list", *at(one))
        assert saga_id in said.out
        assert "running" in said.out
        shown = await twinlog("sagas", "show", saga_id, *at(one))
        assert shown.code == 0, shown.err
        assert "ReserveCredit" in shown.out
        assert "customer_svc" in shown.out
        assert (await twinlog("sagas", "show", saga_id, "--json", *at(one))).json["saga_id"] == saga_id


async def test_sagas_are_brought_on(twinlog: Terminal) -> None:
    saga_id = new_id()
    async with desk() as one:
        await one.begin(saga_id)
        await one.listed()
        which = await twinlog("sagas", "retry", *at(one))
        assert (which.code, "--older-than" in which.err) == (2, True)
        counted = await twinlog(
            "sagas", "abort", "--saga", "credit", "--reason", "a test", "--dry-run", "--json", *at(one)
        )
        assert counted.json["answers"][0]["applied"] == 1, counted.err
        said = await twinlog("sagas", "retry", saga_id, *at(one))
        assert (said.code, "applied 1" in said.out) == (0, True), said.err
        said = await twinlog("sagas", "abort", saga_id, "--reason", "a test", *at(one))
        assert (said.code, "applied 1" in said.out) == (0, True), said.out
        unknown = await twinlog("sagas", "show", new_id(), *at(one))
        assert unknown.code == 2


async def test_without_sagas_it_says_so(twinlog: Terminal) -> None:
    async with serving(Edge()) as client:
        said = await twinlog("sagas", "list", "--at", client.address)
    assert (said.code, "twinlog.v1.SagaService" in said.err) == (2, True)
