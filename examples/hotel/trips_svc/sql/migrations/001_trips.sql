-- A released migration never changes; put a change into 002_… .
CREATE TABLE trips (
    trip_id text PRIMARY KEY,
    guest   text NOT NULL,
    room_id text NOT NULL,
    state   text NOT NULL,
    cents   bigint NOT NULL,
    reason  text NOT NULL
);
