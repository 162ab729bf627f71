"""Data of a new Postgres as a copy: making them takes more than a second of a processor, copying them a tenth.

A copy has the password of the first, too: to set another one takes a start of the server.

A copy gets an identifier of its own, since that says whose server it is: in the control file, which has a checksum, and
at the head of the write-ahead log.
"""

from __future__ import annotations

import atexit
import secrets
import shutil
import struct
import subprocess
from contextlib import ExitStack
from pathlib import Path

from twinlog.testing import servers

_WAL_IDENTIFIER = 24
"""Where a segment of the write-ahead log has the identifier: behind the header that every page has."""
_POLYNOMIAL = 0x82F63B78
"""CRC-32C, reflected."""


class Copies:
    """The data of the first server that this process made, before it ever ran, with its password."""

    def __init__(self) -> None:
        self._original: Path | None = None
        self._folders = ExitStack()
        atexit.register(self._folders.close)

    def keep(self, data: Path, password: Path) -> None:
        """Takes a copy of data that initdb has just made, to which the password in this file leads."""
        if self._original is not None:
            return
        folder = Path(self._folders.enter_context(servers.folder()))
        shutil.copy(password, folder / "password")
        _copy(data, folder / "data")
        self._original = folder / "data"

    def make(self, data: Path) -> bool:
        """Makes data as initdb would, if some were kept."""
        if self._original is None:
            return False
        new = data.with_name(f"{data.name}.new")
        shutil.rmtree(new, ignore_errors=True)
        _copy(self._original, new)
        give_identifier(new, secrets.randbits(63))
        shutil.copy(self._original.with_name("password"), data.with_name("password"))
        new.rename(data)
        return True


def give_identifier(data: Path, identifier: int) -> None:
    """Sets the system identifier of data that no server runs on."""
    new = struct.pack("=Q", identifier)
    control = data / "global" / "pg_control"
    content = control.read_bytes()
    old, end = content[:8], _checked_bytes(content)
    changed = new + content[8:end]
    control.write_bytes(changed + struct.pack("=I", crc32c(changed)) + content[end + 4 :])
    for segment in (data / "pg_wal").iterdir():
        if segment.is_file():
            with segment.open("r+b") as file:
                file.seek(_WAL_IDENTIFIER)
                if file.read(8) == old:
                    file.seek(_WAL_IDENTIFIER)
                    file.write(new)


def _checked_bytes(control: bytes) -> int:
    """How many bytes the checksum is about, which stands behind them; that depends on Postgres's version."""
    crc = 0
    for end in range(0, 512, 4):
        if end and struct.unpack_from("=I", control, end) == (crc,):
            return end
        crc = crc32c(control[end : end + 4], crc)
    raise AssertionError("the control file has no checksum")


def crc32c(data: bytes, crc: int = 0) -> int:
    """The checksum of Postgres's control file; ``crc``: that of what comes before."""
    crc ^= 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (_POLYNOMIAL & -(crc & 1))
    return crc ^ 0xFFFFFFFF


def _copy(source: Path, target: Path) -> None:
    """With owners and modes, which Postgres looks at."""
    subprocess.run(["cp", "-a", source, target], check=True)
