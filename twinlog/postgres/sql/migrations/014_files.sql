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
