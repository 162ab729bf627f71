-- Logs in files: the import of one, and what it keeps for consumers until they come for it.

-- The file that this log was filled from. While `finished_at` is null, services refuse to start.
CREATE TABLE log_imports (
    single      boolean PRIMARY KEY DEFAULT true CHECK (single),
    file_id     uuid NOT NULL,
    position    bigint NOT NULL,
    began_at    timestamptz NOT NULL DEFAULT now(),
    finished_at timestamptz
);

-- Where consumers stood in the log that was exported. A consumer whose effects are events of this log takes its place
-- when it first asks the log; one whose effects are rows of a view never asks, and begins at the first event.
CREATE TABLE imported_checkpoints (
    consumer       text PRIMARY KEY,
    position       bigint NOT NULL,
    event_position bigint,
    event_id       uuid
);

-- Ranges of positions whose events are in a file, all of them; some may be in the table still.
CREATE TABLE archived_ranges (
    first         bigint PRIMARY KEY,
    last          bigint NOT NULL,
    events        bigint NOT NULL,
    file          text NOT NULL,
    bytes         bigint NOT NULL,
    -- The digest of the file's last seal, which proves all of it.
    digest        bytea NOT NULL,
    -- Of each frame with events: where it begins in the file, the position of its first event, and its own digest.
    frame_offsets bigint[] NOT NULL,
    frame_firsts  bigint[] NOT NULL,
    frame_digests bytea[] NOT NULL,
    archived_at   timestamptz NOT NULL DEFAULT now(),
    CHECK (last >= first AND events = last - first + 1)
);

-- Events that were taken out of the table, by stream: those up to a version, and their positions.
CREATE TABLE archived_streams (
    stream_type   text NOT NULL,
    stream_id     text NOT NULL,
    first_version integer NOT NULL,
    version       integer NOT NULL,
    positions     bigint[] NOT NULL,
    PRIMARY KEY (stream_id, stream_type, version)
);

-- Up to where the stream of this log may be empty: its relay takes the messages out.
CREATE TABLE trimmed_stream (
    single   boolean PRIMARY KEY DEFAULT true CHECK (single),
    position bigint NOT NULL
);
