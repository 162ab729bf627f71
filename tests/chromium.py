"""Where the browser is that tests of the console drive."""

from __future__ import annotations

import os
import shutil

_NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
"""The first has no windows, which nobody would look at, and takes half of the processor time."""


def path() -> str | None:
    """The path of the machine's Chromium; None where there is none."""
    return next(filter(None, map(shutil.which, _NAMES)), None)


def left_out() -> bool:
    """Whether the tests that need one are left out: there is none, and BROWSER_TESTS_REQUIRED does not want one."""
    return path() is None and not os.environ.get("BROWSER_TESTS_REQUIRED")
