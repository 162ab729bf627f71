"""``twinlog state``: an aggregate at any moment."""

from __future__ import annotations

import pytest

from tests.cli.conftest import Served, Terminal
from tests.inspection.conftest import customer, order


async def test_state_shows_an_aggregate_now_then_and_what_changed(twinlog: Terminal, served: Served) -> None:
    stream = f"order/{await order(served.shop, await customer(served.shop), 7)}"
    await served.shop.settle()
    now = (await twinlog("state", stream, "--json", *served.at())).json
    assert (now["stream"], now["state"]["state"]) == (stream, "approved")
    assert isinstance(now["state"]["saga_mode"], int)
    for when in ("1", "v1"):
        then = (await twinlog("state", stream, "--as-of", when, "--json", *served.at())).json
        assert (then["version"], then["state"]["state"]) == (1, "pending")
    same = (await twinlog("state", stream, "--as-of", then["event"], "--json", *served.at())).json
    assert same == then
    since = (await twinlog("state", stream, "--since", "1", "--json", *served.at())).json
    changed = {change["path"]: (change["before"], change["after"]) for change in since["changes"]}
    assert changed["state"] == ('"pending"', '"approved"')
    said = await twinlog("state", stream, "--since", "1", *served.at())
    assert f"{stream} at version {now['version']}, {now['event']}" in said.out
    assert 'state: "pending" → "approved"' in said.out
    same = await twinlog("state", stream, "--since", now["event"], *served.at())
    assert "nothing has changed" in same.out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["order/nobody"], "no service here has events of order/nobody"),
        (["order"], "type/id"),
        (["STREAM", "--as-of", "400d"], "no service here has events"),
        (["STREAM", "--as-of", "customers/1"], "is in log orders"),
        (["STREAM", "--as-of", "yesterday"], "is no time"),
    ],
)
async def test_state_of_what_was_not_there_says_so(
    twinlog: Terminal, served: Served, arguments: list[str], words: str
) -> None:
    stream = f"order/{await order(served.shop, await customer(served.shop), 7)}"
    given = [stream if each == "STREAM" else each for each in arguments]
    said = await twinlog("state", *given, *served.at())
    assert said.code == 2
    assert words in said.err
