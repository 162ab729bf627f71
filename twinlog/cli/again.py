"""How to call the command again, for what it prints to be copied: as it was called, and to the same server."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from twinlog.cli.project import Project


def command() -> str:
    """What calls the command in this folder: its name where the shell finds it, else the path, or the interpreter's."""
    called = Path(sys.argv[0])
    if called.name == "__main__.py":
        return f"{_shortest(Path(sys.executable))} -m twinlog"
    return _shortest(called)


def at(address: str) -> str:
    """The option for a server that this folder's project does not name, with a space before it; else empty."""
    project = Project.here()
    known = project.services.values() if project else ()
    return "" if address in known else f" --at {address}"


def _shortest(program: Path) -> str:
    found = shutil.which(program.name)
    if found and Path(found).absolute() == program.absolute():
        return program.name
    relative = os.path.relpath(program.absolute())
    return str(program) if relative.startswith("..") else relative
