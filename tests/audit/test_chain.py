"""A shop whose past was changed by somebody with all rights: what an audit cannot see, its chains show."""

from __future__ import annotations

import pytest

from proof.auditor import Auditor, Report
from proof.auditor.__main__ import CLEAN, VIOLATIONS
from shop.customers.v1.events_pb2 import CustomerCreated
from tests.audit.test_command import run
from tests.audit.world import DATABASE_OF, World
from tests.chain.history import rewrite_chain
from twinlog import ConfigurationError
from twinlog.audit import chain
from twinlog.log.chain import Head

pytestmark = pytest.mark.asyncio(loop_scope="package")


async def verify(shop: World, *noted: Head) -> Report:
    return await Auditor(shop.nats, shop.pools, at_rest=True).verify_chains(noted)


async def heads(shop: World) -> list[Head]:
    """The head of each chain that has one."""
    newest = {log: await shop.log(log).newest_link() for log in DATABASE_OF}
    return [Head.of(log, link) for log, link in newest.items() if link]


async def test_a_shop_that_nobody_touched_is_as_it_was_linked(shop: World) -> None:
    report = await verify(shop, *await heads(shop))
    assert report.violations == []
    assert report.settled
    events = sum(report.figures.events.values())
    assert report.figures.checked["events"] == report.figures.checked["twin messages"] == events
    assert events == sum([len(await shop.events(log)) for log in DATABASE_OF])
    assert len(report.notes) == report.figures.checked["noted heads"] >= 3


async def test_a_key_without_a_head_proves_nothing(shop: World) -> None:
    with pytest.raises(ConfigurationError, match="--key: there is no head that it could have signed"):
        await Auditor(shop.nats, shop.pools, at_rest=True).verify_chains(key_file="heads.pub.pem")


async def test_log_stream_and_views_changed_together(shop: World) -> None:
    """The customer has always been called Mallory."""
    noted = await heads(shop)
    event = await shop.find("customers", CustomerCreated)
    created = CustomerCreated.FromString(event.payload)
    created.name = "Mallory"
    await shop.sql(
        DATABASE_OF["customers"],
        "UPDATE events SET payload = $1 WHERE position = $2",
        created.SerializeToString(deterministic=True),
        event.position,
    )
    await shop.sql(DATABASE_OF["customers"], "DELETE FROM snapshots WHERE stream_id = $1", event.stream.id)
    views = DATABASE_OF["projector"]
    await shop.sql(views, "UPDATE customers SET name = 'Mallory' WHERE customer_id = $1", event.stream.id)
    twin = shop.twin("customers")
    await twin.delete()
    await twin.create(1)
    await twin.publish(await shop.events("customers"))

    assert (await shop.audit()).violations == []
    report = await verify(shop)
    assert [each.check for each in report.violations] == [chain.EVENTS, chain.TWIN]
    assert {place for each in report.violations for place in each.events} == {event.address}

    await rewrite_chain(shop.log("customers"))

    assert (await verify(shop)).violations == []
    [found] = (await verify(shop, *noted)).violations
    assert found.check == chain.NOTED
    assert found.events == ["customers/1"]


async def test_the_command_verifies_chains(shop: World) -> None:
    noted = [str(head) for head in await heads(shop)]
    code, out, err = await run(shop, "--chain", *(word for head in noted for word in ("--head", head)))
    assert (code, err) == (CLEAN, "")
    assert all(head in "".join(out.split()).replace("·", "") for head in noted)

    await shop.sql(DATABASE_OF["orders"], "UPDATE events SET tag = 'x' WHERE position = 3")
    code, out, _ = await run(
        shop, "--chain", "--head", "orders:3:" + "0" * 64, "--head", "bills:3:" + "0" * 12
    )
    assert code == VIOLATIONS
    told = " ".join(out.split())
    assert f"{chain.EVENTS}: orders/3: event 3 is not what was linked" in told
    assert "the first event that differs is orders/1" in told  # by the head, which is of another history
    assert "head bills:3:000000000000 is of a log that is not there" in told

    code, _, err = await run(shop, "--chain", "--head", "orders:3")
    assert code == 2
    assert "'orders:3' is no head; write it as it was told" in " ".join(err.split())
