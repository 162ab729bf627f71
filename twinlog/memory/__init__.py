"""Adapters of the ports in memory, for unit tests and simulation only."""

from twinlog.memory.log import MemoryLog
from twinlog.memory.twin import MemoryTwin
from twinlog.memory.views import MemoryViews

__all__ = ["MemoryLog", "MemoryTwin", "MemoryViews"]
