-- revision: 2
-- Takes events out of the table that are in a file of the archive: of positions `from_position` to `to_position`, those
-- of streams that have ended, and those that a snapshot of their stream covers. Gives how many. Refuses what is not
-- recorded as archived, with its checksum and count, and takes the owner of the table.
CREATE OR REPLACE FUNCTION remove_archived(
    from_position bigint,
    to_position   bigint,
    quiet_since   timestamptz,  -- a stream with an event since then has not ended
    ending_types  text[]        -- types of streams that end; sagas say it by themselves
) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    removed bigint;
BEGIN
    PERFORM FROM archived_ranges
      WHERE first <= from_position AND last >= to_position AND events = last - first + 1 AND octet_length(digest) = 32;
    IF NOT FOUND OR to_position >= (SELECT position FROM log_head) THEN
        RAISE EXCEPTION 'events % to % are not archived', from_position, to_position
            USING ERRCODE = 'insufficient_privilege', HINT = 'twinlog archive puts them into a file first';
    END IF;

    ALTER TABLE events DISABLE TRIGGER insert_only;
    GRANT DELETE ON events TO CURRENT_USER;

    WITH present AS (
        -- Of each stream its oldest events go first: what is left is its newest, by which appends go.
        SELECT stream_type, stream_id FROM (
            SELECT DISTINCT stream_type, stream_id FROM events
             WHERE position BETWEEN from_position AND to_position AND stream_type <> 'dead_letters') AS there
         WHERE from_position <= (
               SELECT o.position FROM events o WHERE o.stream_id = there.stream_id AND o.stream_type = there.stream_type
                ORDER BY o.version LIMIT 1)
    ), movable AS (
        -- Of each stream, the version up to which the table needs it no more.
        SELECT p.stream_type, p.stream_id,
               CASE
                   WHEN newest.type IN ('twinlog.v1.SagaCompleted', 'twinlog.v1.SagaCompensated')
                     OR (p.stream_type = ANY (ending_types) AND newest.type NOT LIKE 'twinlog.v1.Saga%')
                   THEN (SELECT newest.version
                          WHERE newest.recorded_at < quiet_since AND NOT EXISTS (
                                SELECT FROM timers t WHERE t.stream_id = p.stream_id AND t.stream_type = p.stream_type))
                   WHEN newest.type NOT LIKE 'twinlog.v1.Saga%'
                   THEN (SELECT s.version FROM snapshots s
                          WHERE s.stream_id = p.stream_id AND s.stream_type = p.stream_type)
               END AS upto
          FROM present p
          CROSS JOIN LATERAL (
              SELECT e.type, e.recorded_at, e.version FROM events e
               WHERE e.stream_id = p.stream_id AND e.stream_type = p.stream_type ORDER BY e.version DESC LIMIT 1
          ) newest
    ), gone AS (
        DELETE FROM events e USING movable m
         WHERE e.position BETWEEN from_position AND to_position
           AND e.stream_id = m.stream_id AND e.stream_type = m.stream_type AND e.version <= m.upto
         RETURNING e.stream_type, e.stream_id, e.version, e.position
    ), noted AS (
        INSERT INTO archived_streams (stream_type, stream_id, first_version, version, positions)
        SELECT stream_type, stream_id, min(version), max(version), array_agg(position ORDER BY version)
          FROM gone GROUP BY stream_type, stream_id
    )
    SELECT count(*) INTO removed FROM gone;

    REVOKE DELETE ON events FROM CURRENT_USER;
    ALTER TABLE events ENABLE TRIGGER insert_only;
    RETURN removed;
END $$;
