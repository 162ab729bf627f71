-- revision: 1
-- Advances a consumer's checkpoint if it is still at `after`, as move_checkpoint does, and notes the event that it stands
-- at, null where that is unknown.
CREATE OR REPLACE FUNCTION advance_checkpoint(who text, after bigint, upto bigint, event uuid) RETURNS bigint
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM move_checkpoint(who, after, upto);
    IF event IS NOT NULL THEN
        UPDATE checkpoints SET event_position = upto, event_id = event WHERE consumer = who;
    END IF;
    RETURN upto;
END $$;
