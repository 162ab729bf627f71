"""Where a room says where to begin, it names modules that are there."""

from __future__ import annotations

import re
from pathlib import Path

ROOMS = Path(__file__).parents[2] / "twinlog"


def test_where_a_room_says_to_begin_there_is_a_module() -> None:
    wrong, named = [], 0
    for room in ROOMS.glob("*/__init__.py"):
        guide = room.read_text().partition("Where to begin:")[2].partition("import ")[0]
        for name in re.findall(r"``([a-z_]+)``", guide):
            named += 1
            if not (room.parent / f"{name}.py").exists():
                wrong.append(f"{room.parent.name}: {name}")
    assert not wrong, wrong
    assert named > 50
