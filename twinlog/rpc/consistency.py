"""Consistency tokens as metadata of calls, so that a client needs no field for them.

A request may carry ``twinlog-consistency-token``, and in ``twinlog-consistency`` what is to be done while the views are
not there: ``wait`` (as without it), ``now``: answer at once and say by how much it is stale, or ``fail``. Responses
carry ``twinlog-consistency-token``, of commands and of queries alike, and ``twinlog-stale-by`` where that was chosen.

Positions say nothing in another installation. A token is one text for every release, and has no place for more; so
``twinlog-consistency-installation`` says beside it whose it is, and a request that carries that, too, is refused
elsewhere.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple

from twinlog.log.installation import Installed
from twinlog.log.ports import Log
from twinlog.model.errors import InvalidArgument
from twinlog.rpc import tokens
from twinlog.rpc.context import Incoming

TOKEN_KEY = "twinlog-consistency-token"
CHOICE_KEY = "twinlog-consistency"
INSTALLATION_KEY = "twinlog-consistency-installation"
STALE_KEY = "twinlog-stale-by"
"""By log how many events the answer lacks, such as ``customers:1,orders:3``: written like a token."""

WAIT, NOW, FAIL = "wait", "now", "fail"
_PREFIX = "twinlog-consistency"


Whose = tuple[tuple[str, str], ...]
"""The metadata that say whose the positions of a response are; empty where that is unknown, as in memory."""


def whose(log: Log) -> Whose:
    """Those of a service with this log."""
    if not (isinstance(log, Installed) and log.installation):
        return ()
    return ((INSTALLATION_KEY, log.installation),)


class Wanted(NamedTuple):
    """What a caller wants of the freshness of an answer."""

    positions: Mapping[str, int]
    """By log."""
    choice: str


def wanted(
    context: Incoming, logs: Collection[str], in_request: Mapping[str, int], ours: Whose = ()
) -> Wanted:
    """What a call's metadata and the token of its request ask for, together.

    Of the metadata's token, only the ``logs`` count: a client may carry one token for all services. Raises
    InvalidArgument for an invalid token, for an unknown choice, and for an installation other than ``ours``.
    """
    given = {
        key: text
        for key, text in context.invocation_metadata() or ()
        if key.startswith(_PREFIX) and isinstance(text, str)
    }
    if not given:
        return Wanted(in_request, WAIT)
    choice = given.get(CHOICE_KEY, WAIT)
    if choice not in (WAIT, NOW, FAIL):
        raise InvalidArgument({CHOICE_KEY: f"must be {WAIT}, {NOW} or {FAIL}"})
    for key, installation in ours:
        if given.get(key, installation) != installation:
            problem = f"is another than {installation}, where its token means nothing; pass neither"
            raise InvalidArgument({key: problem})
    carried = tokens.parse(given.get(TOKEN_KEY, ""), None, TOKEN_KEY)
    both = dict(in_request)
    for log, position in carried.items():
        if log in logs:
            both[log] = max(position, both.get(log, 0))
    return Wanted(both, choice)


def tell(context: Incoming, token: str, ours: Whose = (), stale_by: Mapping[str, int] = {}) -> None:
    """Has the response carry them, where its edge has metadata at the end of responses, as gRPC does."""
    # An edge of another kind need not have it.
    if set_trailing := getattr(context, "set_trailing_metadata", None):
        told = ((TOKEN_KEY, token), *ours)
        set_trailing((*told, (STALE_KEY, tokens.write(stale_by))) if stale_by else told)
