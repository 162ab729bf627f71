"""Signatures of heads: Ed25519, by keys in PEM files. It takes the package of the extra ``signing``."""

from __future__ import annotations

import base64
import binascii
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twinlog.log.chain import Head
from twinlog.model.errors import ConfigurationError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    from twinlog.log.heads import Sign

_MAKE = "openssl genpkey -algorithm ed25519 -out heads.pem"
_PUBLISH = "openssl pkey -in heads.pem -pubout -out heads.pub.pem"


def signed(head: Head) -> bytes:
    """The bytes that are signed."""
    return f"twinlog head 1\n{head.log}\n{head.position}\n{head.hash}\n".encode()


def signer(path: str) -> Sign:
    """Signs heads with the private key in a file. Raises ConfigurationError."""
    key = _loaded(path, "CHAIN_KEY_FILE", private=True)

    def sign(head: Head) -> Head:
        return head._replace(signature=base64.b64encode(key.sign(signed(head))).decode())

    return sign


def public_key(path: str) -> Ed25519PublicKey:
    """The public key in a file. Raises ConfigurationError."""
    key: Ed25519PublicKey = _loaded(path, "--key", private=False)
    return key


def is_signed(head: Head, key: Ed25519PublicKey) -> bool:
    """Whether the head carries a signature by this key."""
    from cryptography.exceptions import InvalidSignature

    try:
        key.verify(base64.b64decode(head.signature, validate=True), signed(head))
    except (InvalidSignature, binascii.Error):
        return False
    return True


def _loaded(path: str, setting: str, *, private: bool) -> Any:
    try:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError as error:
        raise ConfigurationError(f"{setting}: install twinlog[signing], which reads keys") from error
    wanted: type[Any] = ed25519.Ed25519PrivateKey if private else ed25519.Ed25519PublicKey
    try:
        data = Path(path).read_bytes()
        found = (
            serialization.load_pem_private_key(data, password=None)
            if private
            else serialization.load_pem_public_key(data)
        )
    except OSError as error:
        raise ConfigurationError(f"{setting}: {path} cannot be read ({error.strerror})") from error
    except (ValueError, TypeError) as error:
        raise ConfigurationError(f"{setting}: {path} is no such key; {_way_out(private)}") from error
    if not isinstance(found, wanted):
        raise ConfigurationError(f"{setting}: the key in {path} is not of Ed25519; {_way_out(private)}")
    return found


def _way_out(private: bool) -> str:
    return f"make one: {_MAKE}" if private else f"take it from the private key: {_PUBLISH}"
