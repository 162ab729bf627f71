"""A log whose tables no longer refuse changes is named, with the statement that puts that right."""

from __future__ import annotations

import shlex

from twinlog.audit import Findings
from twinlog.audit.guards import judge_guards
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
