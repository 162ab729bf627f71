-- revision: 4
-- Appends a batch atomically. Conflicts come back as data. `conflict` is null if the batch was appended; `first` is
-- then the position of its first event, or of the next one to come if the batch has none, and `before` the id of the
-- event before that, null if there is none. Raises TW002 where a table did not take every row, as with a trigger that
-- somebody added: what is acknowledged has to be there.
CREATE OR REPLACE FUNCTION append_linked(
    at           timestamptz,
    streams      stream_version[],  -- each stream read or written, and the version it was at
    new_events   new_event[],
    outcomes     new_outcome[],
    moves        checkpoint_advance[],
    timers_set   timer_change[],
    known_era      integer,  -- null: the writer knows nothing of the log's history
    known_position bigint,   -- an event that the writer knows, and its id; null where the log is empty
    known_event    uuid,
    digest         bytea,    -- of the batch's events, and their marks; null where the program does not link its batches
    marks          bytea,
    OUT first    bigint,
    OUT conflict jsonb,
    OUT before   uuid
-- The plans do not depend on the arrays' contents; planning at every call took a seventh of its time.
) LANGUAGE plpgsql SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    head        bigint;
    reached     bigint;
    head_after  bigint;
    last_link   bigint;
    last_hash   bytea;
    now_era     integer;
    stale       jsonb;
    answered    jsonb;
    elsewhere   jsonb;
    taken       bigint;
    refusing    text;
BEGIN
    -- Serializes appends until commit: positions are gapless and become visible in order.
    SELECT position, era, linked, links, hash INTO head, now_era, reached, last_link, last_hash FROM log_head FOR UPDATE;
    SELECT event_id INTO before FROM events WHERE position = head;

    -- A log that lost its last events, as in a failover, takes no others before it is repaired; nor does one whose head
    -- is gone, or is at no event.
    IF head IS NULL OR (before IS NULL AND head > 0) OR now_era <> known_era OR known_position > head OR (known_event IS DISTINCT FROM before AND NOT EXISTS (
            SELECT FROM events WHERE position = known_position AND event_id = known_event) AND known_position > 0) THEN
        conflict := '{"forked": true}';
        RETURN;
    END IF;

    SELECT jsonb_agg(s.i) INTO stale
      FROM unnest(streams) WITH ORDINALITY AS s (stream, version, i)
     WHERE s.version <> coalesce((SELECT max(e.version) FROM events e
                                    WHERE e.stream_type = (s.stream).type AND e.stream_id = (s.stream).id),
                                 -- Asked only where the table has none.
                                 (SELECT max(a.version) FROM archived_streams a
                                    WHERE a.stream_type = (s.stream).type AND a.stream_id = (s.stream).id), 0);

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
                            partition_key, tag, recorded_at, extra)
        SELECT head + e.i, (e.stream).type, (e.stream).id, e.version, e.event_id, e.type, e.payload, e.metadata - 'extra',
               e.partition_key, e.tag, at, e.metadata -> 'extra'
          FROM unnest(new_events) WITH ORDINALITY
            AS e (stream, version, event_id, type, payload, metadata, partition_key, tag, i);
        GET DIAGNOSTICS taken = ROW_COUNT;
        IF taken <> cardinality(new_events) THEN
            refusing := 'events';
        END IF;
        IF digest IS NULL THEN
            UPDATE log_head SET position = head + cardinality(new_events);
        ELSE
            IF reached < head THEN
                PERFORM note_unlinked();
            END IF;
            head_after := head + cardinality(new_events);
            -- As add_link has it, whose call would take a tenth of an append.
            last_hash := sha256(last_hash || int2send(1::smallint) || int8send(first) || int8send(head_after)
                                || int8send(head_after) || digest);
            INSERT INTO chain VALUES (last_link + 1, 1, first, head_after, head_after, digest, marks, last_hash);
            IF NOT FOUND THEN
                refusing := 'chain';
            END IF;
            UPDATE log_head
               SET position = head_after, linked = head_after, links = last_link + 1, hash = last_hash;
        END IF;
        IF NOT FOUND THEN
            refusing := 'log_head';
        END IF;
    END IF;

    IF cardinality(outcomes) > 0 THEN
        INSERT INTO requests (request_id, fingerprint, reply, position, recorded_at)
        SELECT request_id, fingerprint, reply, head + after, at FROM unnest(outcomes);
        GET DIAGNOSTICS taken = ROW_COUNT;
        IF taken <> cardinality(outcomes) THEN
            refusing := 'requests';
        END IF;
    END IF;

    IF cardinality(moves) > 0 THEN
        INSERT INTO checkpoints AS kept (consumer, position, event_position, event_id)
        SELECT consumer, upto, CASE WHEN event_id IS NOT NULL THEN upto END, event_id FROM unnest(moves)
        ON CONFLICT (consumer) DO UPDATE
           SET position = excluded.position,
               event_position = coalesce(excluded.event_position, kept.event_position),
               event_id = coalesce(excluded.event_id, kept.event_id);
        GET DIAGNOSTICS taken = ROW_COUNT;
        IF taken <> cardinality(moves) THEN
            refusing := 'checkpoints';
        END IF;
    END IF;

    IF cardinality(timers_set) > 0 THEN
        DELETE FROM timers t USING unnest(timers_set) AS c
         WHERE t.stream_type = (c.stream).type AND t.stream_id = (c.stream).id AND c.due IS NULL;
        INSERT INTO timers (stream_type, stream_id, version, due)
        SELECT (c.stream).type, (c.stream).id, c.version, c.due FROM unnest(timers_set) AS c WHERE c.due IS NOT NULL
        ON CONFLICT (stream_id, stream_type) DO UPDATE SET version = excluded.version, due = excluded.due;
        GET DIAGNOSTICS taken = ROW_COUNT;
        IF taken <> (SELECT count(*) FROM unnest(timers_set) AS c WHERE c.due IS NOT NULL) THEN
            refusing := 'timers';
        END IF;
    END IF;

    IF refusing IS NOT NULL THEN
        RAISE EXCEPTION 'table % did not take every row', refusing USING ERRCODE = 'TW002', TABLE = refusing;
    END IF;
END $$;
