"""What every twin does, in JetStream and in memory: the fixtures are in conftest.py."""

from twinlog.testing.conformance import TwinConformance


class TestTwin(TwinConformance):
    """Both adapters."""
