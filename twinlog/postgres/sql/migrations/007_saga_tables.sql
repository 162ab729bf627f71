-- The tables of sagas that instances of this log have begun with, by version: what a changed table is compared with.

CREATE TABLE saga_tables (
    saga        text NOT NULL,
    version     integer NOT NULL,
    fingerprint text NOT NULL,
    -- Names of steps and of message types, for the words in which a change is told.
    shape       jsonb NOT NULL,
    -- No instance needed it when a program without it started.
    retired     boolean NOT NULL DEFAULT false,
    kept_at     timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (saga, version)
);
