-- One row for each stay; two logs change it.
CREATE TABLE stays (
    stay_id text PRIMARY KEY,
    guest   text NOT NULL,
    paid    bigint NOT NULL
);
CREATE INDEX stays_guest ON stays (guest);
