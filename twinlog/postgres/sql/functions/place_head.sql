-- revision: 1
-- Sets log_head to the last event that is there, in a new era, and makes it anew where it is gone. What the chain and the
-- outcomes of requests say of events beyond goes: the caller has seen to it that nobody can put them back.
CREATE OR REPLACE FUNCTION place_head() RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    ends bigint;
BEGIN
    PERFORM FROM log_head FOR UPDATE;
    SELECT greatest((SELECT max(position) FROM events), (SELECT max(last) FROM archived_ranges), 0) INTO ends;

    -- Its era is one that no process knows: minutes go up faster than eras do.
    INSERT INTO log_head (position, era, linked, links, hash)
    SELECT ends, (extract(epoch FROM now()) / 60)::integer,
           greatest((SELECT head FROM chain WHERE kind = 3 ORDER BY number DESC LIMIT 1),
                    (SELECT max(last_position) FROM chain WHERE kind <> 3 AND number > coalesce(
                        (SELECT max(number) FROM chain WHERE kind = 3), 0)),
                    (SELECT max(last_position) FROM unlinked), 0),
           newest.number, newest.hash
      FROM (SELECT number, hash FROM chain
             UNION ALL SELECT 0, decode(repeat('00', 32), 'hex') ORDER BY number DESC LIMIT 1) AS newest
    ON CONFLICT DO NOTHING;

    DELETE FROM requests WHERE position > ends;
    DELETE FROM unlinked WHERE first_position > ends;
    UPDATE unlinked SET last_position = ends WHERE last_position > ends;
    UPDATE log_head SET position = ends, linked = least(linked, ends), era = era + 1;
    PERFORM cut_chain(ends + 1);
END $$;
