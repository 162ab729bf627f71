"""Repairs that are killed before each of their steps and begun again, and several at once: all end as one does."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import asyncpg
from asyncpg.transaction import Transaction

from tests.kernel.batches import grow
from tests.repair.site import Site, copied, wrong_with
from tests.twin.relaying import mirrored, running
from twinlog import Unavailable
from twinlog.postgres import repair as postgres
from twinlog.service.relink import MENDED, NOTHING
from twinlog.testing.internals import JetStreamTwin, Relay

_REPAIRS = 3


class Killed(BaseException):
    """Ends a repair as kill -9 does: the server undoes what is open."""


STEPS: Sequence[tuple[Any, str]] = (
    (Transaction, "_Transaction__commit"),  # what both ``commit`` and the end of a block call
    (asyncpg.Connection, "copy_records_to_table"),
    (postgres, "set_back"),
    (JetStreamTwin, "delete"),
)
"""What changes something. Inside a transaction one step stands for all: whichever it is, the server undoes the same."""


@contextmanager
def killed_before(step: int) -> Iterator[None]:
    """Ends what is done inside right before its step of that number."""
    taken = 0
    before = [(owner, name, getattr(owner, name)) for owner, name in STEPS]

    def counting(original: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def taking(*arguments: Any, **options: Any) -> Any:
            nonlocal taken
            taken += 1
            if taken == step:
                raise Killed
            return await original(*arguments, **options)

        return taking

    try:
        for owner, name, original in before:
            setattr(owner, name, counting(original))
        yield
    finally:
        for owner, name, original in before:
            setattr(owner, name, original)


async def lost_tail(site: Site) -> None:
    """The log lost its last events, and recorded others: one stream goes on, another one went another way."""
    head = await site.log.head()
    await grow(site.log, 9, f"a{head}")
    await copied(site)
    await site.cut(head + 5)
    await grow(site.log, 2, f"a{head}")
    await grow(site.log, 3, f"b{head}")


async def foreign_message(site: Site) -> None:
    """Somebody published into the stream, and the log lost events besides."""
    head = await site.log.head()
    await grow(site.log, 9, f"a{head}")
    await copied(site)
    await site.damage.put("7.Other.-", b"someone else's")
    await site.cut(head + 7)


async def lost(site: Site) -> int:
    """The log has lost events that its stream has and a consumer has handled. The head before all that."""
    head = await site.log.head()
    events = await grow(site.log, 9, f"a{head}")
    await copied(site)
    await site.consume(events[-1])
    await site.cut(head + 5)
    return head


async def only_copy(site: Site) -> None:
    """Log and stream have lost what a consumer has handled."""
    await lost(site)
    await site.twin.delete()
    await copied(site)


async def given_up(site: Site) -> None:
    """The stream has what the log lost, and it is let go of."""
    head = await lost(site)
    await grow(site.log, 3, f"b{head}")


async def head_astray(site: Site) -> None:
    """Table log_head was set back."""
    await grow(site.log, 9, f"a{await site.log.head()}")
    await copied(site)
    await site.log.pool.execute("UPDATE log_head SET position = position - 4")


DAMAGES: Mapping[Callable[[Site], Awaitable[None]], bool] = {
    lost_tail: False,
    foreign_message: False,
    only_copy: True,
    given_up: True,
    head_astray: False,
}
"""Each with whether what is lost has to be given up."""


async def ended(site: Site) -> list[str]:
    """What is wrong once the relay has copied all."""
    async with running(Relay(site.log, site.twin)):
        await mirrored(site.log, site.twin)
    code, said = await site.repair(database=await site.database())
    left = [] if code == NOTHING and said.endswith("nothing to repair.") else [said]
    head, at = await site.log.head(), await site.other.checkpoint(f"other.{site.log.name}")
    return [*left, *await wrong_with(site), *([f"a consumer at {at} of {head}"] if at > head else [])]


async def test_a_repair_that_is_killed_at_each_step_is_begun_again(site: Site) -> None:
    database, found = await site.database(), {}
    for damage, give_up in DAMAGES.items():
        await damage(site)
        killed, code = 0, None
        while code is None:
            with suppress(Killed), killed_before(killed + 1):
                code, _ = await site.repair(give_up=give_up, database=database)
            killed += code is None
        assert (code, killed > 0) == (MENDED, True)
        found[damage.__name__] = await ended(site)
    assert found == {damage.__name__: [] for damage in DAMAGES}


async def test_repairs_at_once_do_what_one_does(site: Site) -> None:
    database, found = await site.database(), {}

    async def one(give_up: bool) -> None:
        while True:
            try:
                await site.repair(give_up=give_up, database=database)
            except Unavailable:  # the log has changed meanwhile; try again
                continue
            return

    for damage, give_up in DAMAGES.items():
        await damage(site)
        async with running(Relay(site.log, site.twin)):
            await asyncio.gather(*(one(give_up) for _ in range(_REPAIRS)))
        found[damage.__name__] = await ended(site)
    assert found == {damage.__name__: [] for damage in DAMAGES}
