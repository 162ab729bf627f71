"""Repairs that are killed before each of their steps and begun again, and several at once: all end as one does."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from tests.chain.history import tamper
from tests.forks import forks
from tests.kernel.batches import grow
from tests.repair.site import Site, copied, wrong_with
from tests.twin.relaying import mirrored, running
from twinlog import Unavailable
from twinlog.service.relink import MENDED, NOTHING
from twinlog.service.repair import Options
from twinlog.testing.internals import Relay

_REPAIRS = 3


class Asked(NamedTuple):
    """With what a repair is begun."""

    give_up: bool = False
    chain: bool = False


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


async def links_gone(site: Site) -> None:
    """Of the chain; the rest proves what they were."""
    await grow(site.log, 9, f"a{await site.log.head()}")
    await copied(site)
    await tamper(site.log, "DELETE FROM chain WHERE number = (SELECT max(number) FROM chain)")


async def links_changed(site: Site) -> None:
    """Nothing proves what they were."""
    await links_gone(site)
    await tamper(site.log, "UPDATE log_head SET hash = sha256('x')")


DAMAGES: Mapping[Callable[[Site], Awaitable[None]], Asked] = {
    lost_tail: Asked(),
    foreign_message: Asked(),
    only_copy: Asked(give_up=True),
    given_up: Asked(give_up=True),
    head_astray: Asked(),
    links_gone: Asked(chain=True),
    links_changed: Asked(give_up=True, chain=True),
}
"""Each with what the repair that mends it is asked."""


async def ended(site: Site) -> list[str]:
    """What is wrong once the relay has copied all."""
    async with running(Relay(site.log, site.twin)):
        await mirrored(site.log, site.twin)
    code, said = await site.repair(database=await site.database())
    left = [] if code == NOTHING and said.endswith("nothing to repair.") else [said]
    head, at = await site.log.head(), await site.other.checkpoint(f"other.{site.log.name}")
    return [*left, *await wrong_with(site), *([f"a consumer at {at} of {head}"] if at > head else [])]


async def test_a_repair_that_is_killed_at_each_step_is_begun_again(site: Site, tmp_path: Path) -> None:
    """By kill -9, before each statement, each commit and each change of the stream."""
    step, found = tmp_path / "step", dict[str, object]()
    options = Options(site.log.name, site.postgres_url, site.nats_url, await site.database())
    for damage, asked in DAMAGES.items():
        await damage(site)
        arguments = json.dumps(options._replace(**asked._asdict())._asdict()), str(step)
        ends: list[int] = []
        async with forks("tests.repair.process", *arguments) as repairs:
            while not ends or ends[-1] == -signal.SIGKILL:
                step.write_text(str(len(ends) + 1))
                ends.append(await repairs.ended(await repairs.start()))
        assert (ends[-1], len(ends) > 1) == (MENDED, True), (damage, ends)
        found[damage.__name__] = await ended(site)
    assert found == {damage.__name__: [] for damage in DAMAGES}


async def test_repairs_at_once_do_what_one_does(site: Site) -> None:
    database, found = await site.database(), {}

    async def one(asked: Asked) -> None:
        while True:
            try:
                await site.repair(give_up=asked.give_up, chain=asked.chain, database=database)
            except Unavailable:  # the log has changed meanwhile; try again
                continue
            return

    for damage, asked in DAMAGES.items():
        await damage(site)
        async with running(Relay(site.log, site.twin)):
            await asyncio.gather(*(one(asked) for _ in range(_REPAIRS)))
        found[damage.__name__] = await ended(site)
    assert found == {damage.__name__: [] for damage in DAMAGES}
