"""Where programs are to listen: each wrong or taken address is named, before anything is started."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from twinlog.dev import Misconfigured, free_port
from twinlog.dev.system import _addresses


@pytest.fixture
def taken() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


def test_settings_come_before_preferences_and_port_0_is_any(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_ADDRESS", "127.0.0.1:0")
    found = _addresses({"A_ADDRESS": "127.0.0.1:1", "B_ADDRESS": None, "C_ADDRESS": "[::1]:0"})
    hosts, ports = zip(*(each.rsplit(":", 1) for each in found.values()), strict=True)
    assert hosts == ("127.0.0.1", "127.0.0.1", "[::1]")
    assert len({*ports} - {"0", "1"}) == 3


def test_all_that_are_wrong_or_taken_are_named_at_once(taken: str, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = ("foo", "127.0.0.1", ":1", "127.0.0.1:99999", "127.0.0.1:x")
    for given in wrong:
        monkeypatch.setenv("CONSOLE_ADDRESS", given)
        with pytest.raises(Misconfigured, match=f"^CONSOLE_ADDRESS={given} is wrong: must be host:port"):
            _addresses({"CONSOLE_ADDRESS": None})
    with pytest.raises(Misconfigured) as refused:
        _addresses(
            {"A_ADDRESS": taken, "B_ADDRESS": "127.0.0.1:0", "C_ADDRESS": taken, "CONSOLE_ADDRESS": None}
        )
    assert str(refused.value) == (
        "CONSOLE_ADDRESS=127.0.0.1:x is wrong: must be host:port, such as 127.0.0.1:50051; "
        f"A_ADDRESS: {taken} is taken; C_ADDRESS: {taken} is taken; "
        "stop what listens there, or set each to another host:port"
    )


def test_one_address_is_for_one_program() -> None:
    one = f"127.0.0.1:{free_port()}"
    with pytest.raises(Misconfigured, match=f"^B_ADDRESS: {one} is taken; stop what listens there"):
        _addresses({"A_ADDRESS": one, "B_ADDRESS": one})
