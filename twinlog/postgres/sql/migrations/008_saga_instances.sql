-- The list of sagas: made from the log's own events, may be emptied and made again at any time.

CREATE TABLE saga_instances (
    stream           text PRIMARY KEY,
    saga             text NOT NULL,
    saga_id          text NOT NULL,
    subject          text NOT NULL,
    version          integer NOT NULL,
    status           smallint NOT NULL,
    reason           text NOT NULL,
    started_position bigint NOT NULL,
    started_at       timestamptz NOT NULL,
    updated_at       timestamptz NOT NULL
);
CREATE INDEX saga_instances_newest ON saga_instances (status, started_position);
CREATE INDEX saga_instances_about ON saga_instances (subject, started_position);
