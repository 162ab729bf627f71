"""What servers have on disk, searched for bytes."""

from __future__ import annotations

from pathlib import Path


def files_with(folder: Path, wanted: bytes) -> list[str]:
    """The files below a folder that hold some bytes, or have them in their path."""
    return [
        str(path)
        for path in sorted(folder.rglob("*"))
        if wanted.decode() in path.name or _holds(path, wanted)
    ]


def _holds(path: Path, wanted: bytes) -> bool:
    try:
        return path.is_file() and wanted in path.read_bytes()
    except FileNotFoundError:  # gone meanwhile
        return False
