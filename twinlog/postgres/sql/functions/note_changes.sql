-- revision: 1
-- Notes which rows of a view were changed with a checkpoint's advance, which has locked out others of its consumer. What
-- was noted beyond `after` is from before the checkpoint was set back.
CREATE OR REPLACE FUNCTION note_changes(who text, after bigint, upto bigint, view text, keys text[], fields text[],
                                        before text[]) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM view_changes c WHERE c.consumer = who AND c.view = note_changes.view AND c.position > note_changes.after;
    INSERT INTO view_changes (consumer, view, position, part, after, keys, fields, before)
    SELECT who, note_changes.view, upto,
           CASE WHEN upto = note_changes.after THEN 1 + coalesce((
               SELECT max(c.part) FROM view_changes c
                WHERE c.consumer = who AND c.view = note_changes.view AND c.position = upto), 0) ELSE 0 END,
           note_changes.after, note_changes.keys, note_changes.fields, note_changes.before;
END $$;
