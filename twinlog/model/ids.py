"""UUIDs as bytes and as text, without the cost of uuid.UUID's constructor."""

from __future__ import annotations

from uuid import UUID, SafeUUID

_BYTES, _TEXT_CHARS = 16, 36
_UNKNOWN = SafeUUID.unknown
"""Looked up once: looking up a member of an enum costs as much as all the rest."""
_set_int = UUID.int.__set__  # type: ignore[misc, attr-defined]  # slots at run time
_set_is_safe = UUID.is_safe.__set__  # type: ignore[misc, attr-defined]


def uuid_of(data: bytes) -> UUID:
    """The UUID of 16 bytes, in a tenth of the time that ``UUID(bytes=data)`` takes. Raises ValueError."""
    if len(data) != _BYTES:
        raise ValueError(f"a UUID has {_BYTES} bytes, not {len(data)}")
    made = object.__new__(UUID)
    _set_int(made, int.from_bytes(data))
    _set_is_safe(made, _UNKNOWN)
    return made


def uuid_bytes(text: str) -> bytes:
    """The 16 bytes of a UUID in the usual form of 36 characters, upper or lower case. Raises ValueError."""
    data = bytes.fromhex(text.replace("-", "")) if len(text) == _TEXT_CHARS else b""
    if len(data) != _BYTES:
        raise ValueError(f"{text!r} is not a UUID")
    return data


def uuid_text(data: bytes) -> str:
    """The usual form of a UUID's 16 bytes, in lower case."""
    digits = data.hex()
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"
