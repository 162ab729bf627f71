-- revision: 1
-- Notes the positions that were appended without a link, as by a program of an earlier release. The caller holds the
-- lock of log_head.
CREATE OR REPLACE FUNCTION note_unlinked() RETURNS void LANGUAGE sql AS $$
    INSERT INTO unlinked SELECT linked + 1, position FROM log_head WHERE linked < position;
    UPDATE log_head SET linked = position WHERE linked < position;
$$;
