"""A small file system of a scenario's own, to be filled up."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_CHUNK = 1 << 20


class NotAvailable(Exception):
    """This machine lacks what a scenario needs, or does not let us have it."""


class Disk:
    """A mounted file system."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ballast = folder / "ballast"

    def fill(self) -> None:
        """Takes all room."""
        room = shutil.disk_usage(self.folder).free
        with self._ballast.open("ab", buffering=0) as ballast:
            try:
                while room > 0:
                    room -= ballast.write(bytes(min(_CHUNK, room)))
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise

    def free(self) -> None:
        """Gives the room back."""
        self._ballast.unlink(missing_ok=True)


@contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[Disk]:
    """A file system of that size at ``folder``, gone after the block. Raises NotAvailable."""
    folder.mkdir(parents=True, exist_ok=True)
    if os.geteuid() != 0:
        raise NotAvailable("only root may mount a file system")
    options = f"size={megabytes}m,mode=0755"
    command = ["mount", "-t", "tmpfs", "-o", options, "twinlog-chaos", str(folder)]
    try:
        mounted = subprocess.run(command, capture_output=True, text=True)
    except OSError as error:
        raise NotAvailable(str(error)) from error
    if mounted.returncode:
        raise NotAvailable(mounted.stderr.strip() or "mount failed")
    try:
        yield Disk(folder)
    finally:
        with suppress(OSError):
            subprocess.run(["umount", "--lazy", str(folder)], capture_output=True)
