"""The page of metrics says what the code tells."""

from __future__ import annotations

from tests.docs.metrics_page import PAGE, page


def test_the_page_lists_the_metrics_that_there_are() -> None:
    assert PAGE.read_text() == page(), "write it anew: python -m tests.docs.metrics_page"
