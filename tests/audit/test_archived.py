"""A shop whose old events are in files: every way to look at it gives what it gave before, and the audits pass."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from order_svc.domain import ORDER
from proof.auditor.__main__ import CANNOT
from tests.audit.test_chain import heads, verify
from tests.audit.test_command import run
from tests.audit.world import DATABASE_OF, World
from twinlog import Schema
from twinlog.audit import reading
from twinlog.audit.report import Findings
from twinlog.audit.twins import TwinAudit
from twinlog.log.history import LogHistory
from twinlog.log.log_file import FrameReader, event_of
from twinlog.log.past import Moment
from twinlog.log.snapshots import StateCodecs
from twinlog.log.time_travel import TimeTravel
from twinlog.log.unreadable import Unreadable
from twinlog.postgres import repair
from twinlog.postgres.archiving import Rule, archive
from twinlog.postgres.exporting import export
from twinlog.postgres.identity import identity
from twinlog.postgres.source import reader_of
from twinlog.postgres.urls import database_url

pytestmark = pytest.mark.asyncio(loop_scope="package")
RANGE = 100


async def archived(shop: World, folder: Path) -> None:
    """Moves what is old into files; whatever a shop at rest has is."""
    for log, database in DATABASE_OF.items():
        if log == "projector":
            continue
        shop._spoiled.add(database)
        own = await identity(shop.pools[database])
        assert own
        rule = Rule(datetime.now(UTC), ("order",), RANGE)
        done = await archive(shop.log(log), own, f"file://{folder}", rule, lambda _line: None)
        assert done.removed, f"{log} has nothing in its archive alone"


async def looked_at(shop: World) -> Mapping[str, Any]:
    """What every kind of reader sees of the log of orders, whose positions begin in the archive."""
    log = shop.log("orders")
    events = await shop.events("orders")
    history = LogHistory(log)
    codecs = StateCodecs(Schema())
    travel = TimeTravel(log, Schema(), codecs)
    order = events[0].stream
    states = []
    for moment in (Moment(version=1), Moment(position=40), Moment(time=events[-1].recorded_at)):
        state = await travel.state(ORDER, order.id, moment)
        assert not isinstance(state, Unreadable)
        states.append(state.state)
    caused = [each.address for each in events[:5]]
    async with reader_of(database_url(shop.postgres_url, DATABASE_OF["orders"]), "orders") as reader:
        rebuilt = [(event.position, event.payload) for event in await reader.read(0, 10_000)]
    file = BytesIO()
    await export(log, None, DATABASE_OF["orders"], file, "orders.twinlog")
    file.seek(0)
    frames = FrameReader(file, "orders.twinlog", "").frames()
    exported = [event_of(r, "orders") for frame in frames for r in frame.records if r.HasField("event")]
    return {
        "tail": [await log.read(len(events) - back, 100) for back in (0, 1, 30)],
        "pages": [await log.read(after, 7) for after in range(0, 120, 13)],
        "states": states,
        "kept": await history.causes(len(events)),
        "cut": await history.closed({"orders": 90, "customers": 20, "sagas": 20}),
        "by time": [await history.at(event.recorded_at) for event in events[5:200:50]],
        "related": await log.related(0, len(events), [events[0].metadata.correlation_id], caused),
        "effects": await repair.effects(shop.pools[DATABASE_OF["customers"]], events[:30]),
        "rebuilt": rebuilt,
        "exported": exported,
        "snapshots": await log.pool.fetch("SELECT * FROM snapshots ORDER BY stream_id"),
    }


async def test_every_reader_sees_what_it_saw(shop: World, tmp_path: Path) -> None:
    before, report, noted = await looked_at(shop), await shop.audit(), await heads(shop)
    events = {log: await shop.events(log) for log in DATABASE_OF}
    await archived(shop, tmp_path)
    assert {log: await shop.events(log) for log in DATABASE_OF} == events
    after = await looked_at(shop)
    for name, seen in before.items():
        assert after[name] == seen, name
    again = await shop.audit()
    assert again.violations == []
    assert again.figures.checked == report.figures.checked
    assert (await verify(shop, *noted)).violations == []


async def test_an_id_that_stands_twice_is_found_across_files(shop: World, tmp_path: Path) -> None:
    await archived(shop, tmp_path)
    first, last = (await shop.events("orders"))[0], await shop.log("orders").head()
    await shop.sql(
        DATABASE_OF["orders"], "UPDATE events SET event_id = $1 WHERE position = $2", first.event_id, last
    )
    found = [each for each in (await shop.audit()).violations if each.check == reading.IDS]
    assert [each.events for each in found] == [["orders/1", f"orders/{last}"]]


async def test_what_no_stream_names_is_found(shop: World, tmp_path: Path) -> None:
    await archived(shop, tmp_path)
    database = DATABASE_OF["orders"]
    await shop.sql(
        database, "DELETE FROM archived_streams WHERE ctid = (SELECT min(ctid) FROM archived_streams)"
    )
    found = [each for each in (await shop.audit()).violations if each.check == reading.ARCHIVED]
    assert [each.ids for each in found] == [["orders"]]
    assert "restore table archived_streams" in found[0].remedy


async def test_what_a_relay_trims_while_an_audit_reads_is_not_missed(shop: World, tmp_path: Path) -> None:
    await archived(shop, tmp_path)
    log, twin, findings = shop.log("orders"), shop.twin("orders"), Findings()
    upto = await log.archived_upto()
    audited = TwinAudit(shop.nats, "orders", "order_svc")
    await audited.look(await identity(log.pool))
    audited.trimmed = upto
    await twin.trim(upto + 3)
    await audited.compare(await shop.events("orders"), findings)
    [violation] = findings.kept
    assert violation.events == [f"orders/{upto + 1}", f"orders/{upto + 3}"]


async def test_a_file_that_is_gone_ends_an_audit_with_its_name(shop: World, tmp_path: Path) -> None:
    await archived(shop, tmp_path)
    gone = lost_file(tmp_path)
    code, out, err = await run(shop)
    assert code == CANNOT
    assert str(gone) in "".join((out + err).split())
    report = await verify(shop)
    assert report.violations[0].says == "orders/1: event 1 is gone, or cannot be read"
    assert [note for note in report.notes if str(gone) in note and "Put back a copy of it" in note]


def lost_file(folder: Path) -> Path:
    """The first file of the log of orders, which was there."""
    gone = min(folder.rglob("orders-*/*.twinlog"))
    gone.unlink()
    return gone
