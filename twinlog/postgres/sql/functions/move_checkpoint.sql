-- revision: 1
-- Advances a consumer's checkpoint if it is still at `after`; otherwise raises TW001, with its position as the detail,
-- which undoes everything in the same statement. A concurrent call waits until the first one commits.
CREATE OR REPLACE FUNCTION move_checkpoint(who text, after bigint, upto bigint) RETURNS bigint LANGUAGE plpgsql AS $$
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
