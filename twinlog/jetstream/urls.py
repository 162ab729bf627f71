"""The NATS servers that a URL names, and who logs in to them."""

from __future__ import annotations

import re
from importlib.util import find_spec
from typing import NamedTuple
from urllib.parse import unquote

from twinlog.log.hosts import check_host

_SCHEMES = ("nats", "tls", "ws", "wss")
_BETWEEN = re.compile(r",(?=(?:nats|tls|wss?)://)")


class Servers(NamedTuple):
    """Where to connect to."""

    urls: list[str]
    """Without credentials, so that they can be shown."""
    user: str | None = None
    password: str | None = None
    token: str | None = None


def servers(url: str) -> Servers:
    """The servers of a URL, or of several with commas in between.

    User and password, or a token, stand before the last @, percent-encoded; commas may stand in them as they are.
    Servers without a scheme or credentials have those before them. Raises ValueError, without showing the URL.
    """
    urls: list[str] = []
    logins: set[str] = set()
    for group in _BETWEEN.split(url):
        scheme, found, rest = group.partition("://")
        if not found or scheme not in _SCHEMES:
            raise ValueError("must start with nats://")
        login, _, hosts = rest.rpartition("@")
        logins |= {login} - {""}
        for host in hosts.split(","):
            _check(host)
            urls.append(f"{scheme}://{host}")
    if len({url.startswith("ws") for url in urls}) > 1:
        raise ValueError("must have servers of one kind: nats:// and tls://, or ws:// and wss://")
    if urls[0].startswith("ws") and not find_spec("aiohttp"):  # nats-py would wait for it without end
        raise ValueError("needs aiohttp for ws:// and wss://: install aiohttp, or use nats:// or tls://")
    if len(logins) > 1:
        raise ValueError("must have one user and password for all servers")
    if not logins:
        return Servers(urls)
    user, has_password, password = logins.pop().partition(":")
    return (
        Servers(urls, unquote(user), unquote(password))
        if has_password
        else Servers(urls, token=unquote(user))
    )


def _check(host: str) -> None:
    if not host or set(host) & set("#?@ "):
        raise ValueError(
            "must be nats://host:port, its password percent-encoded (@ is %40, # is %23, / is %2F)"
        )
    check_host(host.partition("/")[0])
