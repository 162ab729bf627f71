-- One service's log: events in gapless order of commit, and what is committed together with them.

CREATE TABLE log_head (
    single   boolean PRIMARY KEY DEFAULT true CHECK (single),
    position bigint NOT NULL
);
INSERT INTO log_head (position) VALUES (0);

CREATE TABLE events (
    position      bigint PRIMARY KEY,
    stream_type   text NOT NULL,
    stream_id     text NOT NULL,
    version       integer NOT NULL,
    event_id      uuid NOT NULL,
    type          text NOT NULL,
    payload       bytea NOT NULL,
    metadata      jsonb NOT NULL,
    partition_key text NOT NULL,
    tag           text NOT NULL,
    recorded_at   timestamptz NOT NULL,
    -- The id first: it is what tells streams apart, so one comparison decides.
    UNIQUE (stream_id, stream_type, version)
);

-- History takes inserts only. The trigger has to name a function; functions/refuse_change.sql replaces this one.
CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE insufficient_privilege; END $$;
CREATE TRIGGER insert_only BEFORE UPDATE OR DELETE OR TRUNCATE ON events
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
REVOKE UPDATE, DELETE, TRUNCATE ON events FROM PUBLIC, CURRENT_USER;

-- The outcome of each request that carried an id.
CREATE TABLE requests (
    request_id  text PRIMARY KEY,
    fingerprint bytea NOT NULL,
    reply       bytea NOT NULL,
    position    bigint NOT NULL,
    recorded_at timestamptz NOT NULL
);

-- How far each consumer of this service has handled the log that it reads.
CREATE TABLE checkpoints (
    consumer text PRIMARY KEY,
    position bigint NOT NULL
);

-- At most one wake-up per stream.
CREATE TABLE timers (
    stream_type text NOT NULL,
    stream_id   text NOT NULL,
    version     integer NOT NULL,
    due         timestamptz NOT NULL,
    PRIMARY KEY (stream_id, stream_type)
);
CREATE INDEX timers_due ON timers (due);

-- A cache of states; may be emptied at any time.
CREATE TABLE snapshots (
    stream_type text NOT NULL,
    stream_id   text NOT NULL,
    version     integer NOT NULL,
    position    bigint NOT NULL,
    schema      text NOT NULL,
    state       bytea NOT NULL,
    PRIMARY KEY (stream_id, stream_type)
);

-- Who does a piece of work at the moment; may be emptied at any time.
CREATE TABLE leases (
    name       text PRIMARY KEY,
    holder     text NOT NULL,
    expires_at timestamptz NOT NULL
);

-- The rows that a batch consists of.
CREATE TYPE stream_name AS (type text, id text);
CREATE TYPE stream_version AS (stream stream_name, version integer);
CREATE TYPE new_event AS (
    stream        stream_name,
    version       integer,
    event_id      uuid,
    type          text,
    payload       bytea,
    metadata      jsonb,
    partition_key text,
    tag           text
);
-- `after`: how many of the batch's events precede the outcome, its own included.
CREATE TYPE new_outcome AS (request_id text, fingerprint bytea, reply bytea, after integer);
CREATE TYPE checkpoint_move AS (consumer text, after bigint, upto bigint);
-- `due` null clears.
CREATE TYPE timer_change AS (stream stream_name, version integer, due timestamptz);
