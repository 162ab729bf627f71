"""`make run`: what it prints works, it keeps its services up, and it is the only one."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest

from stack.attach import Running
from stack.topology import NAMES
from tests.observe.scraping import Scrape, scraped
from tests.stack.checkout import Checkout, checkout
from tests.waiting import until, until_it_ends
from twinlog import __version__
from twinlog.dev import until_serving
from twinlog.dev.supervisor import until_answering


@pytest.fixture(scope="module")
def own() -> Iterator[Checkout]:
    with checkout() as there:
        there.start("run")
        yield there


async def test_stack_json_says_where_everything_is(own: Checkout) -> None:
    stack = await own.up()
    assert stack["pid"] == own.started[0].pid
    assert {setting: stack[setting.lower()] for setting in own.addresses} == own.addresses
    assert Running.read(own.data) == Running(**stack)
    for address in own.addresses.values():
        await while_up(own, until_serving(address))


async def test_the_printed_commands_work_as_they_are(own: Checkout) -> None:
    await own.up()
    await own.says("grpcurl", times=8)
    answers = []
    for command in [line for line in own.said.splitlines() if "grpcurl" in line]:
        shell = await asyncio.create_subprocess_shell(
            command, cwd=own.folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=_with_tools()
        )
        output, _ = await shell.communicate()
        assert shell.returncode == 0, output.decode()
        answers.append(output.decode())
    customer, mode, order, got, watched, timeline, saga, dead_letters = answers
    assert "customer_id" in customer
    assert "SAGA_MODE_ORCHESTRATION" in mode
    assert "ORDER_STATE_PENDING" in order
    assert json.loads(got)["order"]["order_id"] in order
    assert "ORDER_STATE_APPROVED" in watched
    created = json.loads(timeline)["entries"][0]
    assert created["type"] == "shop.orders.v1.OrderCreated"
    assert created["payload"]["total"] == {"currency_code": "EUR", "units": "12", "nanos": 340_000_000}
    assert json.loads(saga)["saga"]["order_id"] in order
    assert json.loads(dead_letters) == {}


async def test_the_passwords_of_its_servers_are_where_it_says_and_nowhere_else(own: Checkout) -> None:
    stack = await own.up()
    for server in ("postgres", "nats"):
        password = urlsplit(stack[f"{server}_url"]).password
        assert password
        assert f"its password is in .data/run/{server}/password" in own.said
        assert (own.data / "run" / server / "password").read_text().strip() == password
        assert password not in own.said
        assert not any(password in " ".join(psutil.Process(pid).cmdline()) for pid in own.processes())


async def test_the_console_is_up_and_its_address_comes_first(own: Checkout) -> None:
    await own.up()
    await until(
        lambda: "Ctrl-C" in own.said and own.addresses["QUERIES_ADDRESS"] in own.said.partition("Ctrl-C")[2]
    )
    told = own.said.partition("Ctrl-C")[2]
    assert told.index(f"http://{own.console}") < told.index("order_svc")
    await while_up(own, until_answering(own.console))


async def test_it_says_where_the_metrics_are(own: Checkout) -> None:
    await own.up()
    await own.says("metrics of ", times=5)
    found = dict(re.findall(r"metrics of (\w+) +(http://\S+)$", own.said, re.MULTILINE))
    assert [*found] == [*NAMES, "console"]
    for service, url in found.items():
        assert Scrape(await scraped(url)).value("twinlog_info", name=service, version=__version__) == 1


async def test_a_killed_service_is_started_again(own: Checkout) -> None:
    await own.up()
    pid_file = own.data / "run" / "customer_svc.pid"
    killed = int(pid_file.read_text())
    os.kill(killed, signal.SIGKILL)
    await until(lambda: int(pid_file.read_text() or killed) != killed, seconds=180)
    await while_up(own, until_serving(own.addresses["CUSTOMERS_ADDRESS"]))


async def test_a_second_start_is_refused_and_harms_nothing(own: Checkout) -> None:
    stack = await own.up()
    said = await own.refused("demo")
    assert said == f"already running, pid {stack['pid']} (make run); stop it first\n"
    assert await own.up() == stack
    await while_up(own, until_serving(own.addresses["ORDERS_ADDRESS"]))


async def test_nothing_outlives_a_killed_supervisor(own: Checkout) -> None:
    await own.up()
    process = own.started[-1]
    process.kill()
    await until(lambda: not own.processes())
    assert await own.ended(process) == -signal.SIGKILL
    assert Running.read(own.data) is None


async def test_the_next_start_cleans_up_after_a_killed_one(own: Checkout) -> None:
    """Even where a service lives on, as it may where there is no PDEATHSIG."""
    left = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "order_svc", cwd=own.folder, env=_stuck(own)
    )
    foreign = await asyncio.create_subprocess_exec("sleep", "600")
    try:
        (own.data / "run" / "order_svc.pid").write_text(f"{left.pid}\n")
        (own.data / "run" / "projector.pid").write_text(f"{foreign.pid}\n")
        left.send_signal(signal.SIGSTOP)
        own.start_cheaply("run")
        assert await asyncio.wait_for(left.wait(), 180) == -signal.SIGKILL
        await own.up()
        assert foreign.returncode is None
    finally:
        for each in (left, foreign):
            if each.returncode is None:
                each.kill()
                await each.wait()


async def test_ctrl_c_ends_everything_in_order(own: Checkout) -> None:
    await own.up()
    await own.says("Ctrl-C stops everything")
    own.started[-1].send_signal(signal.SIGINT)
    assert await own.ended(own.started[-1]) == 0
    assert own.said.count("Stopping …\n") == 1
    assert own.said.endswith("Everything has stopped.\n")
    assert not own.processes()
    assert sorted(path.name for path in own.data.iterdir()) == ["run"]


async def while_up(own: Checkout, waiting: Coroutine[Any, Any, None]) -> None:
    """Waits for it, as long as the command runs that was started last."""
    task = asyncio.create_task(waiting)

    async def last_words() -> str:
        code = own.started[-1].poll()
        return "" if code is None else f"ended with {code}, and said\n{own.said}"

    try:
        await until_it_ends(task.done, last_words, seconds=180)
    finally:
        task.cancel()
        await asyncio.wait([task])


def _with_tools() -> dict[str, str]:
    return {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}


def _stuck(own: Checkout) -> dict[str, str]:
    """Settings with which a service waits for its servers for ever."""
    nowhere = {"POSTGRES_URL": "postgresql://127.0.0.1:1", "NATS_URL": "nats://127.0.0.1:1"}
    return {**os.environ, **own.addresses, **nowhere}
