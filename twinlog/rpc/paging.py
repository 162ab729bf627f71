"""Page tokens: where the next page starts, signed, and valid only for the filters that they were issued for."""

from __future__ import annotations

import binascii
import hmac
import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Sequence
from secrets import token_bytes
from typing import TypeVar

from twinlog.model.errors import InvalidArgument
from twinlog.model.forms import Form, Forms, refuse_other

R = TypeVar("R")
Key = tuple[str | int, ...]
"""The sort key of a page's last item."""

_MAC_BYTES = 16
_SECRET_BYTES = 32
_MAX_LENGTH = 2048
_MAX_INT = 2**63 - 1


_FORMS: Forms = {
    "secret": Form(
        lambda given: isinstance(given, bytes) and len(given) > 0,
        "bytes that nobody else knows",
    )
}


class Page:
    """A page of a list, asked for; by custom the rows are sorted by the positions that made them, newest first."""

    def __init__(self, pages: PageTokens, filters: str, size: int, last: Key | None) -> None:
        self._pages, self._filters, self._size = pages, filters, size
        self.last = last
        """The sort key of the row that the page before ended with; None: it is the first page."""
        self.limit = size + 1
        """How many rows to read: one more than the page has tells that another one follows."""

    @property
    def before(self) -> int:
        """Where rows are sorted by position: those of this one and newer ones were on the pages before."""
        return int(self.last[0]) if self.last else _MAX_INT

    def of(self, rows: Sequence[R], key: Callable[[R], int | Key]) -> tuple[Sequence[R], str]:
        """Those of the rows read that are on it, and the token of the next page; empty on the last.

        ``key``: the position of a row, or its whole sort key.
        """
        if len(rows) < self.limit:
            return rows, ""
        rows = rows[: self._size]
        last = key(rows[-1])
        return rows, self._pages.issue(self._filters, last if isinstance(last, tuple) else (last,))


class PageTokens:
    """Issues and reads page tokens; every replica of a service must have the same ``secret``, and nobody else.

    A service has its own as ``service.pages``, where the secret is its database's.
    """

    def __init__(self, secret: bytes | None = None) -> None:
        """Without a ``secret``, a random one is used until :meth:`sign_with` sets another."""
        self._secret = token_bytes(_SECRET_BYTES)
        if secret is not None:
            self.sign_with(secret)

    def sign_with(self, secret: bytes) -> None:
        """Uses this secret from now on. Raises WrongForm for anything else."""
        refuse_other("PageTokens", {"secret": secret}, _FORMS)
        self._secret = secret

    def issue(self, filters: str, last: Key) -> str:
        """The token of the page that follows ``last``; ``filters`` is a text that names the query and its filters."""
        payload = json.dumps(last, separators=(",", ":")).encode()
        return urlsafe_b64encode(self._mac(filters, payload) + payload).rstrip(b"=").decode()

    def read(
        self, token: str, filters: str, shape: tuple[type, ...], field: str = "page_token"
    ) -> Key | None:
        """The sort key that the previous page ended with; None for an empty token, the first page.

        ``shape``: the types of the key's parts, each ``str`` or ``int``, where an int has up to 64 bits. Raises
        :class:`InvalidArgument`, naming ``field``, for a token that was forged, was issued for other filters, or
        holds a key of another shape, as another version of the service may have issued it.
        """
        if not token:
            return None
        signed = _decode(token)
        mac, payload = signed[:_MAC_BYTES], signed[_MAC_BYTES:]
        key = _key(payload, shape) if hmac.compare_digest(mac, self._mac(filters, payload)) else None
        if key is None:
            raise InvalidArgument(
                {field: "is not a next_page_token of this query with these filters; start again without one"}
            )
        return key

    def _mac(self, filters: str, payload: bytes) -> bytes:
        text = filters.encode()
        return hmac.digest(self._secret, b"%d:%b%b" % (len(text), text, payload), "sha256")[:_MAC_BYTES]


def _key(payload: bytes, shape: tuple[type, ...]) -> Key | None:
    """The key in a payload; None where it has another shape."""
    try:
        parts = json.loads(payload)
    except (ValueError, RecursionError):
        return None
    if not isinstance(parts, list) or tuple(map(type, parts)) != shape:
        return None
    in_range = all(abs(part) <= _MAX_INT for part in parts if isinstance(part, int))
    return tuple(parts) if in_range else None


def _decode(token: str) -> bytes:
    """The bytes of canonical base64url text; empty for any other text."""
    if len(token) > _MAX_LENGTH or not token.isascii():
        return b""
    try:
        decoded = urlsafe_b64decode(token + "=" * (-len(token) % 4))
    except binascii.Error:
        return b""
    # Python's decoder skips what it does not know: only the one canonical spelling is a token.
    return decoded if urlsafe_b64encode(decoded).rstrip(b"=").decode() == token else b""
