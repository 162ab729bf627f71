"""The ports without I/O, for unit tests and simulation only."""

from twinlog.memory.log import MemoryLog

__all__ = ["MemoryLog"]
