"""On the PYTHONPATH of a process, gives it a machine whose clock is ahead by CHAOS_CLOCK_AHEAD seconds."""

import os
from datetime import UTC, datetime, timedelta

if _seconds := float(os.environ.get("CHAOS_CLOCK_AHEAD", "0")):
    from twinlog.testing.internals import SystemClock

    def _now(self: SystemClock) -> datetime:
        return datetime.now(UTC) + timedelta(seconds=_seconds)

    SystemClock.now = _now  # type: ignore[method-assign]
