-- Where watches go on that were told from a build of a view which was dropped since. Kept for a while, and may be emptied
-- at any time: such watches then begin anew.

CREATE TABLE view_crossings (
    view        text NOT NULL,
    -- The number of the dropped build; 0: the home.
    build       integer NOT NULL,
    -- By log, the position where it stood, and the number of replays there.
    marks       jsonb NOT NULL,
    -- The same of the build that was read at that moment.
    entered     integer NOT NULL,
    reached     jsonb NOT NULL,
    -- The rows that differed then, with the fields that filters look at as the dropped build had them; null: no row.
    keys        text[] NOT NULL,
    fields      text[] NOT NULL,
    before      text[] NOT NULL,
    recorded_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (view, build)
);
