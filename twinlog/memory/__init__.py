"""The ports without I/O, for unit tests and simulation only."""

from twinlog.memory.log import MemoryLog
from twinlog.memory.twin import MemoryTwin

__all__ = ["MemoryLog", "MemoryTwin"]
