-- Builds of views: tables that hold the same view, each filled from the logs by itself. One of them is read. A view
-- without a row here has one build, in the table that its migration made.

CREATE TABLE view_builds (
    view        text NOT NULL,
    build       integer NOT NULL,
    version     integer NOT NULL,
    -- The table that the migration made; others are in a schema of their own.
    home        boolean NOT NULL,
    live        boolean NOT NULL,
    -- Its rows are gone, and nobody keeps it. A home's table stays, empty.
    dropped     boolean NOT NULL DEFAULT false,
    -- Percent of the time that it may be filled in.
    share       smallint NOT NULL DEFAULT 100,
    begun_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    live_since  timestamptz,
    live_until  timestamptz,
    PRIMARY KEY (view, build)
);
CREATE UNIQUE INDEX view_builds_live ON view_builds (view) WHERE live;
