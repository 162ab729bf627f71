"""The page on erasing a person: what its snippet opens."""

from __future__ import annotations

from tests.docs.test_domain_pages import module
from twinlog import Personal
from twinlog.log.keys import cipher
from twinlog.memory.keys import MemoryKeys
from twinlog.model.personal import NONCE_BYTES, seal


async def test_a_query_opens_what_it_answers_until_the_person_is_erased() -> None:
    page = module("erasure")
    personal = Personal(MemoryKeys())
    [key] = (await personal.keys.get_or_make(["guest-1"])).values()
    assert key
    name = seal(cipher(key), b"n" * NONCE_BYTES, "guest-1", "Ada")
    assert name.startswith("sealed:v1:")
    assert await page.shown(personal, "guest-1", name) == "Ada"
    await personal.erase("guest-1")
    assert await page.shown(personal, "guest-1", name) == "erased"
