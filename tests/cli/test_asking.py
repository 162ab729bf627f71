"""The commands that ask running services."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from tests.cli.conftest import Served, Terminal
from tests.inspection.conftest import customer, order
from tests.kernel.edge import Edge, serving
from twinlog.cli.status import screen
from twinlog.cli.values import moment, since
from twinlog.consume.dead_letters import Failure
from twinlog.dev import free_port


async def test_status_shows_services_logs_consumers_and_that_all_is_well(
    twinlog: Terminal, served: Served
) -> None:
    await order(served.shop, await customer(served.shop))
    await served.shop.settle()
    said = await twinlog("status", *served.at())
    assert said.code == 0, said.out + said.err
    for word in ("order_svc", "customers", "projector.orders", "All is well."):
        assert word in said.out
    found = (await twinlog("status", "--json", *served.at())).json
    assert [service["service"] for service in found["services"]] == list(served.addresses)
    assert found["services"][0]["logs"][0]["head"] > 0
    assert {each["lag"] for service in found["services"] for each in service["consumers"]} == {0}


async def test_status_of_one_that_is_away_is_out_of_reach(twinlog: Terminal, served: Served) -> None:
    nobody = f"127.0.0.1:{free_port()}"
    said = await twinlog("status", "--json", *served.at("order_svc"), "--at", nobody)
    assert said.code == 3
    assert [service["service"] for service in said.json["services"]] == ["order_svc"]
    assert nobody in said.json["failures"][0]["problem"]


async def test_status_names_what_is_wrong(twinlog: Terminal, served: Served) -> None:
    class Broken:
        problem = "the \x1b[31mdisk[/] is full"

    served.shop.order_svc.signals["disk"] = Broken()
    said = await twinlog("status", *served.at("order_svc"))
    assert said.code == 1
    assert "order_svc" in said.out
    assert r"(disk): the \x1b[31mdisk[/] is full" in said.out


async def test_without_an_address_it_says_how_to_give_one(twinlog: Terminal) -> None:
    said = await twinlog("status")
    assert said.code == 2
    assert "--at HOST:PORT" in said.err
    for address in ("nowhere", "127.0.0.1:0", "127.0.0.1:99999"):
        said = await twinlog("status", "--at", address)
        assert (said.code, f"{address} is no address" in said.err) == (2, True)


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "inf", "soon"])
async def test_a_timeout_that_nobody_could_keep_is_refused(twinlog: Terminal, seconds: str) -> None:
    said = await twinlog("status", "--at", "127.0.0.1:1", f"--timeout={seconds}")
    assert (said.code, f"'{seconds}' must be a number of seconds above 0" in said.err) == (2, True)


@pytest.mark.parametrize("given", [["log", "--after=-1"], ["log", f"--upto={2**63}"], ["log", f"-n{2**31}"]])
async def test_a_number_that_no_request_holds_is_refused(twinlog: Terminal, given: list[str]) -> None:
    said = await twinlog(*given, "--at", "127.0.0.1:1")
    assert (said.code, "must be a whole number from " in said.err) == (2, True)


def write_project(address: str) -> None:
    Path("pyproject.toml").write_text(f'[tool.twinlog.services]\norder_svc = "{address}"\n')


@pytest.mark.parametrize("place", ["environment", "project"])
async def test_addresses_come_from(
    twinlog: Terminal, served: Served, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = served.addresses["order_svc"]
    if place == "environment":
        monkeypatch.setenv("TWINLOG_ADDRESSES", address)
    else:
        write_project(address)
    said = await twinlog("status", "--json")
    assert (said.code, said.json["services"][0]["address"]) == (0, address)


async def test_the_log_is_told_by_its_name(twinlog: Terminal, served: Served) -> None:
    order_id = await order(served.shop, await customer(served.shop), 7)
    await served.shop.settle()
    said = await twinlog("log", "orders", *served.at())
    assert said.code == 0, said.err
    assert "orders/1" in said.out
    assert "OrderCreated" in said.out
    assert '"units": "7"' in said.out
    events = (await twinlog("log", "orders", "--json", "--stream", f"order/{order_id}", *served.at())).lines
    assert [event["version"] for event in events] == [*range(1, len(events) + 1)]
    assert events[0]["position"] == 1
    asked = await twinlog("log", *served.at())
    assert (asked.code, asked.err.split()[:2]) == (2, ["which", "log?"])
    asked = await twinlog("log", "nobody", *served.at())
    assert (asked.code, "customers" in asked.err) == (2, True)


async def test_a_range_of_the_log_is_as_long_as_it_takes(twinlog: Terminal, served: Served) -> None:
    customer_id = await customer(served.shop)
    for _ in range(30):
        await order(served.shop, customer_id)
    await served.shop.settle()
    last = len(served.shop.logs["orders"].events)
    one = served.at("order_svc")
    everything = (await twinlog("log", "--json", "--after", "0", *one)).lines
    assert [event["position"] for event in everything] == [*range(1, last + 1)]
    newest = (await twinlog("log", "--json", "-n", "3", *one)).lines
    assert newest == everything[-3:]
    approved = (await twinlog("log", "--json", "--after", "0", "--type", "OrderApproved", *one)).lines
    assert approved == [event for event in everything if event["type"].endswith("Approved")]


async def test_views_say_how_far_they_are(twinlog: Terminal, served: Served) -> None:
    await order(served.shop, await customer(served.shop))
    await served.shop.settle()
    said = await twinlog("views", "--json", *served.at())
    assert said.code == 0
    by_name = {view["view"]: view for view in said.json["views"]}
    assert [each["lag"] for each in by_name["orders"]["consumers"]] == [0]
    assert len(by_name["timeline"]["consumers"]) == 3
    assert "timeline" in (await twinlog("views", *served.at())).out


async def test_dead_letters_are_listed_shown_replayed_and_discarded(
    twinlog: Terminal, served: Served
) -> None:
    shop = served.shop
    handler = shop.customer_svc.dead_letters.consumers["customer_svc.orders"]
    order_id = await order(shop, await customer(shop))
    await shop.settle()
    said = await twinlog("dead-letters", "list", *served.at())
    assert (said.code, said.out) == (0, "None.\n")

    event = shop.logs["orders"].events[0]
    with pytest.raises(RuntimeError) as broke:
        raise RuntimeError("broke")
    failure = Failure.of(broke.value, 1)._replace(error_type="Broken", error="it [broke]")
    await handler.dead_letter(event, failure, await handler.stored(), broke.value)
    listed = await twinlog("dead-letters", "list", "--json", *served.at())
    assert listed.code == 1
    [letter] = listed.json["dead_letters"]
    assert (letter["address"], letter["error_type"]) == ("orders/1", "Broken")
    assert "it [broke]" in (await twinlog("dead-letters", "list", *served.at())).out

    shown = await twinlog("dead-letters", "show", "orders/1", *served.at())
    assert shown.code == 0, shown.err
    assert order_id in shown.out
    assert "RuntimeError: broke" in shown.out.splitlines()  # a traceback has lines

    nothing = await twinlog("dead-letters", "replay", *served.at())
    assert (nothing.code, "--all" in nothing.err) == (2, True)
    counted = await twinlog(
        "dead-letters", "replay", "--all", "--dry-run", "--json", *served.at("customer_svc")
    )
    assert counted.json["answers"][0]["selected"] == 1
    replayed = await twinlog("dead-letters", "replay", "orders/1", *served.at())
    assert (replayed.code, "orders/1 handled" in replayed.out) == (0, True), replayed.err

    await handler.dead_letter(event, Failure("Broken", "again", 1), await handler.stored())
    given_up = await twinlog(
        "dead-letters",
        "discard",
        "--error",
        "Broken",
        "--reason",
        "a test",
        "--consumer",
        handler.name,
        *served.at(),
    )
    assert (given_up.code, "discarded 1" in given_up.out) == (0, True), given_up.err
    assert (await twinlog("dead-letters", "list", *served.at())).code == 0


async def test_an_old_service_is_told_apart_from_one_that_is_away(twinlog: Terminal) -> None:
    async with serving(Edge()) as client:
        said = await twinlog("status", "--at", client.address)
    assert said.code == 1
    assert "of this version?" in said.out


def test_times_are_read() -> None:
    now = datetime(2026, 1, 2, tzinfo=UTC)
    assert moment("90s", now) == now - timedelta(seconds=90)
    assert moment("2d", now) == now - timedelta(days=2)
    assert moment("2026-01-02") == now
    assert moment("2026-01-02T01:00:00+01:00") == now
    with pytest.raises(argparse.ArgumentTypeError, match="10m"):
        moment("yesterday")
    assert [since(seconds) for seconds in (5, 65, 7300, 90_000)] == ["5s", "1m", "2h", "1d"]


def test_what_two_parts_of_a_service_tell_alike_stands_there_once() -> None:
    problem = {"signal": "", "problem": "Log orders and its stream tell two histories"}
    service = {
        "service": "order_svc",
        "address": "127.0.0.1:1",
        "twinlog_version": "0.1.0",
        "started_at": "2030-01-01T00:00:00Z",
        "logs": [],
        "consumers": [],
        "problems": [problem, problem],
    }
    shown = Console(width=200, record=True, file=StringIO())
    shown.print(screen({"services": [service], "failures": []}))
    assert shown.export_text().count(problem["problem"]) == 1


async def test_an_event_is_traced_over_all_logs(twinlog: Terminal, served: Served) -> None:
    await order(served.shop, await customer(served.shop))
    await served.shop.settle()
    said = await twinlog("log", "--trace", "orders/2", "--json", *served.at())
    assert said.code == 0, said.err
    assert [each["type"].rpartition(".")[2] for each in said.json["causes"]] == [
        "CreditReserved",
        "OrderCreated",
    ]
    assert said.json["beyond"].startswith("rpc/")
    said = await twinlog("log", "--trace", "orders/1", *served.at())
    lines = [line for line in said.out.splitlines() if "↳" in line or "●" in line]
    assert [line.strip()[0] for line in lines] == ["●", "↳"]
    assert "CreditReserved" in lines[1]
    said = await twinlog("log", "--trace", "orders/99", *served.at())
    assert said.code == 2
    assert "orders/99" in said.err


async def test_a_stream_is_shown_with_what_each_event_changed(twinlog: Terminal, served: Served) -> None:
    order_id = await order(served.shop, await customer(served.shop))
    await served.shop.settle()
    said = await twinlog("log", "--states", "--stream", f"order/{order_id}", *served.at("order_svc"))
    assert said.code == 0, said.err
    assert any("state:" in line and "→" in line for line in said.out.splitlines())
    said = await twinlog(
        "log", "--states", "--stream", f"order/{order_id}", "--json", *served.at("order_svc")
    )
    assert [each["version"] for each in said.json["states"]] == [1, 2]
    said = await twinlog("log", "--states", *served.at("order_svc"))
    assert said.code == 2
    assert "--stream" in said.err
