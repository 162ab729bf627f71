"""The keys of persons, in memory and in Postgres, and their wrapping."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from base64 import b64encode
from collections.abc import AsyncIterator
from datetime import timedelta

import asyncpg
import pytest

from stack.topology import ROOT
from tests.programs import program
from tests.servers import empty_database, execute, own_clock, set_clock
from tests.waiting import until
from twinlog import ConfigurationError
from twinlog.cli import main
from twinlog.log.keys import Keys, KeysUnavailable
from twinlog.log.wrapping import Wrapping, wrapping_keys
from twinlog.memory.keys import MemoryKeys
from twinlog.postgres.keys import PostgresKeys, open_keys, open_keys_by_and_by
from twinlog.postgres.urls import database_url
from twinlog.service.settings import Settings, load
from twinlog.testing.conformance import KeysConformance

OLD, NEW = os.urandom(32), os.urandom(32)


class TestKeys(KeysConformance):
    """All adapters, and Postgres with wrapped keys, too."""

    @pytest.fixture(params=["memory", "postgres", "wrapped"])
    def store(self, request: pytest.FixtureRequest) -> tuple[str, str]:
        kind: str = request.param
        return kind, "" if kind == "memory" else request.getfixturevalue("postgres_url")

    @pytest.fixture
    async def keys(self, store: tuple[str, str]) -> AsyncIterator[Keys]:
        kind, url = store
        if kind == "memory":
            yield MemoryKeys()
            return
        wrapping = Wrapping({"a": OLD} if kind == "wrapped" else {})
        async with empty_database(url) as name, open_keys(url, name, wrapping) as opened:
            yield opened


async def _stored(url: str, name: str) -> list[bytes]:
    connection = await asyncpg.connect(database_url(url, name))
    try:
        return [
            row[0] for row in await connection.fetch("SELECT key FROM subject_keys WHERE key IS NOT NULL")
        ]
    finally:
        await connection.close()


async def test_keys_that_are_away_at_the_start_come_by_and_by(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("twinlog.postgres.keys.START_SECONDS", 0.1)
    async with empty_database(postgres_url) as name:
        await execute(postgres_url, f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false', "postgres")
        async with open_keys_by_and_by(postgres_url, name, Wrapping({})) as keys:
            with pytest.raises(KeysUnavailable, match="was away when the process started"):
                await keys.get_or_make(["ada"])
            await execute(postgres_url, f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true', "postgres")

            async def there() -> bool:
                try:
                    return bool((await keys.get_or_make(["ada"]))["ada"])
                except KeysUnavailable:
                    return False

            await until(there)


async def test_an_erasure_is_learned_although_the_clock_is_set_forward_meanwhile(postgres_url: str) -> None:
    recently = timedelta(minutes=10)
    async with empty_database(postgres_url) as name, open_keys(postgres_url, name, Wrapping({})) as keys:
        await own_clock(postgres_url, name)
        await keys.pool.expire_connections()
        await keys.get_or_make(["ada"])
        assert await keys.destroyed(recently) == []
        await keys.destroy("ada")
        await set_clock(postgres_url, name, "1 hour")
        assert await keys.destroyed(recently) == ["ada"]
        assert await keys.destroyed(recently) == []


async def test_the_wrapping_rotates(postgres_url: str) -> None:
    async with empty_database(postgres_url) as name:
        await _rotate(postgres_url, name)


async def _rotate(url: str, name: str) -> None:
    people = [f"person-{number}" for number in range(7)]
    async with open_keys(url, name, Wrapping({})) as keys:
        made = dict(await keys.get_or_make(people))
        assert set(await _stored(url, name)) == set(made.values()), "as they are"
    async with open_keys(url, name, Wrapping({"old": OLD})) as keys:
        assert await keys.get(people) == made
        assert [await keys.rewrap(5), await keys.rewrap(5), await keys.rewrap(5)] == [5, 2, 0]
        assert await keys.wrapped_by() == {"old": 7}
        assert not set(await _stored(url, name)) & set(made.values())
    async with open_keys(url, name, Wrapping({"new": NEW, "old": OLD})) as keys:
        assert await keys.get(people) == made
        assert await keys.rewrap(3) == 3, "and then it is killed"
    async with open_keys(url, name, Wrapping({"new": NEW, "old": OLD})) as keys:
        assert await keys.get(people) == made
        for erased in (people[0], people[6]):  # one that is wrapped anew, and one that is not
            assert await keys.destroy(erased)
            made[erased] = None
        assert await keys.get(people) == made
        late = await keys.get_or_make(["late"])
    async with open_keys(url, name, Wrapping({"old": OLD})) as keys:
        with pytest.raises(KeysUnavailable, match=r"wrapped by 'new'; add it"):
            await keys.get(["late"])
    async with open_keys(url, name, Wrapping({"new": NEW, "old": OLD})) as keys:
        assert await keys.rewrap(100) == 3
    async with open_keys(url, name, Wrapping({"new": NEW})) as keys:
        assert await keys.get([*people, "late"]) == {**made, **late}
        assert await keys.wrapped_by() == {"new": 6}


_HELD = """
CREATE FUNCTION held() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN PERFORM pg_advisory_xact_lock(42); RETURN NEW; END $$;
CREATE TRIGGER held BEFORE UPDATE ON subject_keys FOR EACH ROW WHEN (NEW.subject = 'p-0600') EXECUTE FUNCTION held()
"""
"""Whoever wraps that key anew waits for a lock."""
_WAITING = """
SELECT count(*) FROM pg_locks l JOIN pg_database d ON d.oid = l.database
 WHERE NOT l.granted AND l.locktype = 'advisory' AND d.datname = current_database()
"""


async def test_no_key_is_lost_where_a_rotation_is_killed(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed in its second batch; its session goes on for a while, and holds what it was about to change."""
    people = [f"p-{number:04}" for number in range(700)]
    both = ",".join(f"{name}={b64encode(key).decode()}" for name, key in (("new", NEW), ("old", OLD)))
    monkeypatch.setattr("twinlog.cli.erasure._TRIES", 1)
    monkeypatch.setattr("twinlog.cli.erasure._PAUSE_SECONDS", 0.0)
    monkeypatch.setenv("PERSONAL_WRAPPING_KEYS", both)
    for name in ("TWINLOG_NAMESPACE", "PERSONAL_KEYS_URL"):  # as a service beside may have them
        monkeypatch.delenv(name, raising=False)
    async with empty_database(postgres_url) as name:
        monkeypatch.setenv("PERSONAL_KEYS_DATABASE", name)
        async with open_keys(postgres_url, name, Wrapping({"old": OLD})) as keys:
            made = dict(await keys.get_or_make(people))
        connection = await asyncpg.connect(database_url(postgres_url, name))
        await connection.execute(_HELD)
        await connection.execute("SELECT pg_advisory_lock(42)")
        command = ["erasure", "rewrap", "--postgres-url", postgres_url]

        async def waits() -> bool:
            return bool(await connection.fetchval(_WAITING))

        async with program(sys.executable, "-m", "twinlog", *command, env=os.environ, cwd=ROOT) as rewrap:
            await rewrap.until(waits)
            await rewrap.ends_at(signal.SIGKILL)
        assert await asyncio.to_thread(main, command) == 1, "some are held: the old key is needed still"
        async with open_keys(postgres_url, name, Wrapping({"new": NEW, "old": OLD})) as keys:
            assert await keys.wrapped_by() == {"new": 500, "old": 200}
            assert await keys.get(people) == made
        await connection.close()  # which sets the killed one's session free: nobody hears it any more

        async def ended() -> bool:
            return await asyncio.to_thread(main, command) == 0

        await until(ended)
        async with open_keys(postgres_url, name, Wrapping({"new": NEW})) as keys:
            assert await keys.wrapped_by() == {"new": 700}
            assert await keys.get(people) == made


async def test_a_wrapping_key_that_is_gone_is_an_outage(postgres_url: str) -> None:
    async with (
        empty_database(postgres_url) as name,
        open_keys(postgres_url, name, Wrapping({"old": OLD})) as keys,
    ):
        await keys.get_or_make(["ada"])
        for wrapping in (Wrapping({}), Wrapping({"new": NEW}), Wrapping({"old": NEW})):
            with pytest.raises(KeysUnavailable, match="PERSONAL_WRAPPING_KEYS"):
                await PostgresKeys(keys.pool, wrapping).get(["ada"])


@pytest.mark.parametrize(
    "wrong",
    ["a", "a=b", f"a={b64encode(OLD[:31]).decode()}", "=" + b64encode(OLD).decode()],
    ids=["no key", "no base64", "a short key", "no name"],
)
def test_a_wrong_wrapping_key_is_refused_and_not_shown(wrong: str) -> None:
    with pytest.raises(
        ConfigurationError, match="PERSONAL_WRAPPING_KEYS is wrong: must be name=key"
    ) as refused:
        load(Settings, postgres_url="postgresql://h", nats_url="nats://h", personal_wrapping_keys=wrong)
    assert len(wrong) < 9 or wrong.partition("=")[2] not in str(refused.value)


def test_the_newest_wrapping_key_comes_first() -> None:
    text = f"new={b64encode(NEW).decode()},\n old={b64encode(OLD).decode()}\n"
    assert list(wrapping_keys(text).items()) == [("new", NEW), ("old", OLD)]
    assert Wrapping(wrapping_keys(text)).newest == "new"
