"""``twinlog snapshots``: what is kept of versions long past."""

from __future__ import annotations

import pytest

from customer_svc.domain import CUSTOMER, ChangeCreditLimit
from tests.cli.conftest import Served, Terminal
from tests.inspection.conftest import customer
from tests.waiting import until
from twinlog import Log, Money, Transaction
from twinlog.log.past import KeepsSnapshots, KeptKey
from twinlog.log.ports import Snapshot

EVENTS = 2_100
KEPT = [*range(CUSTOMER.keep_every, EVENTS + 1, CUSTOMER.keep_every)]
"""The versions that are kept of it."""


@pytest.fixture
async def long_stream(served: Served) -> str:
    """A customer whose limit was changed very often."""
    id = await customer(served.shop)

    def change(tx: Transaction) -> None:
        for number in range(EVENTS - 1):
            tx.do(CUSTOMER, id, ChangeCreditLimit(Money((200 + number % 2) * 10**9, "EUR")))

    await served.shop.customer_svc.writer.execute(change)
    return f"customer/{id}"


async def test_they_are_listed_dropped_and_rebuilt(
    twinlog: Terminal, served: Served, long_stream: str
) -> None:
    async def listed() -> list[int]:
        told = (await twinlog("snapshots", "list", "--json", *served.at())).json["snapshots"]
        assert {each["stream"] for each in told} <= {long_stream}
        return [each["version"] for each in told]

    async def kept() -> bool:
        return await listed() == KEPT

    await until(kept)
    type, _, id = long_stream.partition("/")
    shouted = f"{type}/{id.upper()}"
    for spelled in (long_stream, shouted):
        said = await twinlog("snapshots", "list", spelled, *served.at())
        assert f"{len(KEPT)} snapshots, " in said.out
    await surplus(served.shop.customer_svc.log)
    told = (await twinlog("snapshots", "list", "--json", *served.at())).json["snapshots"]
    assert {each["version"]: each["stale"] for each in told if each["stale"]} == {
        700: "its aggregate keeps one at every 500 versions"
    }
    dropped = await twinlog("snapshots", "drop", shouted, "--json", *served.at())
    assert dropped.json == {"dropped": len(KEPT) + 1}
    assert (await twinlog("snapshots", "list", *served.at())).out.strip() == "None."
    for chosen in (long_stream, shouted, "customer"):
        rebuilt = (await twinlog("snapshots", "rebuild", chosen, "--json", *served.at())).json["rebuilt"]
        assert rebuilt == [{"stream": long_stream, "version": EVENTS, "kept": len(KEPT), "problem": ""}]
    assert await listed() == KEPT
    said = await twinlog("snapshots", "rebuild", "customer", *served.at())
    assert f"{long_stream}: {len(KEPT)} kept up to version 2,100" in said.out
    for version, limit in ((1, 100), (1_000, 200), (1_001, 201), (EVENTS, 200)):
        state = (await twinlog("state", long_stream, "--at", str(version), "--json", *served.at())).json
        assert state["version"] == version
        assert state["state"]["limit"] == limit * 10**9


async def surplus(log: Log) -> None:
    """Keeps one that an earlier policy would have kept."""
    assert isinstance(log, KeepsSnapshots)
    [first] = await log.kept(CUSTOMER.name, "", KeptKey(), 1)
    await log.keep([Snapshot(first.stream, 700, 700, first.schema, b"{}")])


MISTAKES = [
    (["drop", "nothing"], "no service here has an aggregate nothing; they have "),
    (["rebuild", "nothing/1"], "no service here has an aggregate nothing"),
    (["list", "nothing"], "no service here has an aggregate nothing"),
    (
        ["drop", "view:nothing"],
        "no service here has a view nothing; they have customers, orders, ",
    ),
    (["rebuild", "customer/nobody"], "has no stream customer/nobody"),
    (["list", "/1"], "must be type/id"),
    (["drop", "customer/"], "must be type/id"),
]


async def test_mistakes_are_named(twinlog: Terminal, served: Served) -> None:
    for arguments, words in MISTAKES:
        said = await twinlog("snapshots", *arguments, *served.at())
        assert said.code == 2, (arguments, said.err)
        assert words in said.err + said.out, arguments
