"""Hosts as they stand in settings: each setting refuses the same ones."""

from __future__ import annotations

import re
from ipaddress import IPv6Address

NO_HOST = "must name hosts, such as 127.0.0.1, [::1] or db.example.com, each with or without :port"
_HIGHEST_PORT = 65535
_HOST = re.compile(r"(?P<name>/[^:]*|\[(?P<v6>[^]]*)\]|[^][\s:]+)(:(?P<port>.*))?")


def is_port(text: str) -> bool:
    """Whether it is the number of a port to connect to."""
    return text.isascii() and text.isdigit() and 0 < int(text[:6]) <= _HIGHEST_PORT


def check_host(text: str) -> None:
    """Raises ValueError where a text is no host with a port or without, nor the folder of a socket."""
    match = _HOST.fullmatch(text) if text.isprintable() else None
    if match is None or (match["v6"] is not None and not _is_v6(match["v6"])):
        raise ValueError(NO_HOST)
    if match["port"] is not None:
        check_port(match["port"])


def _is_v6(text: str) -> bool:
    try:
        return bool(IPv6Address(text))
    except ValueError:
        return False


def check_port(text: str) -> None:
    """Raises ValueError where a text is no port."""
    if not is_port(text):
        raise ValueError(
            f"must have a port from 1 to {_HIGHEST_PORT}, or none; special characters of a password are percent-encoded"
        )
