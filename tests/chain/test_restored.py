"""A log that was restored from its file has its chain: heads that were noted before prove it."""

from __future__ import annotations

from pathlib import Path

from tests import servers
from tests.chain.history import fill, verified
from tests.chain.test_gaps import append_without, links
from tests.kernel.batches import grow
from twinlog.log.chain import APPENDED, SEALED, Head
from twinlog.service.export import Options, export_log, import_file
from twinlog.testing.internals import PostgresLog, open_log


async def test_heads_from_before_prove_what_was_restored(
    postgres_log: PostgresLog, postgres_url: str, database: str, tmp_path: Path
) -> None:
    await append_without(postgres_log, 2)
    twin = await fill(postgres_log)
    await append_without(postgres_log, 1)
    noted = [Head.of("counters", link) for link in await postgres_log.links(0, 100)]
    file = tmp_path / "counters.twinlog"
    await export_log(Options("counters", file, postgres_url, database))

    async with servers.empty_database(postgres_url) as target:
        await import_file(Options("counters", file, postgres_url, target))
        async with open_log(postgres_url, target, "counters") as log:
            assert await log.links(0, 100) == await postgres_log.links(0, 100)
            assert await log.unlinked() == [(1, 2), (16, 16)]
            assert (await verified(log, None, *noted))[0] is None
            await grow(log, 1, "b")
            while await log.seal(10):
                pass
            assert (await links(log))[-3:] == [(APPENDED, 17, 17), (SEALED, 1, 2), (SEALED, 16, 16)]
            assert (await verified(log, None, *noted))[0] is None
    assert twin.state.last == 15


async def test_a_log_without_links_is_sealed_where_it_was_restored(
    postgres_log: PostgresLog, postgres_url: str, database: str, tmp_path: Path
) -> None:
    await append_without(postgres_log, 3)
    file = tmp_path / "counters.twinlog"
    await export_log(Options("counters", file, postgres_url, database))
    async with servers.empty_database(postgres_url) as target:
        await import_file(Options("counters", file, postgres_url, target))
        async with open_log(postgres_url, target, "counters") as log:
            assert await log.seal(10) == 3
            assert await links(log) == [(SEALED, 1, 3)]
