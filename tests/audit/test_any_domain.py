"""`twinlog audit` knows the shop from its programs alone, and finds what is no matter of orders and credit."""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from stack.topology import NAMES, ROOT
from tests import preloaded, servers
from tests.audit import faults
from tests.audit.faults import Fault
from tests.audit.test_chain import heads
from tests.audit.world import DATABASE_OF, World
from twinlog.audit import Change, Domain, Findings, chain, sagas, views
from twinlog.audit.project import open_auditor
from twinlog.cli.exits import OK, OUT_OF_REACH, USAGE, WRONG
from twinlog.dev import free_port
from twinlog.rpc import serve
from twinlog.rpc.inspection_service import InspectionService
from twinlog.rpc.registrations import registrations
from twinlog.service.process import main_of
from twinlog.v1 import inspection_pb2 as pb

pytestmark = pytest.mark.asyncio(loop_scope="package")

APPS: Mapping[str, Any] = {name: importlib.import_module(f"{name}.app") for name in NAMES}
MAINS: Mapping[str, Any] = {name: main_of(app.SPEC, app.wire) for name, app in APPS.items()}
GENERAL: list[tuple[Fault, ...]] = [
    (
        faults.an_event_is_gone,
        faults.log_head_is_set_forward,
        faults.an_event_id_stands_twice,
        faults.a_row_is_too_many,
    ),
    (
        faults.a_version_is_skipped,
        faults.a_type_is_unknown,
        faults.a_saga_row_was_edited,
        faults.an_order_row_was_edited,
    ),
    (
        faults.a_partition_key_is_another,
        faults.a_snapshot_is_another_state,
        faults.a_history_lacks_its_beginning,
        faults.a_row_is_gone,
    ),
    (
        faults.a_cause_does_not_exist,
        faults.a_checkpoint_is_beyond_its_log,
        faults.a_stream_is_of_another_installation,
        faults.a_view_went_past_a_parked_event,
    ),
    (
        faults.a_request_points_beyond_the_log,
        faults.a_database_was_set_back,
        faults.a_saga_ends_with_an_open_step,
    ),
    (faults.a_timer_is_gone, faults.a_stream_is_gone),
    (faults.a_message_was_replaced, faults.an_effect_came_before_the_replay),
    (
        faults.a_checkpoint_was_set_back,
        faults.another_event_was_parked,
        faults.a_row_shows_a_parked_event,
    ),
    (faults.a_policy_went_past_a_parked_event,),
]
"""Of each kind one at least; what these do to the shop's own accounts is beside the point.

Those that have nothing to do with each other are planted together, for one audit.
"""


@pytest.fixture(autouse=True)
def settings(shop: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of the shop's programs."""
    monkeypatch.setenv("POSTGRES_URL", shop.postgres_url)
    monkeypatch.setenv("NATS_URL", shop.nats_url)


async def test_a_clean_shop_has_no_violation_and_everything_was_compared(shop: World) -> None:
    async with open_auditor(MAINS) as auditor:
        report = await auditor.round()
    assert report.violations == []
    assert report.settled, report.in_flight
    figures = report.figures
    assert figures.checked["events"] == figures.checked["twin messages"] == sum(figures.events.values())
    assert all(figures.checked[what] for what in ("snapshots", "checkpoints", "requests"))
    assert figures.checked["view rows"] > 100
    assert set(figures.domain["sagas"]) == {"completed", "compensated"}
    assert [note for note in report.notes if "view timeline is not compared: its store has no query" in note]


async def test_nothing_is_written(shop: World) -> None:
    for name in shop.pools:
        await servers.execute(
            shop.postgres_url, f"ALTER DATABASE {name} SET default_transaction_read_only = on"
        )
    try:
        async with open_auditor(MAINS) as auditor:
            assert (await auditor.round()).clean
    finally:
        for name in shop.pools:
            await servers.execute(
                shop.postgres_url, f"ALTER DATABASE {name} RESET default_transaction_read_only"
            )


@pytest.mark.parametrize("plants", GENERAL, ids=lambda plants: plants[0].__name__)
async def test_planted_faults_are_found_and_named(shop: World, plants: Sequence[Fault]) -> None:
    planted = {plant.__name__: await plant(shop) for plant in plants}
    async with open_auditor(MAINS) as auditor:
        report = await auditor.round()
    missed = {
        fault: expected
        for fault, expected in planted.items()
        if not any(
            {*expected.names} & {*found.ids, *found.events}
            for found in report.violations
            if found.check == expected.check
        )
    }
    assert not missed, "\n".join([f"missed: {missed}", "found:", *map(str, report.violations)])
    assert all(violation.remedy and violation.says for violation in report.violations)


@pytest.mark.parametrize(
    "plant", [faults.an_order_is_pending_past_its_deadline, faults.a_saga_waits_past_its_deadline]
)
async def test_what_is_overdue_is_named_with_the_service_that_sees_to_it(shop: World, plant: Fault) -> None:
    _, names = await plant(shop)
    async with open_auditor(MAINS) as auditor:
        report = await auditor.round()
    [overdue] = [violation for violation in report.violations if violation.check == sagas.DEADLINES]
    assert overdue.ids[0].endswith(names[0])
    assert overdue.remedy.startswith(("start order_svc", "start saga_orchestrator"))
    async with open_auditor(MAINS, at_rest=True) as auditor:
        assert sagas.DEADLINES not in (await auditor.round()).counts


class Cancelled(Domain):
    """Lets no order be cancelled."""

    def take(self, change: Change, findings: Findings) -> str:
        if change.event.type.endswith("OrderCancelled"):
            findings.add("no order is cancelled", "one is", ids=[change.event.stream.id], remedy="none")
        return change.event.stream.id


async def test_a_domain_adds_what_it_knows(shop: World) -> None:
    async with open_auditor(MAINS, domain=Cancelled()) as auditor:
        report = await auditor.round()
    assert set(report.counts) == {"no order is cancelled"}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project of the shop's programs."""
    services = "".join(f'{name} = "127.0.0.1:1"\n' for name in NAMES)
    (tmp_path / "pyproject.toml").write_text(f"[tool.twinlog.services]\n{services}")
    return tmp_path


async def run(project: Path, *arguments: str, **settings: str) -> preloaded.Ran:
    """The command in a project."""
    env = os.environ | {"PYTHONPATH": str(ROOT)} | settings
    return await preloaded.run("twinlog", "audit", *arguments, env=env, cwd=project)


async def test_the_command_ends_with_0_for_a_clean_system(shop: World, project: Path) -> None:
    code, out, err = await run(project)
    assert (code, err) == (OK, "")
    assert out.splitlines()[-1].startswith("✓ no violation · settled: everything was checked")


async def test_the_command_ends_with_1_and_tells_programs_everything(shop: World, project: Path) -> None:
    _, (order_id,) = await faults.a_row_is_gone(shop)
    code, out, _ = await run(project, "--json")
    said = json.loads(out)
    assert (code, said["clean"], said["settled"]) == (WRONG, False, True)
    [violation] = said["violations"]
    assert (violation["check"], violation["ids"]) == (views.EQUAL, [order_id])
    assert violation["remedy"].startswith(
        'psql shop_views -1 -c "TRUNCATE orders; TRUNCATE timeline; DELETE FROM'
    )


async def test_the_command_ends_with_1_where_it_does_not_settle(shop: World, project: Path) -> None:
    order_id = await faults._order(shop, faults.FUTURE)
    await faults._set_timer(shop, order_id, faults.FUTURE)
    code, out, _ = await run(project, "--wait", "0.1")
    assert code == WRONG
    assert "✓ no violation · in flight, and so not judged: stream orders lags 1 events" in out
    assert (await run(project))[0] == OK


async def test_the_command_uses_what_the_project_adds(shop: World, project: Path) -> None:
    file = project / "pyproject.toml"
    module = "tests.audit.test_any_domain"
    file.write_text(f'[tool.twinlog]\naudit = "{module}:Cancelled"\n{file.read_text()}')
    code, out, err = await run(project)
    assert (code, err) == (WRONG, "")
    assert "no order is cancelled: one is" in out
    file.write_text(file.read_text().replace("Cancelled", "Nothing"))
    code, _, err = await run(project)
    assert code == USAGE
    assert f"{module}:Nothing cannot be imported: AttributeError" in err


async def test_servers_that_are_away_are_out_of_reach(shop: World, project: Path) -> None:
    nowhere = f"127.0.0.1:{free_port()}"
    code, out, err = await run(project, POSTGRES_URL=f"postgresql://{nowhere}")
    assert (code, out) == (OUT_OF_REACH, "")
    assert nowhere in err
    code, out, err = await run(project, NATS_URL=f"nats://{nowhere}")
    assert (code, out) == (OUT_OF_REACH, "")
    assert "no NATS answers at NATS_URL" in err


async def test_what_was_never_started_says_so(shop: World, project: Path, own_postgres_url: str) -> None:
    code, _, err = await run(project, POSTGRES_URL=own_postgres_url)
    assert code == USAGE
    assert err == "Cannot audit: there is no database shop_orders; order_svc makes it when it starts\n"


class Describes(InspectionService):
    """Tells where a log is, and no more."""

    def __init__(self, log: str) -> None:
        self._described = pb.DescribeResponse(
            service="a service",
            logs=[pb.LogDescription(log=log)],
            settings=[pb.Setting(name="POSTGRES_DATABASE", value=DATABASE_OF[log])],
        )

    async def Describe(self, request: pb.DescribeRequest, context: Any) -> pb.DescribeResponse:
        return self._described


async def test_chains_are_verified_by_address_in_any_folder(shop: World, tmp_path: Path) -> None:
    """As the command is that the console's log page copies."""
    [orders] = [head for head in await heads(shop) if head.log == "orders"]
    [served] = registrations(Describes("orders"))
    async with serve([served], domain="shop") as server:
        by_address = ("--chain", "--at", server.address, "--head")
        code, out, err = await run(tmp_path, *by_address, str(orders))
        assert (code, err) == (OK, "")
        assert str(orders) in "".join(out.split()).replace("·", "")
        await shop.sql(DATABASE_OF["orders"], "UPDATE events SET tag = 'x' WHERE position = 3")
        code, out, _ = await run(tmp_path, *by_address, str(orders))
        assert code == WRONG
        assert f"{chain.EVENTS}: orders/3: event 3 is not what was linked" in " ".join(out.split())
