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


def test_the_shop_s_methods_stand_on_the_page_of_its_settings() -> None:
    """And every service of Twinlog's own. The protos have them in this order or another."""
    page = (ROOT / "docs" / "reference" / "settings.md").read_text()
    rows = dict(re.findall(r"^\| [^|]+ \| `(\w+\.[\w.]+)` \| ([^|]+) \|$", page, re.MULTILINE))
    protos = [path.read_text() for path in (ROOT / "protos").rglob("*.proto")]
    for proto in protos:
        package = re.findall(r"^package (\S+);", proto, re.MULTILINE)
        for service, body in re.findall(r"^service (\w+) \{(.*?)^\}", proto, re.MULTILINE | re.DOTALL):
            told = rows.pop(f"{package[0]}.{service}")
            if package[0].startswith("shop."):
                assert set(re.findall(r"\b[A-Z][a-z]+[A-Z]\w+", told)) == set(re.findall(r"rpc (\w+)", body))
    assert not rows


def test_every_event_that_is_logged_stands_on_the_page_with_its_level_and_no_other() -> None:
    rows = re.findall(r"^\| `([a-z_.]+)` \| ([a-z, ]+) \| (.+) \| (.+) \|$", _EVENTS, re.MULTILINE)
    assert len({row[0] for row in rows}) == len(rows)
    assert {name: set(levels.split(", ")) for name, levels, _, _ in rows} == events()
