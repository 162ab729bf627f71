"""Two replicas on real servers, killed under way: each event is called for at least once, and answered exactly once."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from google.protobuf.wrappers_pb2 import Int64Value

from tests.dead_letters.journal import JOURNAL
from tests.effects.process import SAID
from tests.forks import forks
from twinlog import Schema, StreamId, Writer
from twinlog.log.ports import Log, ReadRequest
from twinlog.testing.internals import NatsClient, RandomIds, SystemClock, open_log

KEYS, NUMBERS, KILLS = "abcdefgh", range(1, 31), 3


def lines(file: Path) -> list[list[str]]:
    """Who called, under which key, and for what; a line that a kill has cut counts as none."""
    found = [line.split() for line in file.read_text().splitlines()]
    return [line for line in found if len(line) == 3]


async def journal(log: Log, key: str) -> list[int]:
    [stream] = await log.load([ReadRequest(StreamId(JOURNAL.name, key))])
    return [Int64Value.FromString(event.payload).value for event in stream.events]


async def test_two_replicas_that_are_killed_under_way(
    postgres_url: str, nats_url: str, database: str, nats: NatsClient, tmp_path: Path
) -> None:
    file = tmp_path / "calls"
    file.touch()
    env = {"POSTGRES_URL": postgres_url, "NATS_URL": nats_url}
    async with open_log(postgres_url, database, database) as log:
        async with Writer(log, schema=Schema(), clock=SystemClock(), ids=RandomIds()) as writer:
            for number in NUMBERS:
                await writer.execute(lambda tx, n=number: [tx.do(SAID, f"{k}/{n}", f"{k}:{n}") for k in KEYS])  # type: ignore[misc]
        async with forks("tests.effects.process", database, str(file), env=env) as replicas:
            for _ in range(2):
                await replicas.start()
            for _ in range(KILLS):
                before = len(lines(file))
                await replicas.until(lambda at=before: len(lines(file)) > at + 20)  # type: ignore[misc]
                await replicas.kill(int(lines(file)[-1][0]))
                await replicas.start()

            async def all_done() -> bool:
                return all([len(await journal(log, key)) >= len(NUMBERS) for key in KEYS])

            await replicas.until(all_done)
            assert {key: await journal(log, key) for key in KEYS} == {key: [*NUMBERS] for key in KEYS}
        await nats.jsm().delete_stream(database)
    names, first = defaultdict(set), dict[str, None]()
    for _, name, text in lines(file):
        names[text].add(name)
        first.setdefault(text)
    assert [*map(len, names.values())] == [1] * len(KEYS) * len(NUMBERS)
    for key in KEYS:
        assert [text for text in first if text[0] == key] == [f"{key}:{number}" for number in NUMBERS]
