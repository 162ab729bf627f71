"""What a release has brought into databases stays: migrations as they are, functions unless they get a revision."""

from __future__ import annotations

import pytest

from tests.upgrade.schema import Frozen, Schema, released, schema

MIGRATION, FUNCTION = "migrations/001_log.sql", "functions/append.sql"
KERNEL = "twinlog.postgres.sql"


def test_what_was_released_stays() -> None:
    assert complaints(released(), schema()) == []


def test_the_shop_s_packages_are_held_too() -> None:
    assert set(schema()) >= set(released()) >= {KERNEL, "projector.sql", "saga_orchestrator.sql"}


@pytest.mark.parametrize(
    ("today", "complaint"),
    [
        ({MIGRATION: Frozen("b", None)}, "migrations/001_log.sql was changed: put the change into a new one"),
        ({MIGRATION: None}, "migrations/001_log.sql is gone: restore it"),
        ({FUNCTION: None}, "functions/append.sql is gone: restore it"),
        ({FUNCTION: Frozen("b", 1)}, "functions/append.sql was changed: give it revision 2"),
        ({FUNCTION: Frozen("b", 0)}, "functions/append.sql was changed: give it revision 2"),
        ({FUNCTION: Frozen("b", 2)}, None),
        ({"migrations/003_more.sql": Frozen("c", None)}, None),
        (
            {"migrations/000_early.sql": Frozen("c", None)},
            "migrations/000_early.sql comes before a released one",
        ),
        ({"functions/more.sql": Frozen("c", 1)}, None),
    ],
)
def test_a_change_is_told_from_an_addition(today: dict[str, Frozen | None], complaint: str | None) -> None:
    before = {MIGRATION: Frozen("a", None), FUNCTION: Frozen("a", 1)}
    after = {name: frozen for name, frozen in {**before, **today}.items() if frozen}
    expected = [f"{KERNEL}: {complaint}"] if complaint else []
    assert complaints({KERNEL: before}, {KERNEL: after}) == expected


def complaints(released: Schema, today: Schema) -> list[str]:
    """What is wrong with today's files, and what to do."""
    return [
        f"{package}: {complaint}"
        for package, before in released.items()
        for complaint in _complaints(before, today.get(package, {}))
    ]


def _complaints(before: dict[str, Frozen], today: dict[str, Frozen]) -> list[str]:
    found = []
    for name, frozen in before.items():
        now = today.get(name)
        if now is None:
            found.append(f"{name} is gone: restore it")
        elif now.sha256 != frozen.sha256 and frozen.revision is None:
            found.append(f"{name} was changed: put the change into a new one")
        elif now.sha256 != frozen.sha256 and (now.revision or 0) <= (frozen.revision or 0):
            found.append(f"{name} was changed: give it revision {(frozen.revision or 0) + 1}")
    last = max((name for name in before if name.startswith("migrations/")), default="")
    early = [name for name in today.keys() - before.keys() if "migrations/" < name < last]
    return found + [f"{name} comes before a released one" for name in sorted(early)]
