"""The wrapping of keys: what encrypts the key of each person where it is stored, and can be rotated.

Its own keys come from the settings, and are in no database: a copy of the database of keys is worth nothing without
them.
"""

from __future__ import annotations

import binascii
import os
import re
from base64 import b64decode
from collections.abc import Mapping

from twinlog.log.keys import KEY_BYTES, KeysUnavailable, cipher
from twinlog.model.personal import NONCE_BYTES

UNWRAPPED = ""
_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")


def wrapping_keys(text: str) -> Mapping[str, bytes]:
    """The wrapping keys in a setting, by name, the newest first: name=key with commas or line breaks.

    A key is 32 bytes in base64. Raises ValueError, without showing a key.
    """
    if text and not text.strip():
        raise ValueError(
            "must be name=key with commas, or empty; it is blank, so that keys would be kept unwrapped"
        )
    found: dict[str, bytes] = {}
    for part in re.split(r"[,\s]+", text.strip()):
        if not part:
            continue
        name, _, encoded = part.partition("=")
        try:
            key = b64decode(encoded, validate=True)
        except (binascii.Error, ValueError):
            key = b""
        if not _NAME.fullmatch(name) or len(key) != KEY_BYTES or name in found:
            raise ValueError(
                "must be name=key with commas, the newest first, each name once and each key 32 bytes in base64, "
                "such as 2026=$(head -c 32 /dev/urandom | base64)"
            )
        found[name] = key
    return found


class Wrapping:
    """Wraps keys with the newest wrapping key, and unwraps those of all."""

    def __init__(self, keys: Mapping[str, bytes]) -> None:
        """``keys``: by name, the newest first; none: keys are stored as they are."""
        self.newest = next(iter(keys), UNWRAPPED)
        self._ciphers = {name: cipher(key) for name, key in keys.items()}

    def wrap(self, subject: str, key: bytes) -> bytes:
        """The key of a person as it is stored."""
        if self.newest == UNWRAPPED:
            return key
        nonce = os.urandom(NONCE_BYTES)
        return nonce + self._ciphers[self.newest].encrypt(nonce, key, subject.encode())

    def unwrap(self, subject: str, stored: bytes, by: str) -> bytes:
        """The key of a person. Raises KeysUnavailable where the wrapping key is not known, or is another one."""
        if by == UNWRAPPED:
            return stored
        if by not in self._ciphers:
            raise KeysUnavailable(why=f"they are wrapped by {by!r}; add it to PERSONAL_WRAPPING_KEYS")
        try:
            return self._ciphers[by].decrypt(stored[:NONCE_BYTES], stored[NONCE_BYTES:], subject.encode())
        except Exception as error:  # the cipher's own
            raise KeysUnavailable(
                why=f"the key of {subject} is not wrapped by today's {by!r}; put the former one back into "
                "PERSONAL_WRAPPING_KEYS"
            ) from error
