"""given / when / then for deciders, clocks and ids that a test sets, and the ports in memory."""

from twinlog.memory.log import MemoryLog
from twinlog.memory.twin import MemoryTwin
from twinlog.memory.views import MemoryViews
from twinlog.testing.fakes import START, CountedIds, ManualClock
from twinlog.testing.given import given

__all__ = ["START", "CountedIds", "ManualClock", "MemoryLog", "MemoryTwin", "MemoryViews", "given"]
