"""The pages of reference say what the code and the protos say."""

from __future__ import annotations

import re

from stack.topology import ROOT
from tests.docs import grpc_page
from tests.docs.log_events import events
from tests.docs.reasons import codes

_EVENTS = (ROOT / "docs" / "reference" / "log-events.md").read_text()
_REASONS = (ROOT / "docs" / "reference" / "error-reasons.md").read_text()


def test_every_reason_stands_on_the_page_with_its_code_and_no_other() -> None:
    codes_of = codes()
    assert set(re.findall(r"^\| `([A-Z_]+)` \|", _REASONS, re.MULTILINE)) == set(codes_of)
    named = re.findall(r"^\| `([A-Z_]+)` \| ([A-Z_]+) \|", _REASONS, re.MULTILINE)
    assert named
    assert dict(named) == {reason: codes_of[reason] for reason, _ in named}


def test_the_page_on_grpc_is_what_the_protos_say() -> None:
    made = grpc_page.PAGE.read_text()
    assert made == grpc_page.page(), "write it anew: python -m tests.docs.grpc_page"


def test_every_event_that_is_logged_stands_on_the_page_with_its_level_and_no_other() -> None:
    rows = re.findall(r"^\| `([a-z_.]+)` \| ([a-z, ]+) \| (.+) \| (.+) \|$", _EVENTS, re.MULTILINE)
    assert len({row[0] for row in rows}) == len(rows)
    assert {name: set(levels.split(", ")) for name, levels, _, _ in rows} == events()
