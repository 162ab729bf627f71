"""What docs/third-service.md consists of: the files of a service, and the commands that generate and run it."""

from __future__ import annotations

import re
from pathlib import Path

from stack.topology import ROOT

PAGE = ROOT / "docs" / "third-service.md"
_FILE = re.compile(r"```\w+\n(?:#|//) (\S+)\n(.*?)```", re.DOTALL)
_COMMANDS = re.compile(r"```sh\n(.*?)```", re.DOTALL)


def write_files(folder: Path) -> list[Path]:
    """Copies the page's files into a folder, and gives their paths there."""
    paths = []
    for name, text in _FILE.findall(PAGE.read_text()):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        paths.append(path)
    return paths


def commands(word: str) -> str:
    """The one block of commands that has ``word`` in it."""
    blocks: list[str] = [block for block in _COMMANDS.findall(PAGE.read_text()) if word in block]
    (block,) = blocks
    return block
