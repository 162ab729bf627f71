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

-- The history takes inserts only.
CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the log takes inserts only: % of % refused', TG_OP, TG_TABLE_NAME
        USING ERRCODE = 'insufficient_privilege', HINT = 'append an event that corrects the earlier one';
END $$;
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

-- At most one wake-up a stream.
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

-- Appends a batch, all of it or nothing. Conflicts come back as data: `conflict` is null where it was appended,
-- and `first` is then the position of its first event (of the next one, where the batch has none).
CREATE FUNCTION append(
    at           timestamptz,
    streams      stream_version[],  -- every stream that was read or is written, and the version it was at
    new_events   new_event[],
    outcomes     new_outcome[],
    moves        checkpoint_move[],
    timers_set   timer_change[],
    OUT first    bigint,
    OUT conflict jsonb
-- Its plans do not depend on what the arrays hold; planning them anew for every call cost a seventh of it.
) LANGUAGE plpgsql SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    head        bigint;
    stale       jsonb;
    answered    jsonb;
    elsewhere   jsonb;
BEGIN
    -- This lock serialises appends until commit: positions are gapless and become visible in order.
    SELECT position INTO head FROM log_head FOR UPDATE;

    SELECT jsonb_agg(s.i) INTO stale
      FROM unnest(streams) WITH ORDINALITY AS s (stream, version, i)
     WHERE s.version <> coalesce((SELECT max(e.version) FROM events e
                                    WHERE e.stream_type = (s.stream).type AND e.stream_id = (s.stream).id), 0);

    IF cardinality(outcomes) > 0 THEN
        SELECT jsonb_agg(r.request_id) INTO answered FROM unnest(outcomes) JOIN requests r USING (request_id);
    END IF;

    IF cardinality(moves) > 0 THEN
        SELECT jsonb_object_agg(m.consumer, coalesce(k.position, 0)) INTO elsewhere
          FROM unnest(moves) AS m LEFT JOIN checkpoints k USING (consumer)
         WHERE coalesce(k.position, 0) <> m.after;
    END IF;

    IF stale IS NOT NULL OR answered IS NOT NULL OR elsewhere IS NOT NULL THEN
        conflict := jsonb_build_object('streams', stale, 'requests', answered, 'checkpoints', elsewhere);
        RETURN;
    END IF;

    first := head + 1;

    IF cardinality(new_events) > 0 THEN
        INSERT INTO events (position, stream_type, stream_id, version, event_id, type, payload, metadata,
                            partition_key, tag, recorded_at)
        SELECT head + e.i, (e.stream).type, (e.stream).id, e.version, e.event_id, e.type, e.payload, e.metadata,
               e.partition_key, e.tag, at
          FROM unnest(new_events) WITH ORDINALITY
            AS e (stream, version, event_id, type, payload, metadata, partition_key, tag, i);
        UPDATE log_head SET position = head + cardinality(new_events);
    END IF;

    IF cardinality(outcomes) > 0 THEN
        INSERT INTO requests (request_id, fingerprint, reply, position, recorded_at)
        SELECT request_id, fingerprint, reply, head + after, at FROM unnest(outcomes);
    END IF;

    IF cardinality(moves) > 0 THEN
        INSERT INTO checkpoints (consumer, position)
        SELECT consumer, upto FROM unnest(moves)
        ON CONFLICT (consumer) DO UPDATE SET position = excluded.position;
    END IF;

    IF cardinality(timers_set) > 0 THEN
        DELETE FROM timers t USING unnest(timers_set) AS c
         WHERE t.stream_type = (c.stream).type AND t.stream_id = (c.stream).id AND c.due IS NULL;
        INSERT INTO timers (stream_type, stream_id, version, due)
        SELECT (c.stream).type, (c.stream).id, c.version, c.due FROM unnest(timers_set) AS c WHERE c.due IS NOT NULL
        ON CONFLICT (stream_id, stream_type) DO UPDATE SET version = excluded.version, due = excluded.due;
    END IF;
END $$;
