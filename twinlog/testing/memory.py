"""The ports in memory, under the name that tests import them by."""

from twinlog.memory.log import MemoryLog
from twinlog.memory.twin import MemoryTwin
from twinlog.memory.views import MemoryViews

__all__ = ["MemoryLog", "MemoryTwin", "MemoryViews"]
