"""What a start refuses, `twinlog doctor` says before in the same words; and neither of them has changed anything."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import asyncpg
import pytest
from google.protobuf.wrappers_pb2 import BoolValue, Int64Value, StringValue

from shop.customers.v1.events_pb2 import CustomerCreated
from tests.kernel.batches import append, new_event
from tests.neighbors.test_schemas import listens
from tests.saga.tables import step, table
from tests.waiting import beside, until
from twinlog import (
    Address,
    Aggregate,
    ConfigurationError,
    Policies,
    PostgresViews,
    Projection,
    Service,
    ServiceSpec,
    Settings,
    Shutdown,
    StreamId,
    View,
    load,
    on,
    open_service,
    saga_aggregate,
)
from twinlog.dev import free_port
from twinlog.service.doctor import examine
from twinlog.service.doctor_findings import State
from twinlog.service.process import main_of
from twinlog.service.runtime import Main
from twinlog.testing import START
from twinlog.testing.internals import Batch, database_url

_WRITTEN = (
    "checkpoints",
    "declarations",
    "log_head",
    "log_identity",
    "saga_tables",
    "schema_migrations",
    "stays",
    "view_builds",
)
_COLUMNS = "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = 'public' ORDER BY 1, 2"
_STAYS = "CREATE TABLE stays (stay_id text PRIMARY KEY, nights bigint NOT NULL DEFAULT 0);"
_PAID = "ALTER TABLE stays ADD COLUMN paid bigint NOT NULL DEFAULT 0;"
_QUERIES = """-- name: stays_rows
-- Some rows.
SELECT stay_id, nights FROM stays WHERE stay_id = ANY ($1::text[]);

-- name: stays_upsert
-- Stores rows.
INSERT INTO stays (stay_id, nights) SELECT stay_id, nights FROM unnest($1::stays[])
ON CONFLICT (stay_id) DO UPDATE SET nights = excluded.nights;
"""
SAGA = table([step(0), step(1)])


class StaySettings(Settings):
    """The settings of the service here."""

    stays_address: Address = "127.0.0.1:0"
    """Where it serves."""


class Stay(NamedTuple):
    """A row."""

    stay_id: str
    nights: int


def nights(row: Stay | None, event: Any, message: Any) -> Stay:
    return Stay(event.stream.id, (row.nights if row else 0) + 1)


STAY: Aggregate[int, int] = Aggregate(
    "stay", 0, lambda _state, _command: [], lambda state, _event: state + 1, lambda _state: "one"
)
STAYS: View[Stay] = View(
    "stays", lambda event, _message: str(event.stream.id), rules={StringValue: nights, BoolValue: nights}
)
Wire = Callable[[Service, Any], object]


def policies(log: str, actor: str = "stay_svc") -> Policies:
    return Policies(log=log, actor=actor, rules={StringValue: lambda event: on(STAY, event.value).do(1)})


def wiring(
    *, view: View[Stay] = STAYS, actor: str = "stay_svc", twice: bool = False, serves: object = None
) -> Wire:
    def wire(service: Service, views: Any) -> object:
        log = service.log.name
        for _ in range(2 if twice else 1):
            service.subscribe(policies(log, actor))
        service.subscribe(Projection("stay_svc.stays", [view], views, schema=service.schema, source=log))
        return serves

    return wire


def forgetful(_service: Service, _views: Any) -> None:
    raise KeyError("stays")


@dataclass(frozen=True)
class Programs:
    """Versions of one program."""

    spec: ServiceSpec
    more: str
    """The package with one more migration."""

    def wrong(self) -> Iterator[tuple[str, ServiceSpec, Wire, str]]:
        """Those that are refused: what is wrong with each, and how the refusal reads."""
        spec = self.spec
        more = View(
            "stays",
            STAYS.key,
            rules={StringValue: nights, BoolValue: nights, Int64Value: nights},
        )
        longer = replace(SAGA, steps=[*SAGA.steps, step(2)])
        yield "two consumers of one name", spec, wiring(twice=True), "two consumers are called"
        yield "what cannot be served", spec, wiring(serves=object()), "cannot be served"
        yield "an event type more", spec, wiring(view=more), "handles google.protobuf.Int64Value from now on"
        yield "policies under another name", spec, wiring(actor="stays_svc"), "would do all of it again"
        yield (
            "a column more",
            replace(spec, migrations=(*spec.migrations, self.more)),
            wiring(),
            "column paid is new",
        )
        yield (
            "a saga's table",
            replace(spec, aggregates=[STAY, saga_aggregate(longer)]),
            wiring(),
            "version 1, has changed",
        )
        yield (
            "an aggregate under another name",
            replace(spec, aggregates=[replace(STAY, name="visit"), saga_aggregate(SAGA)]),
            wiring(),
            "streams of aggregate 'stay' are stored",
        )
        yield "another log", replace(spec, log="visits"), wiring(), "this service's log is visits"


def package(folder: Path, name: str, *statements: str) -> str:
    migrations = folder / name / "migrations"
    migrations.mkdir(parents=True)
    (folder / name / "__init__.py").touch()
    (folder / name / "queries.sql").write_text(_QUERIES)
    for number, statement in enumerate(statements, 1):
        (migrations / f"{number:03}_stays.sql").write_text(statement)
    return name


async def started(spec: ServiceSpec, wire: Wire) -> None:
    task = asyncio.current_task()
    assert task is not None
    await main_of(spec, wire)(Shutdown(task))


async def refusal(spec: ServiceSpec, wire: Wire) -> str:
    """The words of a start that is refused."""
    async with asyncio.timeout(120):
        with pytest.raises(ConfigurationError) as refused:
            await started(spec, wire)
    return " ".join(str(refused.value).split())


async def told(spec: ServiceSpec, wire: Wire) -> list[str]:
    """What a doctor finds that has to be put right."""
    findings = await examine([spec], {spec.name: main_of(spec, wire)})
    return [each.text for each in findings if each.state not in (State.OK, State.NOTE)]


async def stored(url: str) -> Mapping[str, Sequence[Any]]:
    connection = await asyncpg.connect(url)
    try:
        found = {name: await connection.fetch(f"SELECT * FROM {name} ORDER BY 1") for name in _WRITTEN}
        return found | {"columns": await connection.fetch(_COLUMNS)}
    finally:
        await connection.close()


@contextmanager
def taken(address: str) -> Iterator[None]:
    host, _, port = address.rpartition(":")
    with socket.create_server((host, int(port))):
        yield


@pytest.fixture
def programs(
    empty_database: str,
    postgres_url: str,
    nats_url: str,
    stream: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Programs:
    monkeypatch.syspath_prepend(tmp_path)
    address = f"127.0.0.1:{free_port()}"
    settings = {"POSTGRES_URL": postgres_url, "NATS_URL": nats_url, "STAYS_ADDRESS": address}
    for name, value in {**settings, "LOG_LEVEL": "error"}.items():
        monkeypatch.setenv(name, value)
    own = package(tmp_path, f"{stream}_sql", _STAYS)
    spec = ServiceSpec(
        "stay_svc",
        stream,
        empty_database,
        "hotel",
        StaySettings,
        "stays_address",
        [STAY, saga_aggregate(SAGA)],
        migrations=(own,),
        views=lambda log: PostgresViews(log, own, {"stays": Stay}),
    )
    return Programs(spec, package(tmp_path, f"{stream}_more_sql", _PAID))


async def run_for_a_while(spec: ServiceSpec, work: Callable[[Service], Any]) -> None:
    """Starts the program as it ought to be, and stops it once some work is done."""
    services: list[Service] = []
    wire = wiring()
    stop = asyncio.Event()

    def noted(service: Service, views: Any) -> object:
        services.append(service)
        return wire(service, views)

    async def run() -> None:
        task = asyncio.current_task()
        assert task is not None
        shutdown = Shutdown(task)
        stopping = asyncio.create_task(stop.wait())
        stopping.add_done_callback(lambda _: shutdown.request("the test goes on"))
        await main_of(spec, noted)(shutdown)

    running = asyncio.create_task(run())
    try:
        address = StaySettings().stays_address
        await beside(running, until(lambda: listens(address)))
        await work(services[0])
    finally:
        stop.set()
        await running


async def test_a_doctor_says_what_a_start_refuses_and_neither_changes_anything(
    programs: Programs, postgres_url: str
) -> None:
    spec = programs.spec
    url = database_url(postgres_url, spec.database)

    async def grow(service: Service) -> None:
        for number, message in enumerate((Int64Value(value=1), StringValue(value="two")), 1):
            stay = StreamId("stay", f"{spec.log}-{number}")
            await append(service.log, Batch(START, {stay: 0}, [new_event(stay, 1, message)]))
        await until(lambda: is_shown(service))

    async def is_shown(service: Service) -> bool:
        found = await service.log.read(0, 10)
        views = PostgresViews(service.log, spec.migrations[0], {"stays": Stay})
        return (await views.checkpoints()).get("stay_svc.stays", 0) >= len(found) >= 2

    await run_for_a_while(spec, grow)
    before, wrong = await stored(url), []
    assert not await told(spec, wiring()), "nothing is wrong with it"
    assert await stored(url) == before
    for what, other, wire, words in programs.wrong():
        found = await told(other, wire)
        wrong += [] if await stored(url) == before else [f"{what}: the doctor has changed something"]
        said = await refusal(other, wire)
        wrong += [] if await stored(url) == before else [f"{what}: the start has changed something"]
        wrong += [] if words in said and said in found else [f"{what}: {said}\nbut the doctor: {found}"]
    assert not wrong, "\n".join(wrong)
    await run_for_a_while(spec, is_shown)  # what ran goes on
    more = replace(spec, migrations=(*spec.migrations, programs.more))
    way_out = re.search(r"INSERT INTO.*?'\{\}'(?=;)", await refusal(more, wiring()))
    assert way_out
    connection = await asyncpg.connect(url)
    await connection.execute(way_out[0])
    await connection.close()
    await run_for_a_while(more, is_shown)
    assert "paid" in [column for _, column in (await stored(url))["columns"]]


async def test_a_taken_address_is_found_before_anything_runs(programs: Programs, postgres_url: str) -> None:
    spec, address = programs.spec, StaySettings().stays_address
    with taken(address):
        found = await told(spec, wiring())
        said = await refusal(spec, wiring())
    assert [said] == found
    assert said.startswith("STAYS_ADDRESS: cannot listen on")
    kept = await asyncpg.connect(database_url(postgres_url, spec.database))
    assert not await kept.fetchval("SELECT count(*) FROM saga_tables")
    assert not await kept.fetchval("SELECT count(*) FROM pg_class WHERE relname = 'stays'")
    await kept.close()


async def test_a_first_start_that_is_refused_binds_nothing(programs: Programs) -> None:
    """What it declares may be put right: the saga's table, its version, and the name of the log."""
    spec = programs.spec
    shorter = replace(SAGA, steps=SAGA.steps[:1])
    await refusal(replace(spec, log="visits", aggregates=[STAY, saga_aggregate(shorter)]), wiring(twice=True))
    await run_for_a_while(spec, lambda _service: asyncio.sleep(0))


async def test_a_wiring_that_raises_is_told(programs: Programs) -> None:
    [found] = await told(programs.spec, forgetful)
    assert found == "its wiring raises KeyError: 'stays'; a start would crash with that"


async def test_a_main_is_asked_for_its_wiring_and_for_nothing_else(programs: Programs) -> None:
    spec, entered = programs.spec, list[object]()

    async def told_by(main: Main) -> list[str]:
        findings = await examine([spec], {spec.name: main})
        return [each.text for each in findings if each.state not in (State.OK, State.NOTE)]

    async def wired(shutdown: Shutdown) -> None:
        async with (
            open_service(spec, load(spec.settings), shutdown, wire=wiring(twice=True)) as service,
            asyncio.TaskGroup(),
        ):
            entered.append(service)

    async def listening(shutdown: Shutdown) -> None:
        async with (
            open_service(spec, load(spec.settings), shutdown) as service,
            await asyncio.start_server(lambda *_: None, "127.0.0.1", 0),
        ):
            await service.serve()

    async def beside(shutdown: Shutdown) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(listening(shutdown))

    [twice] = await told_by(wired)
    assert "two consumers are called" in twice
    assert await refusal(spec, wiring(twice=True)) == twice
    assert not entered
    for main in (listening, beside):
        [found] = await told_by(main)
        assert re.match(r"main listens at 127\.0\.0\.1:0 before .* open_service\(…, wire=wire\)", found)


async def test_a_main_has_what_its_wiring_gave_and_may_serve_more(programs: Programs) -> None:
    task = asyncio.current_task()
    assert task is not None
    given, shutdown = object(), Shutdown(task)
    with pytest.raises(ConfigurationError, match="cannot be served"):
        async with open_service(
            programs.spec, load(programs.spec.settings), shutdown, wire=wiring()
        ) as service:
            assert service.servicers == ()
            await service.serve(given)


async def test_a_follower_s_copy_of_a_proto_is_compared_by_a_doctor(
    programs: Programs, postgres_url: str
) -> None:
    owner = programs.spec
    name = CustomerCreated.DESCRIPTOR.full_name
    billing = Policies(
        log=owner.log,
        actor="bill_svc",
        rules={CustomerCreated: lambda event: on(STAY, event.customer_id).do(1)},
    )

    def wire(service: Service, _views: object) -> None:
        service.subscribe(billing)

    async def grow(service: Service) -> None:
        stay = StreamId("stay", owner.log)
        await append(service.log, Batch(START, {stay: 0}, [new_event(stay, 1, BoolValue())]))
        await until(lambda: copied(service))

    async def copied(service: Service) -> bool:
        return (await service.twin(owner.log).state()).last == 1

    other = replace(
        owner,
        name="bill_svc",
        log=f"{owner.log}_bills",
        database=f"{owner.database}/bills",
        aggregates=[],
        migrations=(),
        views=None,
    )
    unknown = [each.text for each in await examine([other], {other.name: main_of(other, wire)})]
    assert any("cannot be compared" in each for each in unknown), "there is no stream yet"
    await run_for_a_while(owner, grow)
    assert not await told(other, wire)
    connection = await asyncpg.connect(database_url(postgres_url, owner.database))
    await connection.execute(
        """UPDATE declarations SET form = form || '{"1": "number int64"}' WHERE name = $1""", name
    )
    await connection.close()
    [found] = await told(other, wire)
    assert f"otherwise than this program reads them: {name}: field 1 was `number int64` and is" in found
