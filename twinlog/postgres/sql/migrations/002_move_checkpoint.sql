-- Used to create move_checkpoint, now functions/move_checkpoint.sql. The number stays taken; nothing is left to do.
SELECT;
