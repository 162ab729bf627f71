"""Writes docs/reference/metrics.md anew: ``python -m tests.docs.metrics_page``."""

from __future__ import annotations

from stack.topology import ROOT
from twinlog.observe.metrics import catalogue

PAGE = ROOT / "docs" / "reference" / "metrics.md"

if __name__ == "__main__":
    PAGE.write_text(catalogue.page())
