-- revision: 2
-- Sets log_head to the last event and, where it is behind, to the last link that is there, in a new era, and makes it
-- anew where it is gone. What the chain and the outcomes of requests say of events beyond goes: the caller has seen to
-- it that nobody can put them back.
CREATE OR REPLACE FUNCTION place_head() RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    ends   bigint;
    noted  bigint;
    newest chain;
BEGIN
    PERFORM FROM log_head FOR UPDATE;
    SELECT greatest((SELECT max(position) FROM events), (SELECT max(last) FROM archived_ranges), 0) INTO ends;
    SELECT * INTO newest FROM chain ORDER BY number DESC LIMIT 1;
    noted := greatest((SELECT c.head FROM chain c WHERE kind = 3 ORDER BY number DESC LIMIT 1),
                      (SELECT max(last_position) FROM chain WHERE kind <> 3 AND number > coalesce(
                          (SELECT max(number) FROM chain WHERE kind = 3), 0)),
                      (SELECT max(last_position) FROM unlinked), 0);

    -- Its era is one that no process knows: minutes go up faster than eras do.
    INSERT INTO log_head (position, era, linked, links, hash)
    SELECT ends, (extract(epoch FROM now()) / 60)::integer, noted,
           coalesce(newest.number, 0), coalesce(newest.hash, decode(repeat('00', 32), 'hex'))
    ON CONFLICT DO NOTHING;
    UPDATE log_head h SET linked = noted, links = newest.number, hash = newest.hash
     WHERE h.links < newest.number;

    DELETE FROM requests WHERE position > ends;
    DELETE FROM unlinked WHERE first_position > ends;
    UPDATE unlinked SET last_position = ends WHERE last_position > ends;
    UPDATE log_head h SET position = ends, linked = least(h.linked, ends), era = era + 1;
    PERFORM cut_chain(ends + 1);
END $$;
