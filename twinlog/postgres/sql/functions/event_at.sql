-- revision: 1
-- The event of a stream with a version, wherever it is: its position, and its id, which is null for one that is only in
-- the archive.
CREATE OR REPLACE FUNCTION event_at(of_type text, of_id text, at_version integer)
RETURNS TABLE (at bigint, id uuid) LANGUAGE sql STABLE AS $$
    SELECT e.position, e.event_id FROM events e
     WHERE e.stream_id = of_id AND e.stream_type = of_type AND e.version = at_version
    UNION ALL
    SELECT a.positions[at_version - a.first_version + 1], NULL FROM archived_streams a
     WHERE a.stream_id = of_id AND a.stream_type = of_type
       AND a.version >= at_version AND a.first_version <= at_version
$$;
