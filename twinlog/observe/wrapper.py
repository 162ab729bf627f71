"""Wrappers of ports: each changes a few methods, and is in all else what it wraps."""

from __future__ import annotations

from typing import Any


class Wrapper:
    """Does what the part inside it does, and offers all that it offers.

    A port has further Protocols that not every adapter has. Whether a part has one is asked by ``isinstance``, which
    since Python 3.12 looks for methods at the class and sees none that ``__getattr__`` passes on.
    """

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    @property  # type: ignore[misc]  # only to be read
    def __class__(self) -> Any:
        return self._inner.__class__
