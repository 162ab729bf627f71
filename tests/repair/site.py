"""A log with its stream on real servers, to be damaged and repaired."""

from __future__ import annotations

from dataclasses import dataclass

from tests.kernel.batches import append, batch
from tests.twin.damage import JetStreamDamage
from tests.twin.relaying import mirrored, running
from twinlog import Recorded
from twinlog.audit.chain import ChainAudit
from twinlog.audit.report import Findings
from twinlog.service.repair import Options, repair
from twinlog.testing.internals import CheckpointAdvance, JetStreamTwin, PostgresLog, Relay


@dataclass
class Site:
    """A log, its stream, and a consumer of it in another database."""

    postgres_url: str
    nats_url: str
    log: PostgresLog
    other: PostgresLog
    twin: JetStreamTwin
    damage: JetStreamDamage

    async def database(self) -> str:
        """The name of the log's."""
        return str(await self.log.pool.fetchval("SELECT current_database()"))

    async def repair(
        self, *, dry_run: bool = False, give_up: bool = False, database: str = "", chain: bool = False
    ) -> tuple[int, str]:
        """The exit code, and what is said."""
        said: list[str] = []
        asked = Options(
            self.log.name, self.postgres_url, self.nats_url, database, dry_run, give_up, chain=chain
        )
        return await repair(asked, said.append), "\n".join(said)

    async def consume(self, upto: Recorded) -> None:
        """Has the consumer stand at an event."""
        consumer = f"other.{self.log.name}"
        after = await self.other.checkpoint(consumer)
        await append(
            self.other, batch(advances=[CheckpointAdvance(consumer, after, upto.position, upto.event_id)])
        )

    async def cut(self, keep: int) -> None:
        """Sets the log back."""
        async with self.log.pool.acquire() as connection, connection.transaction():
            await connection.execute("SET LOCAL session_replication_role = replica")
            await connection.execute("DELETE FROM events WHERE position > $1", keep)
            await connection.execute("UPDATE log_head SET position = $1", keep)


async def copied(site: Site) -> None:
    async with running(Relay(site.log, site.twin)):
        await mirrored(site.log, site.twin)


async def wrong_with(site: Site) -> list[str]:
    """What is wrong with positions, head and chain."""
    found = Findings()
    await ChainAudit(site.log, None).verify(found)
    positions = [event.position for event in await site.log.read(0, 1000)]
    wrong = [violation.says for violation in found.kept]
    if positions != [*range(1, await site.log.head() + 1)]:
        wrong.append(f"positions {positions}, head {await site.log.head()}")
    return wrong
