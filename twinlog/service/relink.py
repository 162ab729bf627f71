"""``twinlog repair LOG --chain``: makes links of a log's chain again that are gone."""

from __future__ import annotations

from collections.abc import Callable

from twinlog.log.chain import Head
from twinlog.log.relinking import lost_links
from twinlog.postgres import repair as postgres
from twinlog.postgres.log import PostgresLog

_SEALED_AT_ONCE = 500

NOTHING, MENDED, LEFT = 0, 0, 1
"""Exit codes of repairs."""


async def relink(
    log: PostgresLog, say: Callable[[str], None] = print, *, dry_run: bool = False, give_up: bool = False
) -> int:
    """Makes links of a log's chain again that are gone; gives the exit code. Raises Unavailable, ConfigurationError."""
    lost = await lost_links(log)
    if lost.proven and not lost.gone and not lost.unnoted:
        say(
            f"The chain of {log.name} has all of its links: nothing to make again. `twinlog audit --chain` verifies it."
        )
        return NOTHING
    anew = not lost.proven
    if anew and not give_up:
        gone = f"{lost.gone} of its links are gone, and " if lost.gone else ""
        say(
            f"The chain of {log.name} cannot be made again as it was: {gone}what is left does not follow from the "
            "events of now. Either an event or a link was changed, which `twinlog audit --chain` tells as far as links "
            "are left; or a link is gone that was sealed later, or made by a repair."
        )
        say(
            "Restore table chain from a backup. Or begin the chain anew, with --chain --give-up: the events are proven "
            "from then on, and heads that were noted before prove nothing any more."
        )
        return LEFT
    if lost.gone and not anew:
        say(
            f"The chain of {log.name} has lost {lost.gone} links. Made again from the events, they lead to the hash "
            "that was noted: they are the same, and heads that were noted elsewhere prove what they did."
        )
    for run in lost.unnoted:
        say(f"No link covers events {run.first} to {run.last}; they are sealed, and proven from then on.")
    if anew:
        say("The chain begins anew. Heads that were noted before prove nothing any more.")
    if dry_run:
        say("Nothing was changed: this was a dry run.")
        return MENDED
    await (postgres.begin_chain(log.pool) if anew else postgres.put_links(log.pool, lost))
    while await log.seal(_SEALED_AT_ONCE):
        pass
    if waiting := await log.unlinked():
        say(f"Events from {waiting[0].first} on cannot be sealed: some are gone, as `twinlog audit` tells.")
        return LEFT
    if newest := await log.newest_link():
        say(f"The chain of {log.name} is whole. Note its head elsewhere: {Head.of(log.name, newest)}")
    return MENDED
