-- revision: 1
-- Says in the chain that the log has another history from `since` on, where links reach so far: what they cover from the
-- first position of them on is sealed again.
CREATE OR REPLACE FUNCTION cut_chain(since bigint) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    cut  bigint;
    head bigint;
BEGIN
    SELECT position INTO head FROM log_head FOR UPDATE;
    PERFORM note_unlinked();
    SELECT min(first_position) INTO cut FROM (
        SELECT first_position FROM chain WHERE kind <> 3 AND last_position >= since
        UNION ALL SELECT first_position FROM unlinked WHERE last_position >= since) AS reaching;
    IF cut IS NULL THEN
        RETURN;
    END IF;
    cut := least(cut, since);
    DELETE FROM unlinked WHERE first_position >= cut;
    UPDATE unlinked SET last_position = cut - 1 WHERE last_position >= cut;
    PERFORM add_link(3::smallint, cut, head, cut - 1, sha256(''), '');
    UPDATE log_head SET linked = cut - 1;
END $$;
