"""The keys are restored from a backup that is older than an erasure: nobody comes back by it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest
from structlog.testing import capture_logs

from tests.servers import database, empty_database
from twinlog import Unavailable
from twinlog.log.keys import RememberedKeys
from twinlog.log.wrapping import Wrapping
from twinlog.memory.keys import MemoryKeys
from twinlog.postgres.keys import PostgresErasures, PostgresKeys, open_keys
from twinlog.postgres.log import open_log
from twinlog.testing.conformance import KeysConformance

DAY = timedelta(days=1)


@asynccontextmanager
async def remembered(url: str) -> AsyncIterator[tuple[PostgresKeys, RememberedKeys, PostgresErasures]]:
    async with (
        database(url) as log,
        empty_database(url) as name,
        open_log(url, log, "guests") as opened,
        open_keys(url, name, Wrapping({})) as keys,
    ):
        erasures = PostgresErasures(opened.pool)
        yield keys, RememberedKeys(keys, erasures), erasures


class TestRememberedKeys(KeysConformance):
    """They are keys like others."""

    @pytest.fixture
    async def keys(self, postgres_url: str) -> AsyncIterator[RememberedKeys]:
        async with remembered(postgres_url) as (_, keys, _):
            yield keys


async def restore(keys: PostgresKeys, old: dict[str, bytes]) -> None:
    """What a backup has; connections end, as they do where a database is replaced."""
    async with keys.pool.acquire() as connection:
        await connection.execute("DELETE FROM subject_keys")
        await connection.executemany(
            "INSERT INTO subject_keys (subject, key, wrapped_by) VALUES ($1, $2, '')", [*old.items()]
        )
    await keys.pool.expire_connections()


async def test_who_was_erased_is_erased_again_before_anything_is_read(postgres_url: str) -> None:
    async with remembered(postgres_url) as (store, keys, erasures):
        old = await keys.get_or_make(["ada", "bob"])
        assert await keys.destroy("ada")
        assert not await keys.destroy("carol"), "who never had a key"
        backup = {subject: key for subject, key in old.items() if key}
        with capture_logs() as said:
            for _ in range(2):
                await restore(store, backup)
                assert await keys.get(["ada", "bob"]) == {"ada": None, "bob": old["bob"]}
                assert await keys.get_or_make(["carol"]) == {"carol": None}
            await restore(store, backup)
            restarted = RememberedKeys(store, erasures)
            await restarted.agree()
            assert await store.get(["ada", "carol"]) == {"ada": None, "carol": None}
        assert [(line["event"], line["count"]) for line in said] == [("keys.erased_again", 2)] * 3
        assert {*await keys.destroyed(DAY)} == {"ada", "carol"}, "so every process is told again"


async def test_each_log_remembers_what_others_erased(postgres_url: str) -> None:
    async with remembered(postgres_url) as (store, keys, erasures):
        await store.destroy("ada")  # by another service, and by one from before this was noted
        await keys.get([])
        assert await erasures.noted() == ["ada"]


async def test_an_erasure_that_could_not_be_noted_is_to_be_repeated() -> None:
    class Store(MemoryKeys):
        connections = 1

    class Away:
        async def note(self, subjects: object) -> None:
            raise Unavailable("no answer")

        async def noted(self) -> list[str]:
            return []

    store = Store()
    with pytest.raises(Unavailable):
        await RememberedKeys(store, Away()).destroy("ada")
    assert await store.get(["ada"]) == {"ada": None}
