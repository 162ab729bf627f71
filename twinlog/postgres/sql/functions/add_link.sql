-- revision: 1
-- Adds a link to the chain. The caller holds the lock of log_head.
CREATE OR REPLACE FUNCTION add_link(
    kind           smallint,
    first_position bigint,
    last_position  bigint,
    head           bigint,
    digest         bytea,
    marks          bytea
) RETURNS void LANGUAGE plpgsql AS $$
#variable_conflict use_variable
DECLARE
    number_before bigint := 0;
    hash_before   bytea := decode(repeat('00', 32), 'hex');
    newest        record;
BEGIN
    SELECT c.number, c.hash INTO newest FROM chain c ORDER BY c.number DESC LIMIT 1;
    IF FOUND THEN
        number_before := newest.number;
        hash_before := newest.hash;
    END IF;
    INSERT INTO chain AS c (number, kind, first_position, last_position, head, digest, marks, hash)
    VALUES (number_before + 1, kind, first_position, last_position, head, digest, marks,
            sha256(hash_before || int2send(kind) || int8send(first_position) || int8send(last_position)
                   || int8send(head) || digest));
END $$;
