-- revision: 1
-- Adds a link for the first of the unlinked positions, up to `upto`. The caller has locked their row.
CREATE OR REPLACE FUNCTION seal_events(first bigint, upto bigint, digest bytea, marks bytea) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    head bigint;
BEGIN
    SELECT position INTO head FROM log_head FOR UPDATE;
    PERFORM add_link(2::smallint, first, upto, head, digest, marks);
    DELETE FROM unlinked WHERE first_position = first AND last_position <= upto;
    UPDATE unlinked SET first_position = upto + 1 WHERE first_position = first;
END $$;
