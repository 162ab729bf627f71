"""`twinlog doctor`: what services check at their start, without starting any."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from google.protobuf.wrappers_pb2 import Int64Value

from customer_svc.app import SPEC
from tests import servers
from tests.dead_letters.journal import JOURNAL
from tests.kernel.batches import append, new_event
from twinlog import StreamId
from twinlog.cli import main
from twinlog.dev import EmbeddedPostgres, free_port
from twinlog.log.declarations import check_declarations
from twinlog.log.installation import Identity
from twinlog.postgres.declarations import PostgresDeclarations
from twinlog.postgres.log import open_log
from twinlog.service import doctor_findings
from twinlog.service.doctor import examine
from twinlog.service.doctor_findings import Finding, State
from twinlog.service.process import main_of
from twinlog.service.service import Service
from twinlog.service.spec import ServiceSpec
from twinlog.testing import START
from twinlog.testing.internals import Batch, JetStreamTwin, NatsClient

KEYS = "database twinlog_keys"
"""It is shared by the tests, and made by the first that needs it."""


@pytest.fixture
def spec(
    empty_database: str, postgres_url: str, nats_url: str, monkeypatch: pytest.MonkeyPatch
) -> ServiceSpec:
    """A service whose log has a name of its own, and settings that are right."""
    monkeypatch.setenv("POSTGRES_URL", postgres_url)
    monkeypatch.setenv("NATS_URL", nats_url)
    return replace(SPEC, database=empty_database, log=empty_database)


def states(findings: list[Finding]) -> set[State]:
    return {finding.state for finding in findings}


def only(findings: list[Finding], state: State) -> str:
    """The text of the one finding of that state."""
    texts = list(dict.fromkeys(finding.text for finding in findings if finding.state is state))
    assert len(texts) == 1, findings
    [text] = texts
    return text


async def test_what_is_missing_and_made_at_start_is_a_note(spec: ServiceSpec) -> None:
    findings = await examine([spec])
    assert states(findings) == {State.OK, State.NOTE}
    assert any("001_log.sql" in finding.text for finding in findings)
    findings = await examine([replace(spec, database=servers.unique())])
    assert any("the service makes it when it starts" in finding.text for finding in findings)


async def test_nothing_is_made(spec: ServiceSpec) -> None:
    first, second = await examine([spec]), await examine([spec])
    assert first == second


async def test_a_log_that_is_set_up_is_fine(spec: ServiceSpec, postgres_url: str, nats: NatsClient) -> None:
    twin = JetStreamTwin(nats, spec.log)
    async with open_log(postgres_url, spec.database, spec.log) as log:
        await twin.create(1)
        try:
            findings = await examine([spec])
            assert {each.subject for each in findings if each.state is not State.OK} <= {KEYS}, findings
            assert f"stream {spec.log}: it has no events" in [
                f"{each.subject}: {each.text}" for each in findings
            ]
            await log.pool.execute("UPDATE log_head SET position = 7")
            assert "it says 7, and the last event is 0" in only(await examine([spec]), State.WRONG)
        finally:
            await twin.delete()


async def test_what_is_stored_otherwise_is_found_and_nothing_is_kept(
    spec: ServiceSpec, postgres_url: str
) -> None:
    async with open_log(postgres_url, spec.database, spec.log) as log:
        kept = PostgresDeclarations(log.pool)
        keep = await check_declarations(kept, {}, spec.name, [replace(JOURNAL, name="diary")], spec.schema)
        await keep()
        before, stream = await kept.kept(), StreamId("diary", "one")
        changed = replace(spec, aggregates=[*spec.aggregates, JOURNAL])
        assert State.WRONG not in states(await examine([changed])), "nothing is stored"
        await append(log, Batch(START, {stream: 0}, [new_event(stream, 1, Int64Value(value=1))]))
        assert "aggregate 'diary' are stored, and it is gone" in only(await examine([changed]), State.WRONG)
        assert await kept.kept() == before


async def test_wrong_settings_are_named_each(spec: ServiceSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NATS_URL", "http://nats")
    monkeypatch.setenv("STREAM_REPLICAS", "9")
    text = only(await examine([spec]), State.SETTING)
    assert "NATS_URL is wrong" in text
    assert "STREAM_REPLICAS=9 is wrong" in text


async def test_a_wrong_password_is_a_setting_and_never_shown(
    spec: ServiceSpec, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POSTGRES_URL", servers.url_of(postgres_url, "nobody-here"))
    findings = await examine([spec])
    assert "POSTGRES_URL" in only(findings, State.SETTING), findings
    assert "nobody-here:nobody-here" not in str(findings)


async def test_servers_that_are_away_are_out_of_reach(
    spec: ServiceSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor_findings, "_TIMEOUT_SECONDS", 1.0)
    monkeypatch.setenv("POSTGRES_URL", f"postgresql://127.0.0.1:{free_port()}")
    monkeypatch.setenv("NATS_URL", f"nats://127.0.0.1:{free_port()}")

    def wire(service: Service, _views: object) -> None:
        service.subscribe(3)  # type: ignore[arg-type]

    findings = await examine([spec], {spec.name: main_of(spec, wire)})
    assert "3 cannot be subscribed" in only(findings, State.WRONG), (
        "what asks no server is found all the same"
    )
    away = {finding.subject: finding.text for finding in findings if finding.state is State.AWAY}
    assert [*away] == ["Postgres", "NATS"]
    assert all("Connect" in text and "127.0.0.1" in text for text in away.values()), (
        "they were not waited for"
    )


async def test_a_user_without_rights_is_told_what_it_lacks(
    spec: ServiceSpec, own_postgres: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POSTGRES_URL", await servers.new_user(own_postgres.url, "guest"))
    assert "grant CREATEDB" in only(await examine([spec]), State.WRONG)
    await servers.execute(own_postgres.url, f'CREATE DATABASE "{spec.database}"')
    await servers.execute(own_postgres.url, "REVOKE CREATE ON SCHEMA public FROM PUBLIC", spec.database)
    findings = await examine([spec])
    assert any("use the owner of the database" in each.text for each in findings if each.state is State.WRONG)


async def test_another_installation_s_stream_is_found(
    spec: ServiceSpec, postgres_url: str, nats: NatsClient
) -> None:
    from uuid import uuid4

    async with open_log(postgres_url, spec.database, spec.log) as log:
        await log.pool.execute("INSERT INTO log_identity (installation) VALUES ('ours')")
    theirs = JetStreamTwin(nats, spec.log, identity=Identity("theirs", uuid4()))
    await theirs.create(1)
    try:
        assert "belongs to installation theirs" in only(await examine([spec]), State.WRONG)
    finally:
        await theirs.delete()


async def test_another_installation_s_database_is_found(
    spec: ServiceSpec, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_log(postgres_url, spec.database, spec.log) as log:
        await log.pool.execute("INSERT INTO log_identity (installation) VALUES ('theirs')")
    monkeypatch.setenv("TWINLOG_INSTALLATION", "ours")
    assert "belongs to installation theirs" in only(await examine([spec]), State.SETTING)


def test_without_a_project_it_checks_what_everybody_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("POSTGRES_URL", "NATS_URL"):
        monkeypatch.delenv(name, raising=False)
    assert main(["doctor"]) == 2
    said = capsys.readouterr().out
    assert "POSTGRES_URL is not set: set it" in said
    assert "No project here" in said
    assert main(["doctor", "--json"]) == 2
    found = json.loads(capsys.readouterr().out)["findings"]
    assert [each["state"] for each in found] == ["setting"]
