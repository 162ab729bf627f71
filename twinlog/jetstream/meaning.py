"""What an error of NATS means. Everything is an outage, which passes, but for what this table lists.

The table is also a page for people, docs/reference/errors.md; a test holds the two together.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from nats.errors import NoRespondersError
from nats.js.errors import APIError, ServiceUnavailableError

from twinlog._aio.reasons import reason
from twinlog.model.errors import Unavailable, WrongSetting


class Rule(NamedTuple):
    """A misconfiguration: refused at start; later an outage that names the setting and the way out."""

    text: str
    """What the message has in it, as a regular expression."""
    setting: str
    what: str
    remedy: str


RULES: Sequence[Rule] = (
    Rule(r"authorization violation|(user|account) authentication (expired|revoked)", "NATS_URL",
         "NATS refuses the login", "correct user and password, percent-encoded"),
    Rule("permissions violation", "NATS_URL", "this user lacks a permission",
         "let it publish $JS.API.> and the logs' subjects, and subscribe to _INBOX.>"),
    Rule("maximum subscriptions exceeded", "NATS_URL", "this user, or its account, may not subscribe as often",
         "raise max_subscriptions: a process has one for each consumer and a few more"),
    Rule("maximum payload (exceeded|violation)", "NATS_URL", "this nats-server takes smaller messages than are needed",
         "set its max_payload, or that of this account, to 1 MB, as by default, or more"),
    Rule(r"err_code=(10026|10027|10113|10120)\b", "NATS_URL", "the limits of this account leave no room",
         "raise them, for one stream a service, without bounds, and one consumer a cursor"),
    Rule(r"err_code=10065\b", "NATS_URL", "another stream of this account takes the subjects of a log",
         "take them out of it (nats stream ls names all), or use another account or TWINLOG_NAMESPACE"),
    Rule("certificate verify failed", "NATS_URL", "the server's certificate is not trusted",
         "have it signed by an authority that this machine knows"),
    Rule("this server has no TLS", "NATS_URL", "the URL asks for TLS, which this nats-server is without",
         "switch it on there, or write nats:// where nobody can listen in"),
    Rule("err_code=(10039|10076)|jetstream not enabled|nobody answers requests to jetstream", "NATS_URL",
         "this nats-server runs without JetStream, or this account is without it",
         "start it with JetStream enabled (-js)"),
    Rule("err_code=10074|replicas > 1 not supported", "STREAM_REPLICAS", "a single server keeps each stream once",
         "set it to 1, or use a cluster"),
)  # fmt: skip


def said(error: BaseException) -> str:
    """An error in words, without nats-py's own around them."""
    if isinstance(error, APIError) and error.description:
        return f"err_code={error.err_code} {error.description}"
    # Said by the server itself, without a word of JetStream's.
    if isinstance(error, ServiceUnavailableError | NoRespondersError):
        return "nobody answers requests to JetStream"
    return reason(error).removeprefix("nats: ").strip("'")


def unavailable(error: BaseException) -> Unavailable:
    """An error as what it means: Unavailable, or its kind WrongSetting."""
    why = said(error)
    for rule in RULES:
        if re.search(rule.text, why, re.IGNORECASE):
            return WrongSetting(f"{rule.setting}: {rule.what} ({why}); {rule.remedy}")
    return Unavailable(f"JetStream is out of service ({why})")
