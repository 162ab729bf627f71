"""What every log does, in Postgres and in memory: the fixture is in conftest.py."""

from twinlog.testing.conformance import LogConformance


class TestLog(LogConformance):
    """Both adapters."""
