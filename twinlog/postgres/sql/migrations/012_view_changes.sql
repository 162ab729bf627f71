-- Which rows of views each commit has changed, for those who watch them. Kept for a while, and may be emptied at any
-- time: watches of many rows then begin anew.

CREATE TABLE view_changes (
    consumer    text NOT NULL,
    view        text NOT NULL,
    -- The checkpoint that was committed with the rows.
    position    bigint NOT NULL,
    -- Counts replays of dead letters, which change rows where the checkpoint stays; 0: it moved.
    part        integer NOT NULL,
    -- Where the checkpoint was before.
    after       bigint NOT NULL,
    -- Orders what several consumers changed of one row.
    ordinal     bigint GENERATED ALWAYS AS IDENTITY,
    keys        text[] NOT NULL,
    -- The fields of rows that filters look at, and by key their values before, as a JSON array; null: there was no row.
    fields      text[] NOT NULL,
    before      text[] NOT NULL,
    recorded_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (consumer, view, position, part)
);
