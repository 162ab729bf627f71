"""Page tokens: where the next page starts, signed, and valid only for the filters it was issued for."""

from __future__ import annotations

import binascii
import hmac
import json
from base64 import urlsafe_b64decode, urlsafe_b64encode

from twinlog.model.errors import InvalidArgument

Key = tuple[str | int, ...]
"""The sort key of a page's last item."""

_MAC_BYTES = 16
_LONGEST = 2048


class PageTokens:
    """Issues and reads page tokens; every replica of a service has to have the same ``key``."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def issue(self, filters: str, last: Key) -> str:
        """The token of the page that follows ``last`` under ``filters`` (any text that names them)."""
        payload = json.dumps(last, separators=(",", ":")).encode()
        return urlsafe_b64encode(self._mac(filters, payload) + payload).rstrip(b"=").decode()

    def read(self, token: str, filters: str, field: str = "page_token") -> Key | None:
        """What the page before ended with; None for an empty token, the first page.

        Raises :class:`InvalidArgument`, naming ``field``, for a token that was forged or issued for other
        filters.
        """
        if not token:
            return None
        signed = _decode(token)
        mac, payload = signed[:_MAC_BYTES], signed[_MAC_BYTES:]
        if not hmac.compare_digest(mac, self._mac(filters, payload)):
            raise InvalidArgument(
                {field: "is not a next_page_token of this query with these filters; start again without one"}
            )
        return tuple(json.loads(payload))

    def _mac(self, filters: str, payload: bytes) -> bytes:
        text = filters.encode()
        return hmac.digest(self._key, b"%d:%b%b" % (len(text), text, payload), "sha256")[:_MAC_BYTES]


def _decode(token: str) -> bytes:
    """The bytes of base64url text; empty where it is none, or not the way that we write it."""
    if len(token) > _LONGEST or not token.isascii():
        return b""
    try:
        decoded = urlsafe_b64decode(token + "=" * (-len(token) % 4))
    except binascii.Error:
        return b""
    # Python's decoder skips what it does not know: only the one canonical spelling is a token.
    return decoded if urlsafe_b64encode(decoded).rstrip(b"=").decode() == token else b""
