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
    UNIQUE (stream_type, stream_id, version)
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
    PRIMARY KEY (stream_type, stream_id)
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
    PRIMARY KEY (stream_type, stream_id)
);

-- Who does a piece of work at the moment; may be emptied at any time.
CREATE TABLE leases (
    name       text PRIMARY KEY,
    holder     text NOT NULL,
    expires_at timestamptz NOT NULL
);

-- Appends a batch, all of it or nothing. Conflicts come back as data: `conflict` is null where it was appended,
-- and `first` is then the position of its first event (of the next one, where the batch has none).
CREATE FUNCTION append(
    at             timestamptz,
    -- every stream that was read or is written, and the version it was at
    s_type         text[],
    s_id           text[],
    s_version      integer[],
    -- events
    e_type         text[],
    e_stream       integer[],  -- index into the streams, from 1
    e_version      integer[],
    e_id           uuid[],
    e_payload      bytea[],
    e_metadata     jsonb[],
    e_key          text[],
    e_tag          text[],
    -- outcomes of requests; r_offset: how many of the events precede and include the request's
    r_id           text[],
    r_fingerprint  bytea[],
    r_reply        bytea[],
    r_offset       integer[],
    -- moves of checkpoints
    c_consumer     text[],
    c_after        bigint[],
    c_upto         bigint[],
    -- timers; t_due null clears
    t_type         text[],
    t_id           text[],
    t_version      integer[],
    t_due          timestamptz[],
    OUT first      bigint,
    OUT conflict   jsonb
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
      FROM unnest(s_type, s_id, s_version) WITH ORDINALITY AS s (type, id, version, i)
     WHERE s.version <> coalesce((SELECT max(e.version) FROM events e
                                    WHERE e.stream_type = s.type AND e.stream_id = s.id), 0);

    IF cardinality(r_id) > 0 THEN
        SELECT jsonb_agg(r.request_id) INTO answered FROM requests r WHERE r.request_id = ANY (r_id);
    END IF;

    IF cardinality(c_consumer) > 0 THEN
        SELECT jsonb_object_agg(c.consumer, coalesce(k.position, 0)) INTO elsewhere
          FROM unnest(c_consumer, c_after) AS c (consumer, after)
          LEFT JOIN checkpoints k USING (consumer)
         WHERE coalesce(k.position, 0) <> c.after;
    END IF;

    IF stale IS NOT NULL OR answered IS NOT NULL OR elsewhere IS NOT NULL THEN
        conflict := jsonb_build_object('streams', stale, 'requests', answered, 'checkpoints', elsewhere);
        RETURN;
    END IF;

    first := head + 1;

    IF cardinality(e_type) > 0 THEN
        INSERT INTO events (position, stream_type, stream_id, version, event_id, type, payload, metadata,
                            partition_key, tag, recorded_at)
        SELECT head + e.i, s_type[e.stream], s_id[e.stream], e.version, e.id, e.type, e.payload, e.metadata,
               e.key, e.tag, at
          FROM unnest(e_type, e_stream, e_version, e_id, e_payload, e_metadata, e_key, e_tag) WITH ORDINALITY
            AS e (type, stream, version, id, payload, metadata, key, tag, i);
        UPDATE log_head SET position = head + cardinality(e_type);
    END IF;

    IF cardinality(r_id) > 0 THEN
        INSERT INTO requests (request_id, fingerprint, reply, position, recorded_at)
        SELECT r.id, r.fingerprint, r.reply, head + r.after, at
          FROM unnest(r_id, r_fingerprint, r_reply, r_offset) AS r (id, fingerprint, reply, after);
    END IF;

    IF cardinality(c_consumer) > 0 THEN
        INSERT INTO checkpoints (consumer, position)
        SELECT c.consumer, c.upto FROM unnest(c_consumer, c_upto) AS c (consumer, upto)
        ON CONFLICT (consumer) DO UPDATE SET position = excluded.position;
    END IF;

    IF cardinality(t_type) > 0 THEN
        DELETE FROM timers t USING unnest(t_type, t_id, t_due) AS c (type, id, due)
         WHERE t.stream_type = c.type AND t.stream_id = c.id AND c.due IS NULL;
        INSERT INTO timers (stream_type, stream_id, version, due)
        SELECT c.type, c.id, c.version, c.due
          FROM unnest(t_type, t_id, t_version, t_due) AS c (type, id, version, due)
         WHERE c.due IS NOT NULL
        ON CONFLICT (stream_type, stream_id) DO UPDATE SET version = excluded.version, due = excluded.due;
    END IF;
END $$;
