CREATE TABLE stays (stay_id text PRIMARY KEY, guest text NOT NULL, changes integer NOT NULL);
CREATE INDEX stays_by_guest ON stays (guest);
