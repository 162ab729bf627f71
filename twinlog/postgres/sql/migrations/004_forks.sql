-- What tells a log from another history of the same log, as after a failover that lost its last events.

-- Counts the forks and the repairs of the log's history: whoever remembers something of an earlier era looks again.
ALTER TABLE log_head ADD COLUMN era integer NOT NULL DEFAULT 0;

-- An event that the consumer has handled, at or before `position` unless someone has set that back; null where none is
-- known.
ALTER TABLE checkpoints ADD COLUMN event_position bigint, ADD COLUMN event_id uuid;

-- `event_id`: that of the event at `upto`; null where it is unknown.
CREATE TYPE checkpoint_advance AS (consumer text, after bigint, upto bigint, event_id uuid);

-- Events that a repair took out of the log, because others had seen another history of their streams.
CREATE TABLE given_up_events (
    LIKE events,
    era         integer NOT NULL,
    given_up_at timestamptz NOT NULL DEFAULT now()
);
