CREATE TABLE stays_v2 (stay_id text PRIMARY KEY, guest text NOT NULL, changes integer NOT NULL, loud text NOT NULL);
CREATE INDEX stays_v2_by_guest ON stays_v2 (guest);
