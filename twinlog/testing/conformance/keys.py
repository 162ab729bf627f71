"""What every store of the keys of persons does."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from twinlog.log.keys import KEY_BYTES, Keys

_RECENTLY = timedelta(minutes=1)


class KeysConformance:
    """Give it a fixture ``keys``, an empty store."""

    async def test_a_key_is_made_once(self, keys: Keys) -> None:
        assert await keys.get(["ada"]) == {}
        made = await keys.get_or_make(["ada", "bob"])
        assert [len(key or b"") for key in made.values()] == [KEY_BYTES, KEY_BYTES]
        assert made["ada"] != made["bob"]
        assert await keys.get_or_make(["bob", "ada"]) == made == await keys.get(["ada", "bob", "nobody"])

    async def test_who_asks_at_once_is_given_the_same(self, keys: Keys) -> None:
        everybody = [f"person-{number}" for number in range(20)]
        orders = (everybody, everybody[::-1], everybody[10:] + everybody[:10])
        given = await asyncio.gather(*(keys.get_or_make(order) for order in orders))
        assert given[0] == given[1] == given[2]
        assert given[0].keys() == set(everybody)

    async def test_a_destroyed_key_is_gone_for_good(self, keys: Keys) -> None:
        made = await keys.get_or_make(["ada", "bob"])
        assert await keys.destroy("ada")
        assert not await keys.destroy("ada")
        assert await keys.get_or_make(["ada", "bob"]) == {"ada": None, "bob": made["bob"]}
        assert await keys.destroyed(_RECENTLY) == ["ada"]

    async def test_who_never_had_a_key_gets_none_once_erased(self, keys: Keys) -> None:
        assert not await keys.destroy("carol")
        assert await keys.get_or_make(["carol"]) == {"carol": None} == await keys.get(["carol"])
        assert await keys.destroyed(_RECENTLY) == ["carol"]

    async def test_any_text_names_a_person(self, keys: Keys) -> None:
        names = ["", "Ω/1", "a" * 500, "o'neil"]
        assert (await keys.get_or_make(names)).keys() == set(names)

    async def test_keys_are_counted_by_what_wraps_them(self, keys: Keys) -> None:
        await keys.get_or_make(["ada", "bob", "carol"])
        await keys.destroy("bob")
        assert sum((await keys.wrapped_by()).values()) == 2
        assert await keys.rewrap(100) == 0, "they are in the newest wrapping"
