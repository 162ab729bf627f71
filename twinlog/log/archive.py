"""The archive of a log: ranges of its positions as files (:mod:`twinlog.log.log_file`), on disk or in an object store.

A range never changes once it is noted. Where its frames begin and what their digests are lies with the log:
so an event is read by its position with one look into the file, and proved.
"""

from __future__ import annotations

import asyncio
import bisect
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from io import BytesIO
from typing import Any, NamedTuple, TypeVar

from twinlog._aio.tasks import in_own_thread
from twinlog.log.log_file import FrameReader, LogFileDamaged, NotALogFile, Seal, event_of, zstd
from twinlog.model.errors import ConfigurationError, PartlyUnavailable, WrongSetting
from twinlog.model.event import Recorded

T = TypeVar("T")

_FRAMES_KEPT = 16
"""Frames that were read last, of some 500 events each: readers go forward in pages."""
_DAMAGE = (LogFileDamaged, NotALogFile, FileNotFoundError)
READ_SECONDS = 5.0
"""How long a frame of 256 kB may take: the load of an archived stream holds up a batch of commands."""
AWAY_SECONDS = 30.0
"""After a read that took longer, others are refused at once for so long."""
_NO_ANSWER = f"no answer within {READ_SECONDS:g} s"
_READS_AT_ONCE = 8
"""Those that never end count, too."""


class ArchiveUnavailable(PartlyUnavailable):
    """Events {first} to {last} of log {log} are in the archive, in {file}, which cannot be read: {why}."""

    reason = "ARCHIVE_UNAVAILABLE"


class ArchiveDamaged(ArchiveUnavailable):
    """Events {first} to {last} of log {log} are in the archive, and {file} is gone or not as it was written: {why}.
    Put back a copy of it."""

    reason = "ARCHIVE_DAMAGED"


class ArchivedRange(NamedTuple):
    """A range of positions that is in a file."""

    first: int
    last: int
    file: str
    """Its URL, as fsspec takes it."""
    size: int
    """Of the file, in bytes."""
    digest: bytes
    """Of the last seal."""
    frame_offsets: Sequence[int]
    """Where each frame of events begins in the file."""
    frame_firsts: Sequence[int]
    """The position of each frame's first event."""
    frame_digests: Sequence[bytes]
    """The digest of each frame's seal; before them, that of the header's."""


def filesystem(url: str) -> tuple[Any, str]:
    """The file system of a URL, and the path in it. Raises ConfigurationError."""
    try:
        import fsspec
    except ImportError as error:
        raise ConfigurationError(
            "The archive needs the extra `archive`: pip install 'twinlog[archive]'"
        ) from error
    try:
        found: tuple[Any, str] = fsspec.core.url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise ConfigurationError(f"{url} cannot be used for an archive: {error}") from error
    return found


def lasting(url: str) -> str:
    """The URL of a place as every process finds it, whatever folder it runs in. Raises ConfigurationError."""
    files, path = filesystem(url)
    local = "file" in protocols(files) and "::" not in url
    return str(files.unstrip_protocol(path)) if local else url


def protocols(files: Any) -> Sequence[str]:
    """What a file system is called in URLs."""
    return (files.protocol,) if isinstance(files.protocol, str) else tuple(files.protocol)


def refuse_copies(url: str) -> None:
    """Raises ConfigurationError for a place of which fsspec keeps a copy here: what is read back would be the copy."""
    files, _ = filesystem(url)
    from fsspec.implementations.cached import CachingFileSystem

    while files is not None:
        if isinstance(files, CachingFileSystem):
            raise ConfigurationError(
                f"{url} keeps copies of files on this machine, so what stands in the store could not be read back: "
                f"leave {protocols(files)[0]}:: out"
            )
        files = getattr(files, "fs", None)


def prove(of: ArchivedRange, log: str) -> None:
    """Reads the file of a range from where it lies, to its end. Raises ArchiveUnavailable, ConfigurationError."""
    files, path = filesystem(of.file)
    try:
        with files.open(path, "rb") as stored:
            found = [(frame.offset, frame.seal.digest) for frame in FrameReader(stored, of.file, "").frames()]
        offsets, digests = zip(*found, strict=True) if found else ((), ())
        if [*digests] != [*of.frame_digests, of.digest] or [*offsets[1:-1]] != [*of.frame_offsets]:
            raise NotALogFile(file=of.file, why="it is not the one that was archived")
    except Exception as error:  # a file system may raise anything
        raise _unreadable(of, log, error) from error


def _unreadable(of: ArchivedRange, log: str, error: Exception) -> ArchiveUnavailable:
    kind = ArchiveDamaged if isinstance(error, _DAMAGE) else ArchiveUnavailable
    return kind(log=log, first=of.first, last=of.last, file=of.file, why=why(error, of.file))


def why(error: Exception, file: str) -> str:
    """What an error of a file system says; of a file that is missing, some say its name only."""
    said = str(error)
    if isinstance(error, FileNotFoundError) and (error.errno or said in file):
        return "there is no such file"
    return said.rstrip(" .") or type(error).__name__


class _Reads:
    """Reads of a place that may be slow, or never answer."""

    def __init__(self) -> None:
        self._slots = asyncio.Semaphore(_READS_AT_ONCE)
        self._away_until = 0.0
        """By the loop's time."""

    async def read(self, work: Callable[[], T]) -> T:
        """What ``work`` gives. Raises TimeoutError where it takes too long, or another one has just taken too long."""
        loop = asyncio.get_running_loop()
        if loop.time() < self._away_until:
            raise TimeoutError(_NO_ANSWER)
        try:
            async with asyncio.timeout(READ_SECONDS):
                await self._slots.acquire()
                return await in_own_thread(work, self._slots.release)
        except TimeoutError as error:
            self._away_until = loop.time() + AWAY_SECONDS
            raise TimeoutError(str(error) or _NO_ANSWER) from error


class ArchiveReader:
    """Reads events of one log's archive."""

    def __init__(self, log: str) -> None:
        self._log = log
        self._reads = _Reads()
        self._frames: OrderedDict[tuple[int, int], Sequence[Recorded]] = OrderedDict()

    async def slice(self, of: ArchivedRange, first: int, last: int) -> list[Recorded]:
        """The events of a range from one position to another. Raises ArchiveUnavailable, WrongSetting."""
        begin = bisect.bisect_right(of.frame_firsts, first) - 1
        end = bisect.bisect_right(of.frame_firsts, last)
        found = [event for frame in range(begin, end) for event in await self._frame(of, frame)]
        return [event for event in found if first <= event.position <= last]

    async def at(self, of: ArchivedRange, positions: Iterable[int]) -> list[Recorded]:
        """The events of a range at some positions, in order."""
        wanted = set(positions)
        frames = sorted({bisect.bisect_right(of.frame_firsts, position) - 1 for position in wanted})
        return [e for frame in frames for e in await self._frame(of, frame) if e.position in wanted]

    async def _frame(self, of: ArchivedRange, number: int) -> Sequence[Recorded]:
        key = of.first, number
        if key not in self._frames:
            self._frames[key] = await self._read(of, number)
            while len(self._frames) > _FRAMES_KEPT:
                self._frames.popitem(last=False)
        self._frames.move_to_end(key)
        return self._frames[key]

    async def _read(self, of: ArchivedRange, number: int) -> Sequence[Recorded]:
        try:
            return await self._reads.read(lambda: self._read_twice(of, number))
        except ConfigurationError as error:
            raise WrongSetting(
                f"Events {of.first} to {of.last} of log {self._log} are archived. {error}"
            ) from error
        except Exception as error:  # a file system may raise anything
            raise _unreadable(of, self._log, error) from error

    def _read_twice(self, of: ArchivedRange, number: int) -> Sequence[Recorded]:
        """What came damaged is read once more: it may have been damaged, or cut short, on its way."""
        try:
            return self._decoded(of, number)
        except (LogFileDamaged, NotALogFile):
            return self._decoded(of, number)

    def _decoded(self, of: ArchivedRange, number: int) -> Sequence[Recorded]:
        zstd()
        files, path = filesystem(of.file)
        offset = of.frame_offsets[number]
        end = of.frame_offsets[number + 1] if number + 1 < len(of.frame_offsets) else of.size
        data = files.cat_file(path, start=offset, end=end)
        before = Seal(of.frame_digests[number], of.frame_firsts[number] - 1)
        reader = FrameReader(BytesIO(data), of.file, "", before)
        frame = next(reader.frames(), None)
        if frame is None:
            raise NotALogFile(file=of.file, why=f"it ends before byte {offset}: it was cut off")
        if frame.seal.digest != of.frame_digests[number + 1]:
            raise NotALogFile(file=of.file, why=f"frame {number} is not the one that was archived")
        return [event_of(record, self._log) for record in frame.records if record.HasField("event")]
