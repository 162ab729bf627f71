"""Files of logs, read in pieces of any size: a disk or a store gives as much at a time as it likes."""

from __future__ import annotations

from io import BytesIO

import pytest

from tests.kernel.batches import recorded
from twinlog.log import log_file
from twinlog.log.log_file import FrameReader, FrameWriter, LogFileDamaged, event_record


def test_frames_are_read_in_pieces_of_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    events = recorded("orders", 12)
    writer, written, ends = FrameWriter(frame_bytes=900), b"", list[int]()
    for event in events:
        if frame := writer.add(event_record(event)):
            written += frame
            ends.append(len(written))
    assert len(ends) > 2
    for size in (1, 7, 100, 1_000_000):
        monkeypatch.setattr(log_file, "_READ_BYTES", size)
        frames = [*FrameReader(BytesIO(written), "some.zip", "").frames()]
        assert [frame.end for frame in frames] == ends, size
        assert [record.event.position for frame in frames for record in frame.records] == [*range(1, 13)]
        again = [*FrameReader(BytesIO(written), "some.zip", "", frames[0].seal, ends[0]).frames()]
        assert [frame.end for frame in again] == ends[1:], size
        for cut in (ends[0] - 1, ends[1] + 7):
            with pytest.raises(LogFileDamaged):
                [*FrameReader(BytesIO(written[:cut]), "some.zip", "").frames()]
