-- Moves a consumer's checkpoint by compare-and-set; raises TW001, with the position in the detail, where it is
-- elsewhere. A second mover waits for the first one's commit. Raising undoes whatever shares the statement.
CREATE FUNCTION move_checkpoint(who text, after bigint, upto bigint) RETURNS bigint LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO checkpoints AS kept (consumer, position)
    SELECT who, upto WHERE after = 0 OR EXISTS (SELECT FROM checkpoints c WHERE c.consumer = who)
    ON CONFLICT (consumer) DO UPDATE SET position = upto WHERE kept.position = after;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'the checkpoint of % is not at %', who, after
            USING ERRCODE = 'TW001',
                  DETAIL = coalesce((SELECT c.position FROM checkpoints c WHERE c.consumer = who), 0)::text;
    END IF;
    RETURN upto;
END $$;
