"""A log, or a range of its positions, as a file: protobuf in sealed frames of zstd (twinlog/v1/log_file.proto).

A frame is whole by itself: its seal has the digest of all that comes before, so that a file is written, checked, read
and continued frame by frame, in bounded memory. Decompressed, the file is one message ``twinlog.v1.LogFile``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

from google.protobuf.message import DecodeError

from twinlog.log.wire import from_wire, to_wire
from twinlog.model.errors import ConfigurationError, FailedPrecondition
from twinlog.model.event import Recorded
from twinlog.v1.log_file_pb2 import LogFile, LogFileEnd, LogFileHeader, LogFileSeal, LogRecord

if TYPE_CHECKING:
    import zstandard

FORMAT = 1
FRAME_BYTES = 1024 * 1024
"""Records are compressed together up to about so many bytes."""
_FRAME_BYTES_MOST = 256 * 1024 * 1024
"""A frame that is larger, decompressed, was not written here: one record is at most a message of NATS."""
_READ_BYTES = 256 * 1024
_LEVEL = 3
_MAGIC = b"\x28\xb5\x2f\xfd"
_HEADER_BYTES = 18
"""The longest header of a frame (RFC 8878, 3.1.1.1); with its magic number."""
_UNUSED_BIT = 0x10
"""Of the byte after the magic number; nobody sets or reads it."""


class LogFileDamaged(FailedPrecondition):
    """{file} is damaged at byte {offset}, after event {position}: {why}. {remedy}"""

    reason = "LOG_FILE_DAMAGED"


class LogFileUnfinished(FailedPrecondition):
    """{file} ends after event {position}, before its end. {remedy}"""

    reason = "LOG_FILE_UNFINISHED"


class NotALogFile(FailedPrecondition):
    """{file} is no file of a log: {why}."""

    reason = "NOT_A_LOG_FILE"


def zstd() -> Any:
    """The module zstandard. Raises ConfigurationError where it is not installed."""
    try:
        import zstandard
    except ImportError as error:
        raise ConfigurationError(
            "Files of logs need the extra `archive`: pip install 'twinlog[archive]'"
        ) from error
    return zstandard


@dataclass(frozen=True, slots=True)
class Seal:
    """What is known of a file up to the end of a frame."""

    digest: bytes = b""
    """SHA-256 over all frames so far; empty before the first."""
    position: int = 0
    """Of the last event."""
    records: int = 0


@dataclass(frozen=True, slots=True)
class Frame:
    """A frame that was read, and is what was written."""

    records: Sequence[LogRecord]
    """Without the seal."""
    seal: Seal
    offset: int
    """Where it begins in the file."""
    end: int
    """Where the next one begins."""

    @property
    def finished(self) -> LogFileEnd | None:
        """The end of the file, where this is its last frame."""
        last = self.records[-1] if self.records else None
        return last.end if last is not None and last.HasField("end") else None


class FrameWriter:
    """Makes frames of records; its owner writes them."""

    def __init__(self, seal: Seal = Seal(), frame_bytes: int = 0) -> None:
        """``seal``: that of the last frame, where a file is continued. ``frame_bytes``: about how much is compressed
        together; 0: FRAME_BYTES."""
        self.seal = seal
        self._most = frame_bytes or FRAME_BYTES
        self._compressor: zstandard.ZstdCompressor = zstd().ZstdCompressor(level=_LEVEL, write_checksum=True)
        self._records = LogFile()
        self._bytes = 0
        self._position = seal.position

    def add(self, record: LogRecord) -> bytes:
        """Takes a record in; gives a frame where one is full, else nothing."""
        self._records.records.append(record)
        if record.HasField("event"):
            self._position = record.event.position
            self._bytes += len(record.event.payload) + 256
        else:
            self._bytes += record.ByteSize()
        return self.frame() if self._bytes >= self._most else b""

    def frame(self) -> bytes:
        """The frame of the records since the last one; nothing where there are none."""
        if not self._records.records:
            return b""
        data = self._records.SerializeToString(deterministic=True)
        digest = hashlib.sha256(self.seal.digest + data).digest()
        self.seal = Seal(digest, self._position, self.seal.records + len(self._records.records))
        sealed = LogFile()
        sealed.records.add().seal.CopyFrom(
            LogFileSeal(digest=digest, position=self.seal.position, records=self.seal.records)
        )
        self._records.Clear()
        self._bytes = 0
        return self._compressor.compress(data + sealed.SerializeToString(deterministic=True))


class FrameReader:
    """Reads a file frame by frame, and proves each."""

    def __init__(self, file: IO[bytes], name: str, remedy: str, seal: Seal = Seal(), offset: int = 0) -> None:
        """``name`` and ``remedy`` are for what is said of damage. ``seal``: that of the frame before ``offset``."""
        self._file = file
        self._name = name
        self._remedy = remedy
        self._decompressor: zstandard.ZstdDecompressor = zstd().ZstdDecompressor()
        self.seal = seal
        self.offset = offset
        """Where the next frame begins."""

    def frames(self) -> Iterator[Frame]:
        """The frames up to the end of the file. Raises LogFileDamaged, NotALogFile; the file may end too early."""
        self._file.seek(self.offset)
        left = b""
        while left := left or self._file.read(_READ_BYTES):
            data, left, end = self._decompressed(left)
            frame = self._proved(data, end)
            self.seal, self.offset = frame.seal, end
            yield frame

    def _decompressed(self, left: bytes) -> tuple[bytes, bytes, int]:
        """The bytes of the next frame, what was read behind it, and where it ends."""
        if self.offset == 0 and not left.startswith(_MAGIC[: len(left)]):
            raise NotALogFile(file=self._name, why="it is not in zstd; `twinlog export LOG FILE` makes one")
        while len(left) < _HEADER_BYTES and (more := self._file.read(_READ_BYTES)):
            left += more
        head, stream = left[:_HEADER_BYTES], self._decompressor.decompressobj()
        found, size, taken = [], 0, 0
        while True:
            try:
                part = stream.decompress(left)
            except zstd().ZstdError as error:
                raise self._damaged(str(error)) from error
            found.append(part)
            size += len(part)
            taken += len(left)
            if size > _FRAME_BYTES_MOST:
                raise self._damaged("a frame is larger than any that is written")
            if stream.eof:
                if not _is_as_written(head, size):
                    raise self._damaged("a frame does not begin as one that is written")
                left = stream.unused_data
                return b"".join(found), left, self.offset + taken - len(left)
            if not (left := self._file.read(_READ_BYTES)):
                raise self._damaged("it ends in the middle of a frame: it was cut off")

    def _proved(self, data: bytes, end: int) -> Frame:
        try:
            records = LogFile.FromString(data).records
        except DecodeError as error:
            raise self._damaged("its records cannot be parsed") from error
        if not records or not records[-1].HasField("seal"):
            raise self._damaged("a frame without its seal")
        said = records[-1].seal
        own = LogFile(records=records[-1:]).ByteSize()
        digest = hashlib.sha256(self.seal.digest + data[: len(data) - own]).digest()
        if digest != said.digest:
            raise self._damaged("its seal does not fit what comes before")
        return Frame(records[:-1], Seal(digest, said.position, said.records), self.offset, end)

    def _damaged(self, why: str) -> LogFileDamaged:
        return LogFileDamaged(
            file=self._name, offset=self.offset, position=self.seal.position, why=why, remedy=self._remedy
        )


def _is_as_written(head: bytes, size: int) -> bool:
    """Whether a frame of so many bytes, decompressed, begins as it is written; zstd takes some others, too."""
    said = zstd().get_frame_parameters(head)
    return bool(said.content_size == size and said.has_checksum and not head[len(_MAGIC)] & _UNUSED_BIT)


def header_of(frame: Frame, name: str) -> LogFileHeader:
    """The header, which the first frame begins with. Raises NotALogFile."""
    if not frame.records or not frame.records[0].HasField("header"):
        raise NotALogFile(file=name, why="it does not begin with a header")
    header = frame.records[0].header
    if header.format != FORMAT:
        raise NotALogFile(
            file=name, why=f"its format is {header.format}, this program knows {FORMAT}; use a newer one"
        )
    return header


def event_record(event: Recorded) -> LogRecord:
    """The record of an event: the same message that its twin carries."""
    record = LogRecord()
    record.event.MergeFromString(to_wire(event))
    return record


def event_of(record: LogRecord, log: str) -> Recorded:
    """The event of a record. Raises google.protobuf.message.DecodeError."""
    return from_wire(log, record.event.SerializeToString())
