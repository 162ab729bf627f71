-- The list of sagas: made from the sagas log, may be dropped and made again at any time.

-- Signs page tokens; the same for every replica.
CREATE TABLE page_key (key text NOT NULL);
INSERT INTO page_key SELECT gen_random_uuid()::text || gen_random_uuid()::text;

CREATE TABLE sagas (
    saga_id            text PRIMARY KEY,
    order_id           text NOT NULL,
    customer_id        text NOT NULL,
    definition_version integer NOT NULL,
    status             smallint NOT NULL,
    reason             text NOT NULL,
    started_position   bigint NOT NULL,
    started_at         timestamptz NOT NULL,
    updated_at         timestamptz NOT NULL
);
CREATE INDEX sagas_newest ON sagas (started_position DESC);
CREATE INDEX sagas_with_status ON sagas (status, started_position DESC);
