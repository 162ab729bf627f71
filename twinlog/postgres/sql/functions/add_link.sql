-- revision: 1
-- Adds a link to the chain and gives its number. The caller holds the lock of log_head.
CREATE OR REPLACE FUNCTION add_link(
    kind           smallint,
    first_position bigint,
    last_position  bigint,
    head           bigint,
    digest         bytea,
    marks          bytea
) RETURNS bigint LANGUAGE plpgsql AS $$
#variable_conflict use_variable
DECLARE
    number_before bigint;
    hash_before   bytea;
BEGIN
    SELECT c.number, c.hash INTO number_before, hash_before FROM chain c ORDER BY c.number DESC LIMIT 1;
    INSERT INTO chain AS c (number, kind, first_position, last_position, head, digest, marks, hash)
    VALUES (coalesce(number_before, 0) + 1, kind, first_position, last_position, head, digest, marks,
            sha256(coalesce(hash_before, decode(repeat('00', 32), 'hex')) || int2send(kind)
                   || int8send(first_position) || int8send(last_position) || int8send(head) || digest));
    RETURN coalesce(number_before, 0) + 1;
END $$;
