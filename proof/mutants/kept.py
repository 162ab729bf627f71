"""What a run found out, kept for the next run of the same code."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Iterable
from pathlib import Path

from proof.mutants.warm import ROOT, Reached

_FILES = ("*.py", "*.sql", "*.proto", "*.toml")
_FOLDERS = (
    "twinlog",
    "tests",
    "protos",
    "order_svc",
    "customer_svc",
    "saga_orchestrator",
    "projector",
    "proof",
)


class Kept:
    """Of a run that was ended early, the next begins behind what that one found out."""

    def __init__(self, folder: Path, *run: object) -> None:
        """``run``: what else decides whether a mutant is noticed."""
        key = digest(run, (path for name in _FOLDERS for path in (ROOT / name).rglob("*.*")))
        self._reached, self._found = folder / f"{key}.reached", folder / f"{key}.found"
        folder.mkdir(parents=True, exist_ok=True)
        for stale in {*folder.glob("*.reached"), *folder.glob("*.found")} - {self._reached, self._found}:
            stale.unlink()
        lines = self._found.read_text().splitlines() if self._found.exists() else []
        self.noticed = {
            name: is_noticed == "1" for is_noticed, _, name in (each.partition(" ") for each in lines)
        }

    def reached(self) -> Reached | None:
        """What the tests reach, where an earlier run has measured it."""
        if not self._reached.exists():
            return None
        return Reached(*pickle.loads(self._reached.read_bytes()))

    def keep_reached(self, reached: Reached) -> None:
        """For the next run."""
        parts = (reached.tests, reached.seconds, reached.imported, reached.failing)
        whole = self._reached.with_suffix(".part")
        whole.write_bytes(pickle.dumps(parts))
        whole.rename(self._reached)

    def keep_found(self, name: str, is_noticed: bool) -> None:
        """For the next run."""
        self.noticed[name] = is_noticed
        with self._found.open("a") as file:
            file.write(f"{is_noticed:d} {name}\n")


def digest(run: object, paths: Iterable[Path]) -> str:
    """Another one where a file has another name or another text, or the run is another."""
    found = hashlib.sha256(repr(run).encode())
    for path in sorted(path for path in paths if any(path.match(each) for each in _FILES)):
        found.update(f"{path} {path.stat().st_size} ".encode() + path.read_bytes())
    return found.hexdigest()[:16]
