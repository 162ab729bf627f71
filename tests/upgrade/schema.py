"""The schema as it was released: what migrations and functions of today are held against.

At a release, and only then: ``python -m tests.upgrade.schema > tests/upgrade/schema.json``.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import NamedTuple, TypeAlias

from stack.topology import ROOT
from twinlog.postgres.migrations import functions, migrations

RELEASED = Path(__file__).with_name("schema.json")


class Frozen(NamedTuple):
    """What is remembered of a file; a migration has no revision."""

    sha256: str
    revision: int | None


Schema: TypeAlias = dict[str, dict[str, Frozen]]
"""Files by package, and by their paths in it."""


def packages() -> list[str]:
    """Whatever has migrations and runs in production."""
    folders = [path.parent.relative_to(ROOT) for path in ROOT.glob("*/**/sql/migrations")]
    return sorted(".".join(folder.parts) for folder in folders if "tests" not in folder.parts)


def schema() -> Schema:
    """The tree's."""
    return {
        package: {
            **{f"migrations/{each.name}": Frozen(each.checksum, None) for each in migrations(package)},
            **{
                f"functions/{each.name}.sql": Frozen(_sha256(each.sql), each.revision)
                for each in functions(package)
            },
        }
        for package in packages()
    }


def released() -> Schema:
    """The last release's."""
    read = json.loads(RELEASED.read_text())
    return {
        package: {name: Frozen(*frozen) for name, frozen in files.items()} for package, files in read.items()
    }


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


if __name__ == "__main__":
    print(json.dumps(schema(), indent=1))
