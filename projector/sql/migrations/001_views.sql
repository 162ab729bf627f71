-- Views: made from the logs, may be dropped and made again at any time, together with their checkpoints.

-- Signs page tokens; the same for every replica.
CREATE TABLE page_key (key text NOT NULL);
INSERT INTO page_key SELECT gen_random_uuid()::text || gen_random_uuid()::text;

CREATE TABLE orders (
    order_id         text PRIMARY KEY,
    customer_id      text NOT NULL,
    total_nanos      numeric NOT NULL,
    currency         text NOT NULL,
    state            smallint NOT NULL,
    reason           smallint NOT NULL,
    saga_mode        smallint NOT NULL,
    created_position bigint NOT NULL,
    created_at       timestamptz NOT NULL,
    updated_at       timestamptz NOT NULL,
    version          integer NOT NULL
);
CREATE INDEX orders_newest ON orders (created_position DESC);
CREATE INDEX orders_of_customer ON orders (customer_id, created_position DESC);
CREATE INDEX orders_in_state ON orders (state, created_position DESC);

CREATE TABLE customers (
    customer_id      text PRIMARY KEY,
    name             text NOT NULL,
    currency         text NOT NULL,
    limit_nanos      numeric NOT NULL,
    reserved_nanos   numeric NOT NULL,
    created_position bigint NOT NULL,
    created_at       timestamptz NOT NULL,
    updated_at       timestamptz NOT NULL
);
CREATE INDEX customers_newest ON customers (created_position DESC);

CREATE TABLE timeline (
    log            text NOT NULL,
    position       bigint NOT NULL,
    order_id       text NOT NULL,
    stream_id      text NOT NULL,
    type           text NOT NULL,
    payload        bytea NOT NULL,
    recorded_at    timestamptz NOT NULL,
    causation_id   text NOT NULL,
    correlation_id text NOT NULL,
    actor          text NOT NULL,
    PRIMARY KEY (position, log)
);
CREATE INDEX timeline_of_order ON timeline (order_id) WHERE order_id <> '';
CREATE INDEX timeline_of_saga ON timeline (stream_id) WHERE log = 'sagas';
