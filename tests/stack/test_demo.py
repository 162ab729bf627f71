"""`make demo` ends clean whenever it is told to; `tests/neighbors/test_shop.py` has what it shows."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from tests.stack.checkout import Checkout, checkout
from tests.waiting import until


@pytest.fixture(scope="module")
def own() -> Iterator[Checkout]:
    with checkout() as there:
        yield there


async def test_ctrl_c_ends_it_quietly(own: Checkout) -> None:
    process = own.start_cheaply("demo", DEMO_ORDERS="100000")  # it must not be over by then
    await own.says("1/5")
    process.send_signal(signal.SIGINT)
    assert await own.ended(process) == 130
    assert own.said.endswith("Stopping …\nEverything has stopped.\n")
    assert not own.processes()
    assert "Traceback" not in own.said


async def test_a_second_ctrl_c_does_not_wait(own: Checkout) -> None:
    process = own.start_cheaply("demo", DEMO_ORDERS="100000")
    await own.up()
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGINT)
    assert await own.ended(process) == 130
    await until(lambda: not own.processes())
    assert "Traceback" not in own.said


async def test_a_taken_port_is_told_in_one_line(own: Checkout) -> None:
    taken = own.addresses["ORDERS_ADDRESS"]
    said = await own.refused("run", CUSTOMERS_ADDRESS=taken, ORDERS_ADDRESS=taken)
    assert taken in said.splitlines()[-1]
    assert not own.processes()


async def test_wrong_settings_are_told_in_one_line_before_anything_is_started(own: Checkout) -> None:
    said = await own.refused("run", ORDERS_ADDRESS="foo", LOG_LEVEL="loud")
    (line,) = said.splitlines()[1:]
    assert "ORDERS_ADDRESS=foo is wrong: must be host:port, such as 127.0.0.1:50051 [" in line
    assert line.count("LOG_LEVEL=loud is wrong") == 1
    assert "rm -rf" not in line
    assert not own.processes()


async def test_bad_usage_is_told_in_one_line(own: Checkout) -> None:
    assert await own.refused("dance") == "usage: python -m stack demo | run\n"
