"""Links that are gone are made again from the events, as they were or, where that cannot be, anew; as is printed."""

from __future__ import annotations

from collections.abc import Sequence

from tests.chain.history import tamper, verified
from tests.chain.test_gaps import append_without
from tests.chain.test_tampering import history, put_back
from tests.kernel.batches import grow
from twinlog.log.chain import SEALED, Head
from twinlog.service.relink import LEFT, MENDED, NOTHING, relink
from twinlog.testing.internals import PostgresLog

__all__ = ["history"]

AS_THEY_WERE = {
    "all": ["DELETE FROM chain"],
    "the first": ["DELETE FROM chain WHERE number = 1"],
    "one in between": ["DELETE FROM chain WHERE number = 3"],
    "the last": ["DELETE FROM chain WHERE number = 6"],
    "several": ["DELETE FROM chain WHERE number IN (1, 2, 5)"],
}
ANEW = {
    "an event was changed": [
        "DELETE FROM chain WHERE number = 3",
        r"UPDATE events SET payload = payload || '\x00' WHERE position = 5",
    ],
    "a link was changed": ["UPDATE chain SET hash = sha256('x') WHERE number = 3"],
    "the noted hash was changed": ["DELETE FROM chain", "UPDATE log_head SET hash = sha256('x')"],
    "the noted number was changed": ["UPDATE log_head SET links = 7"],
    "one was of two batches": [
        "UPDATE events SET recorded_at = (SELECT recorded_at FROM events WHERE position = 1) WHERE position < 4",
        "DELETE FROM chain WHERE number < 3",
    ],
}


async def asked(log: PostgresLog, *, dry_run: bool = False, give_up: bool = False) -> tuple[int, str]:
    said: list[str] = []
    return await relink(log, said.append, dry_run=dry_run, give_up=give_up), "\n".join(said)


async def differs(log: PostgresLog, *noted: Head) -> bool:
    return (await verified(log, None, *noted))[0] is not None


async def heads(log: PostgresLog) -> Sequence[Head]:
    return [Head.of(log.name, link) for link in await log.links(0, 100)]


async def test_links_that_are_gone_come_back_as_they_were(history: tuple[PostgresLog, object]) -> None:
    log, _ = history
    links, noted = await log.links(0, 100), await heads(log)
    wrong: list[str] = []
    for name, statements in AS_THEY_WERE.items():
        await tamper(log, *statements)
        _, findings = await verified(log)
        told = all("`twinlog repair counters --chain" in each.remedy for each in findings.kept)
        dry = (await asked(log, dry_run=True))[0], await differs(log)
        code, said = await asked(log)
        whole = await log.links(0, 100) == links and not await differs(log, *noted)
        if not (told and dry == (MENDED, True) and code == MENDED and "they are the same" in said and whole):
            wrong.append(f"{name}: {told} {dry} {code} {said} {whole}")
        await put_back(log)
    assert not wrong, "\n".join(wrong)
    assert (await asked(log))[0] == NOTHING


async def test_links_after_those_that_are_gone_prove_them(history: tuple[PostgresLog, object]) -> None:
    log, _ = history
    await tamper(log, "DELETE FROM chain")
    await grow(log, 2, "b")
    noted = await heads(log)
    assert (await asked(log))[0] == MENDED
    assert (await heads(log))[-len(noted) :] == noted
    assert not await differs(log, *noted)


async def test_where_they_cannot_be_as_they_were_the_chain_begins_anew(
    history: tuple[PostgresLog, object],
) -> None:
    log, _ = history
    noted = await heads(log)
    wrong: list[str] = []
    for name, statements in ANEW.items():
        await tamper(log, *statements)
        first = await asked(log)
        left = first[0] == LEFT and "--chain --give-up" in first[1] and await differs(log)
        dry = (await asked(log, dry_run=True, give_up=True))[0] == MENDED and await differs(log)
        code, said = await asked(log, give_up=True)
        sealed = {link.kind for link in await log.links(0, 100)} == {SEALED} and not await differs(log)
        if not (left and dry and code == MENDED and "prove nothing" in said and sealed):
            wrong.append(f"{name}: {left} {dry} {code} {said} {sealed}")
        if not await differs(log, *noted):
            wrong.append(f"{name}: a head from before is believed")
        await put_back(log)
    assert not wrong, "\n".join(wrong)
    await tamper(log, *ANEW["a link was changed"])
    await asked(log, give_up=True)
    await grow(log, 2, "b")
    assert not await differs(log, *await heads(log))


async def test_events_that_nobody_knows_to_be_without_a_link_are_sealed(
    history: tuple[PostgresLog, object],
) -> None:
    log, _ = history
    await append_without(log, 3)
    await log.pool.execute("SELECT note_unlinked()")
    assert (await asked(log))[0] == NOTHING, "they wait"
    await tamper(log, "DELETE FROM unlinked")
    noted = await heads(log)
    assert await differs(log)
    code, said = await asked(log)
    assert (code, "No link covers events 14 to 16" in said) == (MENDED, True)
    assert not await differs(log, *noted)
