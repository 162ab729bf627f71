-- What a domain says of an event besides its payload, such as the tenant. A column of its own: programs from before it
-- take every name in `metadata` for one that they know.

ALTER TABLE events ADD COLUMN extra jsonb;
ALTER TABLE given_up_events ADD COLUMN extra jsonb;
