"""``twinlog state``: an aggregate at any moment."""

from __future__ import annotations

from datetime import UTC, timedelta, timezone

from tests.cli.conftest import Served, Terminal
from tests.inspection.conftest import customer, order


async def test_state_shows_an_aggregate_now_then_and_what_changed(twinlog: Terminal, served: Served) -> None:
    stream = f"order/{await order(served.shop, await customer(served.shop), 7)}"
    await served.shop.settle()
    now = (await twinlog("state", stream, "--json", *served.at())).json
    assert (now["stream"], now["state"]["state"]) == (stream, "approved")
    assert isinstance(now["state"]["saga_mode"], int)
    for option, when in (("--as-of", "1"), ("--as-of", "v1"), ("--at", "1")):
        then = (await twinlog("state", stream, option, when, "--json", *served.at())).json
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


MISTAKES = [
    (["order/nobody"], "no service here has events of order/nobody"),
    (["order"], "type/id"),
    (["STREAM", "--as-of", "400d"], "no service here has events"),
    (["STREAM", "--as-of", "customers/1"], "is in log orders"),
    (["STREAM", "--as-of", "yesterday"], "is no time"),
    (["STREAM", "--at", "yesterday"], "yesterday is neither a moment nor host:port"),
    (["STREAM", "--at", "2026-02-30T00:00:00Z"], "2026-02-30T00:00:00Z is neither a moment nor host:port"),
    (["STREAM", "--at", "orders/0"], "a version is 1 to 2,147,483,647, a position 1 to"),
    (["STREAM", "--at", "1", "--as-of", "2"], "two moments are named"),
    (
        ["STREAM", "--as-of", "0"],
        "a version is 1 to 2,147,483,647, a position 1 to 9,223,372,036,854,775,807",
    ),
    (["STREAM", "--as-of=-1"], "a version is 1 to 2,147,483,647"),
    (["STREAM", "--as-of", "orders/0"], "a version is 1 to 2,147,483,647"),
    (["STREAM", "--as-of", "2147483648"], "a version is 1 to 2,147,483,647"),
    (["STREAM", "--as-of", "42941205112"], "a version is 1 to 2,147,483,647"),
    (["STREAM", "--as-of", "orders/9223372036854775808"], "a position 1 to 9,223,372,036,854,775,807"),
    (["STREAM", "--as-of", "garbage"], "A moment is a version (12), a position (orders/17), a time"),
    (["STREAM", "--as-of", ""], "is no time"),
    (["STREAM", "--as-of", "999999d"], "outside the years 1 to 9999"),
    (["STREAM", "--as-of", "9999-12-31T23:59:59-05:00"], "outside the years 1 to 9999"),
    (["STREAM", "--as-of", "0001-01-01T00:00:00+05:00"], "outside the years 1 to 9999"),
    (["STREAM", "--as-of", "400d"], "by then: it began with orders/"),
    (["ordr/1"], "The types here are credit_saga, customer, order, saga_mode"),
    (["order/nobody", "--as-of", "1"], "no service here has events of order/nobody: "),
    (["STREAM", "order/nobody"], "no service here has events of order/nobody: "),
    (["STREAM", "order/nobody", "--at", "nowhere/1"], "log nowhere"),
]


async def test_state_of_what_was_not_there_says_so(twinlog: Terminal, served: Served) -> None:
    stream = f"order/{await order(served.shop, await customer(served.shop), 7)}"
    for arguments, words in MISTAKES:
        given = [stream if each == "STREAM" else each for each in arguments]
        said = await twinlog("state", *given, *served.at())
        assert said.code == (1 if "nowhere/1" in arguments else 2), (arguments, said.err)
        assert words in said.err, arguments


async def test_a_moment_that_has_not_come_is_now_and_said_so(twinlog: Terminal, served: Served) -> None:
    stream = f"order/{await order(served.shop, await customer(served.shop), 7)}"
    await served.shop.settle()
    now = (await twinlog("state", stream, "--json", *served.at())).json
    for when, words in (
        ("9", "has no version 9 yet: this is its newest"),
        ("orders/999", "log orders ends at "),
        ("9000-01-01", "9000-01-01T00:00:00+00:00 has not come yet (times without a zone are UTC)"),
    ):
        said = await twinlog("state", stream, "--json", "--as-of", when, *served.at())
        assert (said.json, said.code) == (now, 0), when
        assert words in said.err, when


async def test_times_have_zones(twinlog: Terminal, served: Served) -> None:
    """One without is UTC."""
    stream = f"order/{await order(served.shop, await customer(served.shop), 7)}"
    await served.shop.settle()
    [event, *_] = await served.shop.order_svc.log.read(0, 1)
    for zone in (None, UTC, timezone(timedelta(hours=5, minutes=30)), timezone(timedelta(hours=-8))):
        when = event.recorded_at.astimezone(zone or UTC)
        when = when if zone else when.replace(tzinfo=None)
        for text, begun in ((when, True), (when - timedelta(microseconds=1), False)):
            said = await twinlog("state", stream, "--as-of", text.isoformat(), *served.at())
            assert said.code == (0 if begun else 2), (said.err, text)


async def test_what_changed_since_before_it_began_is_all_of_it(twinlog: Terminal, served: Served) -> None:
    stream = f"order/{await order(served.shop, await customer(served.shop), 7)}"
    await served.shop.settle()
    told = (await twinlog("diff", stream, "400d", "1", "--json", *served.at())).json
    assert (told["from_version"], told["to_version"], len(told["events"])) == (0, 1, 1)
    assert {change["path"]: change for change in told["changes"]}["state"] == {
        "path": "state",
        "after": '"pending"',
    }
    since = (await twinlog("state", stream, "--since", "400d", "--json", *served.at())).json
    assert since["since_version"] == 0
    assert (await twinlog("diff", stream, "400d", "399d", *served.at())).code == 2


async def test_diff_shows_what_changed_and_by_which_events(twinlog: Terminal, served: Served) -> None:
    stream = f"order/{await order(served.shop, await customer(served.shop), 7)}"
    await served.shop.settle()
    told = (await twinlog("diff", stream, "1", "--json", *served.at())).json
    assert (told["from_version"], told["to_version"]) == (1, 2)
    assert {change["path"]: change["after"] for change in told["changes"]}["state"] == '"approved"'
    said = await twinlog("diff", stream, "1", "2", *served.at())
    assert f"{stream} from version 1 to version 2" in said.out
    assert f"{told['events'][0]}  OrderApproved" in said.out
    assert 'state: "pending" → "approved"' in said.out
    back = (await twinlog("diff", stream, "2", "1", "--json", *served.at())).json
    assert {change["path"]: change["after"] for change in back["changes"]}["state"] == '"pending"'
    assert back["events"] == []


async def test_several_are_shown_at_one_moment(twinlog: Terminal, served: Served) -> None:
    who = await customer(served.shop)
    bought = await order(served.shop, who, 7)
    await served.shop.settle()
    streams = [f"order/{bought}", f"customer/{who}"]
    peers = {name: address for name, address in served.addresses.items()}
    for node in served.shop.nodes:
        node.peers._services = {name: at for name, at in peers.items() if name != node.name}
    told = (await twinlog("state", *streams, "--json", *served.at())).json
    assert {"orders", "customers", "sagas", "projector"} == told["cut"].keys()
    assert [each["stream"] for each in told["streams"]] == streams
    assert told["streams"][1]["state"]["reserved"] == 7_000_000_000
    first = await twinlog("state", *streams, "--at", "orders/1", *served.at())
    assert "no effect without its cause: " in first.out
    assert "orders/1" in first.out
    said = await twinlog("state", *streams, "--at", "1", *served.at())
    assert "a version is a moment of one stream" in said.err
    said = await twinlog("state", *streams, "--at", "10000d", *served.at())
    assert "had not begun by then" in said.err


async def test_a_map_of_many_is_shown_by_its_entries(twinlog: Terminal, served: Served) -> None:
    who = await customer(served.shop)
    held = await order(served.shop, who, 7)
    await served.shop.settle()
    state = (await twinlog("state", f"customer/{who}", "--json", *served.at())).json["state"]
    assert state["holds"] == {held: 7_000_000_000}
