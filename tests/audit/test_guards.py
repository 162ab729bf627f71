"""A log whose tables no longer refuse changes, or lack an index, is named, with the statement that puts that right."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import asyncpg
import pytest

from twinlog.audit import Findings
from twinlog.audit.auditor import INDEXED, judge_guards
from twinlog.postgres.indexes import INDEXES
from twinlog.service.doctor_findings import State
from twinlog.service.doctor_postgres import indexes
from twinlog.testing.internals import open_log


async def test_a_trigger_that_is_off_or_gone_is_named_and_put_back_as_told(
    postgres_url: str, database: str
) -> None:
    wrong: list[str] = []
    async with open_log(postgres_url, database, "counters") as log:

        async def found() -> Findings:
            findings = Findings()
            await judge_guards(log.pool, log.name, database, findings)
            return findings

        assert not (await found()).kept
        for table in ("events", "chain"):
            for how in (
                f"ALTER TABLE {table} DISABLE TRIGGER insert_only",
                f"ALTER TABLE {table} ENABLE REPLICA TRIGGER insert_only",
                f"DROP TRIGGER insert_only ON {table}",
            ):
                await log.pool.execute(how)
                told = [
                    (each.ids, shlex.split(each.remedy, comments=True)[3]) for each in (await found()).kept
                ]
                await log.pool.execute(told[0][1] if told else "SELECT")
                if [ids for ids, _ in told] != [["counters", table]] or (await found()).kept:
                    wrong.append(f"{how}: {told}")
    assert not wrong, "\n".join(wrong)


def test_the_indexes_are_those_of_the_migrations() -> None:
    catalogue = json.loads(Path(__file__).parents[1].joinpath("log", "catalogue.json").read_text())["indexes"]
    made = {name: text.replace("public.", "").replace(" USING btree", "") for name, text in catalogue.items()}
    assert {name: text.replace('"', "") for name, text in made.items()} == {
        each.name: f"CREATE {'UNIQUE ' if each.unique else ''}INDEX {each.name} ON {each.table} {each.on}"
        for each in INDEXES
    }


async def test_an_index_that_is_gone_or_not_whole_is_named_and_made_as_told(
    postgres_url: str, database: str
) -> None:
    wrong: list[str] = []
    async with open_log(postgres_url, database, "counters") as log:
        await log.pool.execute("CREATE TABLE twice AS SELECT 1 AS it FROM generate_series(1, 2)")
        with pytest.raises(asyncpg.UniqueViolationError):
            await log.pool.execute("CREATE UNIQUE INDEX CONCURRENTLY once ON twice (it)")
        await log.pool.execute("DELETE FROM twice")
        await log.pool.execute("ALTER TABLE timers DROP CONSTRAINT timers_pkey; DROP INDEX timers_due")
        for _ in range(2):
            findings = Findings()
            await judge_guards(log.pool, log.name, database, findings)
            told = {
                each.ids[1]: shlex.split(each.remedy, comments=True)[3]
                for each in findings.kept
                if each.check == INDEXED
            }
            doctor = await indexes(log.pool.fetch, database)
            missing = [name for name in told if name not in doctor.text]
            if missing or (doctor.state is State.OK) == bool(told):
                wrong.append(f"the doctor says {doctor.text}, the audit {told}")
            for statement in told.values():
                await log.pool.execute(statement)
            wrong += [] if told else ["all is well"]
        assert wrong == ["all is well"]
        assert [*told] == []
