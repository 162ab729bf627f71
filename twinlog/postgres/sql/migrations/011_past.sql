-- What makes the past quick to read. All of it is made from events, and may be emptied at any time.

-- Snapshots of versions long past; the newest of each stream is in table snapshots, which older programs know.
CREATE TABLE kept_snapshots (
    stream_type text NOT NULL,
    stream_id   text NOT NULL,
    version     integer NOT NULL,
    -- Of the event with that version: where the log has another one there, the snapshot is of another history.
    event_id    uuid NOT NULL,
    position    bigint NOT NULL,
    schema      text NOT NULL,
    checksum    bigint NOT NULL,
    kept_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    state       bytea NOT NULL,
    PRIMARY KEY (stream_id, stream_type, version)
);

-- At some positions, the last event of each log that caused any event up to there.
CREATE TABLE causal_marks (
    position bigint PRIMARY KEY,
    event_id uuid NOT NULL,
    causes   jsonb NOT NULL
);

-- Rows of views as they were at some versions of the streams that they are folded from, of this log or of others.
CREATE TABLE kept_rows (
    view        text NOT NULL,
    log         text NOT NULL,
    stream      text NOT NULL,
    version     integer NOT NULL,
    position    bigint NOT NULL,
    recorded_at timestamptz NOT NULL,
    event_id    uuid NOT NULL,
    schema      text NOT NULL,
    row         bytea NOT NULL,
    PRIMARY KEY (stream, view, log, version)
);
