-- revision: 1
-- Refuses whatever is not an insert; the trigger `insert_only` calls it.
CREATE OR REPLACE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the log takes inserts only: % of % refused', TG_OP, TG_TABLE_NAME
        USING ERRCODE = 'insufficient_privilege', HINT = 'append an event that corrects the earlier one';
END $$;
