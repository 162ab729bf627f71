"""The page on audits: its domain, written out, imported, and told of a booking that keeps its room."""

from __future__ import annotations

import importlib
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.dead_letters.journal import event
from tests.docs.test_how_to import written
from tests.hotel import messages as pb
from twinlog.audit import Change, Domain, Findings, Round
from twinlog.testing import START


def judged(domain: Domain, messages: list[Any], in_flight: set[str]) -> Findings:
    """What a domain says of a history."""
    found = Findings()
    for position, message in enumerate(messages, 1):
        domain.take(Change(event(position, "room:1"), message, None, None), found)
    around = Round(START, False, bool(in_flight), in_flight, [], [], [], {}, lambda _stream: None, Counter())
    domain.judge(around, found)
    return found


def test_the_domain_of_the_page_finds_a_room_that_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    [module] = written("auditing.md", tmp_path)
    (tmp_path / "tests").rename(tmp_path / "audit_page")
    monkeypatch.syspath_prepend(str(tmp_path))
    page = importlib.import_module(module.replace("tests.", "audit_page."))
    reserved = pb.RoomReserved(room_id="1", booking_id="b")
    cancelled = pb.BookingCancelled(booking_id="b")
    assert set(judged(page.Rooms(), [reserved, cancelled], set()).counts) == {page.FREED}
    assert not judged(page.Rooms(), [reserved, cancelled], {"b"}).counts
    released = pb.RoomReleased(room_id="1", booking_id="b")
    assert not judged(page.Rooms(), [reserved, cancelled, released], set()).counts
    other = pb.RoomReserved(room_id="1", booking_id="c")
    [violation] = judged(page.Rooms(), [reserved, other], set()).kept
    assert (violation.check, violation.events) == (page.ONE_GUEST, ["source/2"])
