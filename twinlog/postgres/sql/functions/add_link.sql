-- revision: 1
-- Adds a link to the chain, other than that of an append. The caller holds the lock of log_head.
CREATE OR REPLACE FUNCTION add_link(
    kind           smallint,
    first_position bigint,
    last_position  bigint,
    at             bigint,  -- the position of the log
    digest         bytea,
    marks          bytea
) RETURNS void LANGUAGE plpgsql AS $$
#variable_conflict use_variable
DECLARE
    links bigint;
    hash  bytea;
BEGIN
    SELECT h.links, h.hash INTO links, hash FROM log_head h;
    links := links + 1;
    -- As append_linked has it.
    hash := sha256(hash || int2send(kind) || int8send(first_position) || int8send(last_position) || int8send(at)
                   || digest);
    INSERT INTO chain VALUES (links, kind, first_position, last_position, at, digest, marks, hash);
    UPDATE log_head h SET links = links, hash = hash;
END $$;
